"""Read Prometheus' exposition format: the samples of a page, and the readings that several servers give by different names."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator

from tune_gpu.services.running import KV_CACHE_PCT

_LONGEST_LINE = 2**16
_SAMPLE = re.compile(r'[\w:]++[ \t]*+(?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*+")*+)\})?[ \t]*+(?P<value>\S++)', re.ASCII)
"""One line. The quantifiers are possessive, so that a line that does not match costs linear time."""
_LABEL = re.compile(r'([a-zA-Z_]\w*+)[ \t]*+=[ \t]*+"((?:[^"\\]|\\.)*+)"', re.ASCII)
_ESCAPED = {r"\n": "\n", r"\"": '"', r"\\": "\\"}
_KV_CACHE_USE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
"""The share of a KV cache that is in use, from 0 to 1. The second is that of vLLM's V0."""


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
    """Return how full the KV cache is, in per cent (the fullest of several engines); empty if the page does not have it."""
    found = [value for name in _KV_CACHE_USE for _, value in samples(metrics, name) if math.isfinite(value)]
    return {KV_CACHE_PCT: round(100.0 * max(found), 2)} if found else {}
