"""Predict how long a run's confirmation takes, and fit it into its budget before it begins. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tune_gpu.artifacts.lines import engine_started
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.wording import counted
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.metrics import CAPACITY, EMBEDDING_LATENCY, FITNESS, LLM_LATENCY, SPEECH_LATENCY, STT_LATENCY

TYPICAL_START_S = {"cpu": 6.0, "cuda": 60.0}
"""Start, warm-up and stop of both services, by the kind of device, if nothing was measured."""
_TYPICAL_TAIL_S = 2.0
"""From the end of a window to its last answer."""
MARGIN = 1.15
"""Deployments differ, so a plan takes this many times the predicted seconds."""


@dataclass(frozen=True)
class DeploymentTimes:
    """Where the seconds of one deployment go."""

    start_s: float
    """Start, warm-up and stop of both services."""
    tail_s: float
    """From the end of a window to its last answer."""
    ramp_s: float
    """The search for the capacity."""
    first_s: float = 0.0
    """Additional time of the first deployment of a process (imports)."""
    measured: bool = False

    def deployment_s(self, config: ExperimentConfig) -> float:
        """Return the seconds of one deployment of a comparison under this configuration."""
        confirm, workload = config.confirm, config.workload
        windows = (confirm.windows or workload.windows) * ((confirm.window_s or workload.window_s) + self.tail_s)
        return self.start_s + windows + (self.ramp_s if confirm.capacity else 0.0)


def typical_times(config: ExperimentConfig, device: str) -> DeploymentTimes:
    """Return the typical times on a kind of device, for use before anything was measured. The ramp is assumed to end half way."""
    ramp_s = config.workload.capacity_step_s * math.ceil(config.workload.capacity_max_sessions / 2)
    return DeploymentTimes(TYPICAL_START_S.get(device, TYPICAL_START_S["cuda"]), _TYPICAL_TAIL_S, ramp_s)


def times_of(lines: Iterable[EvaluationRecord], config: ExperimentConfig) -> DeploymentTimes | None:
    """Return the median times of a run's deployments, or None if none was measured. Only a start of the engine counts as a start."""
    measured = [line for line in lines if line.n_windows and line.failure is None and line.duration_s.load > 0.0]
    if not measured:
        return None
    catalogue = catalogue_for(config)
    started = [line for line in measured if engine_started(line)] or measured
    start_s = statistics.median(map(_start_s, started))
    tail_s = statistics.median(_tail_s(line, catalogue) for line in measured)
    solo_s = len(_latencies(catalogue)) * config.workload.solo_window_s  # one for each service; a comparison has none
    ramps = [line.duration_s.load - line.n_windows * (config.workload.window_s + tail_s) - solo_s for line in measured]
    ramp_s = max(0.0, statistics.median(ramps)) if config.workload.capacity_step_s else 0.0
    return DeploymentTimes(start_s, tail_s, ramp_s, max(0.0, _start_s(started[0]) - start_s), measured=True)


def _start_s(line: EvaluationRecord) -> float:
    return line.duration_s.start + line.duration_s.warm + line.duration_s.stop


def _latencies(catalogue: Catalogue) -> list[str]:
    """Return the name of each service's latency."""
    return [metric.name for entry in (STT_LATENCY, LLM_LATENCY, SPEECH_LATENCY, EMBEDDING_LATENCY) for metric in catalogue.of_entry(entry)]


def _tail_s(line: EvaluationRecord, catalogue: Catalogue) -> float:
    """Return about how long the last turn of a window takes: the slow answers of all services, one after another."""
    found = [line.metrics.get(name) for name in _latencies(catalogue)]
    return sum(float(each.get("p95") or 0.0) for each in found if isinstance(each, dict)) / 1000.0


