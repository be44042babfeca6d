"""Show the progress of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tune_gpu.artifacts.deployments import deployment_of, key_of
from tune_gpu.artifacts.lines import started_services
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.cli.progress_table import error_rate_of, fitness_of, make_progress_table, samples_of
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Metric, shown_percentiles
from tune_gpu.common.wording import failure_text
from tune_gpu.metrics import KV_CACHE_PEAK, KV_CACHE_TOKENS, KV_MAX_CONCURRENCY, PAIR
from tune_gpu.search.evidence import Deployment, Evidence
from tune_gpu.search.tournament import Candidate


def describe_params(params: Mapping[str, Any]) -> str:
    """Return the parameters as short text for a table."""
    return ", ".join(f"{name}={value}" for name, value in params.items())


class Progress:
    """The table of evaluations.

    Args:
        total: number of planned evaluations.
        names: names of the parameters, one column each.
        catalogue: the metrics of the space.
        quiet: whether to print nothing.
        verbose: whether to print also how the time of each evaluation was spent and what the engine reported.
    """

    def __init__(
        self, console: Console, total: int, names: list[str], catalogue: Catalogue = PAIR, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        self._catalogue = catalogue
        self._console, self._total, self._names, self._quiet, self._verbose = console, total, names, quiet, verbose
        self._rows: list[EvaluationRecord] = []
        self._n_ended = 0
        self._running: dict[str, Candidate] = {}  # several at once on a cluster
        self._phase = ""
        self._started = time.monotonic()
        self._n_measured = 0
        """Number of evaluations that ended since this program started."""
        self._measuring_since: float | None = None
        self._each_s: float | None = None
        self._live: Live | None = None
        self._deployments: list[Deployment] = []
        self._evidence = Evidence(())

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        if self._console.is_terminal and not self._quiet:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._running = {}
            self._live.refresh()
            self._live.stop()

    def began(self, candidate: Candidate) -> None:
        """Record that a candidate's evaluation has begun."""
        self._measuring_since = self._measuring_since or time.monotonic()
        self._running[candidate.candidate_id] = candidate
        if self._live is None and not self._quiet:
            self._console.print(
                f"{candidate.candidate_id} {candidate.origin}: {describe_params(candidate.params)} …",
                highlight=False, soft_wrap=True, markup=False,
            )  # fmt: skip

    def ended(self, line: EvaluationRecord, *, replayed: bool = False) -> None:
        """Record that an evaluation has ended."""
        self._n_ended += 1
        self._total = max(self._total, self._n_ended)  # repeated measurements of the winner are not planned
        if self._console.is_terminal:  # only the table needs the lines, and a long run has many
            self._rows.append(line)
        if line.fitness is not None:
            self._deployments.append(deployment_of(line, key_of(line.params)))
            self._evidence = Evidence(self._deployments)
        self._running.pop(line.candidate_id, None)
        if not replayed and self._measuring_since is not None:
            self._n_measured += 1
            self._each_s = (time.monotonic() - self._measuring_since) / self._n_measured
        if not self._quiet and (self._live is None or (line.failure and not replayed)):  # the table has no room for the reason of a failure
            self._console.print("  " + self._plain(line), highlight=False, soft_wrap=True, markup=False)
        if self._verbose and not self._quiet and not replayed:
            for detail in details(line, self._catalogue):
                self._console.print("    " + detail, highlight=False, soft_wrap=True, markup=False, style="dim")

    def note(self, line: str) -> None:
        """Print any other line for the user."""
        if not self._quiet:
            self._console.print(line, highlight=False, soft_wrap=True)

    def time_left_s(self) -> float | None:
        """Estimate the seconds left from the rate of evaluations so far, or return None before the first."""
        return None if self._each_s is None else self._each_s * max(0, self._total - self._n_ended)

    def _plain(self, line: EvaluationRecord) -> str:
        left = self.time_left_s()
        tail = f"[{self._n_ended}/{self._total}{f', about {left:.0f} s left' if left else ''}]"
        if line.fitness is None:
            failure = line.failure
            why = f"{failure.kind}, {failure_text(failure.message, failure.evidence)}" if failure else ", ".join(line.violations)
            return f"{line.candidate_id} {line.outcome}: {why} {tail}"
        metrics = line.metrics
        return (
            f"{line.candidate_id} ok: fitness {fitness_of(line, self._evidence)}, {describe_measured(metrics, self._catalogue)}{describe_saturation(metrics)}"
            f"{describe_starts(line, self._catalogue)} {tail}"
        )

    def _table(self) -> Table:
        elapsed_s, left_s = time.monotonic() - self._started, self.time_left_s()
        return make_progress_table(
            self._console, self._rows, list(self._running.values()), self._names, self._evidence, self._catalogue,
            total=self._total, elapsed_s=elapsed_s, left_s=left_s,
        )  # fmt: skip


