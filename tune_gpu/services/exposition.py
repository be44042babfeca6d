"""Read Prometheus' exposition format: the samples of a page, and the readings that several servers give by different names."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from tune_gpu.services import running
from tune_gpu.telemetry.counters import COUNTER

_LONGEST_LINE = 2**16
_SAMPLE = re.compile(r'[\w:]++[ \t]*+(?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*+")*+)\})?[ \t]*+(?P<value>\S++)', re.ASCII)
"""One line. The quantifiers are possessive, so that a line that does not match costs linear time."""
_LABEL = re.compile(r'([a-zA-Z_]\w*+)[ \t]*+=[ \t]*+"((?:[^"\\]|\\.)*+)"', re.ASCII)
_ESCAPED = {r"\n": "\n", r"\"": '"', r"\\": "\\"}
_NAMES: Mapping[str, tuple[str, ...]] = {
    running.KV_CACHE_PCT: ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    running.RUNNING: ("vllm:num_requests_running", "sglang:num_running_reqs"),
    running.WAITING: ("vllm:num_requests_waiting", "sglang:num_queue_reqs"),
    running.PREFIX_QUERIES: ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    running.PREFIX_HITS: ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    running.PREEMPTED: ("vllm:num_preemptions_total",),
    running.QUEUED_S: ("vllm:request_queue_time_seconds_sum",),
    running.QUEUED: ("vllm:request_queue_time_seconds_count",),
}
"""Reading -> its names in the pages of several servers, of which the first that a page has counts. `gpu_` is in those of vLLM's V0."""
_POOLED: Mapping[str, Callable[[Iterable[float]], float]] = {running.KV_CACHE_PCT: max}
"""How the values of several engines of one server become one reading: their sum, unless it is a share."""
_SCALE = {running.KV_CACHE_PCT: 100.0}


def samples(metrics: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Yield labels and value of every sample of one name, in time linear in the page. Malformed lines are left out.

    The page has hundreds of lines and is read while the load generator runs, so the other names are not parsed.
    """
    start = metrics.find(name)
    while start >= 0:
        end = metrics.find("\n", start)
        end = len(metrics) if end < 0 else end
        line = metrics[start : min(end, start + _LONGEST_LINE)]
        begins = start == 0 or metrics[start - 1] == "\n"
        if begins and line[len(name) : len(name) + 1] in ("{", " ", "\t") and (found := _SAMPLE.match(line)):
            with contextlib.suppress(ValueError):
                labels = _LABEL.findall(found["labels"] or "")
                yield {key: re.sub(r"\\.", lambda escaped: _ESCAPED.get(escaped[0], escaped[0]), value) for key, value in labels}, float(found["value"])
        start = metrics.find(name, end)


def gauges_in(metrics: str) -> dict[str, float]:
    """Return the readings and counters that the page has, for all engines of the server together: sums, and how full the fullest cache is."""
    found: dict[str, float] = {}
    for reading, names in _NAMES.items():
        values = next((values for name in names if (values := [value for _, value in samples(metrics, name) if math.isfinite(value)])), [])
        if values:
            found[reading] = round(_SCALE.get(reading, 1.0) * _POOLED.get(reading, math.fsum)(values), 6 if reading.endswith(COUNTER) else 2)
    return found