@dataclass(frozen=True)
class Forecast:
    """A confirmation as it would be made, and how it fits into its budget."""

    config: ExperimentConfig
    """With the confirmation's settings as they would be used."""
    n_arms: int
    deployment_s: float
    first_s: float
    changes: tuple[str, ...]
    """What is left out to fit into the budget."""
    measured: bool
    """Whether the times are the run's own."""

    @property
    def round_s(self) -> float:
        """Return the seconds of one round: every arm once."""
        return self.n_arms * self.deployment_s

    @property
    def needed_s(self) -> float:
        """Return the seconds that the fewest rounds of a verdict take, with some room."""
        return self.first_s + MARGIN * self.config.confirm.min_rounds * self.round_s

    @property
    def fits(self) -> bool:
        """Return whether the budget holds the rounds that a verdict needs."""
        return self.needed_s <= self.config.confirm.budget_s

    @property
    def n_rounds(self) -> int:
        """Return about how many rounds the budget holds."""
        held = int(max(0.0, self.config.confirm.budget_s - self.first_s) // self.round_s)
        return min(held, self.config.confirm.max_rounds)

    @property
    def budget_s(self) -> int:
        """Return a budget that holds the fewest rounds of a verdict."""
        return budget_for(self.needed_s)

    @property
    def times(self) -> str:
        """Return the prediction in words: `a round of 2 deployments takes about 20 s (10 s each, as measured in this run)`."""
        source = "as measured in this run" if self.measured else "typical times"
        return f"a round of {self.n_arms} deployments takes about {self.round_s:.0f} s ({self.deployment_s:.0f} s each, {source})"

    @property
    def room(self) -> str:
        """Return how many rounds the budget holds, and what is left out for that."""
        confirm = self.config.confirm
        without = f", with {', '.join(self.changes)} so that it fits" if self.changes else ""
        return f"{self.times}: a budget of {confirm.budget_s:g} s holds about {self.n_rounds}, a verdict needs {confirm.min_rounds}{without}"

    @property
    def too_short(self) -> str:
        """Return why the budget is too short."""
        confirm = self.config.confirm
        return (
            f"confirm.budget_s={confirm.budget_s:g} is too short for the {counted(confirm.min_rounds, 'round')} that a verdict needs: "
            f"{self.times}, so that they need about {self.needed_s:.0f} s"
        )


def budget_for(needed_s: float) -> int:
    """Return the budget of a comparison that needs this many seconds: whole minutes, at least one."""
    return math.ceil(max(needed_s, 1.0) / 60.0) * 60


def forecast(config: ExperimentConfig, times: DeploymentTimes, candidates: int) -> Forecast:
    """Return the confirmation that fits into its budget: the whole one if it fits, else a smaller one.

    Left out first is the ramp (unless the verdict rests on it), then the rivals, then all windows but one (unless `confirm.windows` is set).

    Args:
        config: of the run.
        times: of its deployments.
        candidates: how many compete, the winner among them; the baseline is additional.
    """
    found = whole(config, times, candidates)
    for lessened in _lessened(config, candidates):
        if found.fits:
            break
        found = whole(lessened[0], times, lessened[1], lessened[2])
    return found


def predicted_confirmation(config: ExperimentConfig, device: str) -> str:
    """Return whether a run of this space will confirm its winner on a kind of device, by typical times, and what to do if it will not."""
    if not config.confirm.enabled:
        return "confirmation: none (confirm.enabled=false); after the run: tune-gpu compare RUN_ID"
    if not config.baseline:
        return "confirmation: none, because there is no baseline; after the run: tune-gpu compare RUN_ID --baseline KEY=VALUE,…"
    planned = forecast(config, typical_times(config, device), config.confirm.candidates)
    if planned.fits:
        return f"confirmation: {planned.room}"
    return f"confirmation: none; {planned.too_short}. Raise it to {planned.budget_s}, or after the run: tune-gpu compare RUN_ID --budget-s {planned.budget_s}"


def whole(config: ExperimentConfig, times: DeploymentTimes, candidates: int = 1, changes: tuple[str, ...] = ()) -> Forecast:
    """Return the forecast of a comparison with everything that this configuration asks for."""
    return Forecast(config, candidates + 1, times.deployment_s(config), times.first_s, changes, times.measured)


def _lessened(config: ExperimentConfig, candidates: int) -> Sequence[tuple[ExperimentConfig, int, tuple[str, ...]]]:
    """Return smaller and smaller confirmations: configuration, candidates, and what each leaves out."""
    found: list[tuple[ExperimentConfig, int, tuple[str, ...]]] = []
    changes: tuple[str, ...] = ()
    if config.confirm.capacity and config.workload.capacity_step_s and not _rests_on_ramp(config):
        config, changes = _confirming(config, capacity=False), (*changes, "no search for the capacity")
        found.append((config, candidates, changes))
    if candidates > 1:
        candidates, changes = 1, (*changes, "no rivals")
        found.append((config, candidates, changes))
    if config.confirm.windows is None and config.workload.windows > 1:
        config, changes = _confirming(config, windows=1), (*changes, "one window in each deployment")
        found.append((config, candidates, changes))
    return found


def _rests_on_ramp(config: ExperimentConfig) -> bool:
    term = CAPACITY.term.name if CAPACITY.term else ""
    weighs = config.objective.weights.get(term, 0.0) > 0.0
    return config.confirm.metric == CAPACITY.compared_name or (config.confirm.metric == FITNESS.name and weighs)


def _confirming(config: ExperimentConfig, *, capacity: bool | None = None, windows: int | None = None) -> ExperimentConfig:
    confirm = config.confirm
    confirm = replace(confirm, capacity=confirm.capacity if capacity is None else capacity, windows=confirm.windows if windows is None else windows)
    return replace(config, confirm=confirm)