def describe_starts(line: EvaluationRecord, catalogue: Catalogue = PAIR) -> str:
    """Return which services were started for an evaluation; for the default pair, if its engine was."""
    if not catalogue.names_services:
        return "engine reused" if line.engine_reused else "engine started"
    started = started_services(line)
    return f"started {', '.join(started)}" if started else "no service started anew"


def describe_measured(metrics: Mapping[str, Any], catalogue: Catalogue = PAIR) -> str:
    """Return the metrics of the table as one line, without metrics that were not measured."""
    parts: list[str] = []
    for metric in catalogue.every():
        value = metrics.get(metric.name)
        if metric.column is None or (value is None and not metric.many):
            continue
        bound = "at least " if metrics.get(metric.at_least) is True else ""
        if metric.many:
            parts.append(f"{metric.column.title} {describe_percentiles(metrics, metric)}")
        else:
            parts.append(
                f"{error_rate_of([metrics], metric, catalogue) if metric.counts_errors else metric.column.title} {bound}{value}{metric.zero if value == 0 else ''}"
            )
    return "".join(f"{part}, " for part in parts)


def describe_percentiles(metrics: Mapping[str, Any], metric: Metric) -> str:
    """Return the median and the largest percentile up to p95 for which a metric has enough samples: `p50/p95 1045 / 2507 ms (n=24)`."""
    value, n, unit = metrics.get(metric.name), samples_of(metrics, metric), f" {metric.unit}" if metric.unit else ""
    digits = metric.column.digits if metric.column else 0
    if not value:
        return "-"
    if not (percentiles := shown_percentiles(n)):
        return f"n={n}: too few for a median"
    numbers = " / ".join(f"{value[at]:.{digits}f}" for at in percentiles)
    return f"{'/'.join(percentiles)} {numbers}{unit}" + ("" if n is None else f" (n={n})")


def describe_saturation(metrics: Mapping[str, Any]) -> str:
    """Return how many turns a saturated evaluation answered, also if there are too few turns to be sure; "" if it is not saturated."""
    found = metrics.get("saturation")
    if not isinstance(found, Mapping) or found.get("saturated") is False:
        return ""
    return f"{'saturated' if found.get('saturated') else 'late'} ({found['answered_in_time']} of {found['offered']} turns answered within their window), "


def details(line: EvaluationRecord, catalogue: Catalogue = PAIR) -> Iterator[str]:
    """Yield further facts of an evaluation, for --verbose."""
    spent = line.duration_s
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in (spent.start_by_part or {}).items())
    yield (
        f"{line.candidate_id}: start {spent.start:.1f} s ({parts}), warm {spent.warm:.1f}, load {spent.load:.1f}, "
        f"stop {spent.stop:.1f}"
    )
    for metric in catalogue.of_entry(KV_CACHE_TOKENS):
        tokens, sequences = (line.metrics.get(catalogue.name(entry, metric.service)) for entry in (KV_CACHE_TOKENS, KV_MAX_CONCURRENCY))
        if tokens:
            at_most = f", {sequences:.1f} sequences of full context" if sequences else ""
            peak = line.metrics.get(catalogue.name(KV_CACHE_PEAK, metric.service))
            whose = f" {metric.service}:" if metric.service else ""
            yield f"{line.candidate_id}:{whose} KV cache of {tokens} tokens{at_most}" + (f", {peak:.2g} % in use at most" if peak is not None else "")
