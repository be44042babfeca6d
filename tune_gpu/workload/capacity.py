"""Measure how many sessions can be served at once, by a ramp of sessions on the running services.

A session takes one turn after another with a short pause between them (a closed loop: a caller waits for the answer). The ramp holds 1, 2, 3 …
sessions for one step each, beside the background requests of the windows, so that the capacity is that of the shared card. A step passes while the
percentile of each latency and the share of failures of the turns stay within their targets. A step that fails is held once more, and fails only if
both attempts together fail.

A ramp whose every step passed says "at least": how nearly the last step failed tells nothing of the steps that were not held, so two such ramps
are equal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Metric
from tune_gpu.config.schema import ObjectiveSettings, WorkloadSettings
from tune_gpu.config.search_settings import target_of
from tune_gpu.metrics import PAIR
from tune_gpu.workload.capacity_error import resampled
from tune_gpu.workload.inputs import Inputs, Item
from tune_gpu.workload.percentiles import Distribution
from tune_gpu.workload.plan import Ask, StepPlan, plan_step
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn, sample_of, take_turn
from tune_gpu.workload.window import Abort, client_session, never, until_done_or_aborted


@dataclass(frozen=True)
class Capacity:
    """Result of a ramp."""

    sessions: int
    """Most simultaneous sessions that met the targets."""
    continuous: float
    """The same, plus a fraction for how nearly the next step passed, so that it is strictly monotone where `sessions` ties. None at the ceiling."""
    loads: tuple[float, ...]
    """For 1, 2, 3 … sessions, the worst ratio of a latency to its target. Above 1 the step failed."""
    at_ceiling: bool = False
    """True if every step passed: the capacity is at least this."""
    steps: tuple[np.ndarray, ...] = field(default=(), compare=False, repr=False)
    """For 1, 2, 3 … sessions the answered turns: see `ratios_of`."""
    stderr: float | None = None
    """Standard error of `continuous` (`with_error`); None where no two turns can be compared."""
    interval: tuple[float, float] | None = None
    """The middle 95 % of ramps made again from the turns of this one."""


def targets_of(turns: Sequence[Turn], objective: ObjectiveSettings, catalogue: Catalogue) -> list[tuple[Metric, float]]:
    """Return the metrics of these turns that have a target, each with it. A service that no turn passes has none, and what only sessions measure
    counts where it was measured."""
    passed = {"", *(label for turn in turns for label in turn.stages or turn.samples)}
    known = [
        metric
        for metric in catalogue.of_turns()
        if metric.of_turn.rpartition(".")[0] in passed and (not metric.needs.sessions or any(sample_of(turn, metric) is not None for turn in turns))
    ]
    return [(metric, target) for metric in known if (target := target_of(objective, metric))]


def ratios_of(turns: Sequence[Turn], objective: ObjectiveSettings, catalogue: Catalogue = PAIR) -> np.ndarray:
    """Return for each answered turn its samples over their targets: (turns, metrics that have a target)."""
    targets = targets_of(turns, objective, catalogue)
    if not targets:
        return np.empty((0, 0))
    rows = [[sample_of(turn, metric) for metric, _ in targets] for turn in turns if turn.error is None]
    return np.array([row for row in rows if None not in row], dtype=float).reshape(-1, len(targets)) / [target for _, target in targets]


def with_error(
    capacity: Capacity, objective: ObjectiveSettings, windows: Sequence[Sequence[Turn]] = (), catalogue: Catalogue = PAIR, seed: int = 0
) -> Capacity:
    """Return the capacity with its standard error and interval, from the turns of its steps. The turns of windows of load add to what is known of
    the spread of latencies, because a short step has one turn or two."""
    also = [ratios_of([turn for turns in windows for turn in turns], objective, catalogue)]
    drawn = resampled(
        capacity.steps,
        capacity.loads,
        objective.latency_percentile,
        lambda loads: decide(loads, at_ceiling=capacity.at_ceiling).continuous,
        np.random.default_rng(seed),
        also,
    )
    if drawn is None:
        return capacity
    low, high = (float(at) for at in np.percentile(drawn, [2.5, 97.5]))
    return replace(capacity, stderr=float(drawn.std(ddof=1)), interval=(low, high))


def load_of(turns: Sequence[Turn], objective: ObjectiveSettings, catalogue: Catalogue = PAIR) -> float:
    """Return the worst ratio of a metric's percentile to its target, or infinity if nothing was answered or too many turns failed.

    A failed turn has no latency. Above the allowed share of failures the step cannot pass.
    """
    answered = [turn for turn in turns if turn.error is None]
    allowed_pct = 0.0 if objective.max_failed_requests_pct is None else objective.max_failed_requests_pct
    if not answered or 100.0 * (len(turns) - len(answered)) / len(turns) > allowed_pct:
        return float("inf")
    loads = []
    for metric, target in targets_of(turns, objective, catalogue):
        found = Distribution.of([sample for turn in answered if (sample := sample_of(turn, metric)) is not None])
        if found is None:
            return float("inf")
        loads.append(found.at(objective.latency_percentile) / target)
    return max(loads)


def decide(loads: Sequence[float], *, at_ceiling: bool) -> Capacity:
    """Return the capacity, given the loads of 1, 2, 3 … sessions. Only the last may have failed.

    The load is taken as linear between the last step that passed (load a <= 1) and the first that failed (b > 1), so that it crosses 1 at
    the fraction (1 - a) / (b - a). If one session already fails, the fraction is 1 / b. At the ceiling there is none.
    """
    passed = sum(load <= 1.0 for load in loads)
    if passed == len(loads):
        fraction = 1.0 - loads[-1] if loads and not at_ceiling else 0.0
        return Capacity(passed, passed + fraction, tuple(loads), at_ceiling)
    failed = loads[passed]
    if passed == 0:
        return Capacity(0, 1.0 / failed, tuple(loads))
    below = loads[passed - 1]
    return Capacity(passed, passed + (1.0 - below) / (failed - below), tuple(loads))


Hold = Callable[[int, int], tuple[list[Turn], str | None]]
"""Holds so many sessions for one step, given the number of the attempt. Returns their turns, and why it was aborted or None."""


def find_capacity(
    traffic: Traffic,
    workload: WorkloadSettings,
    objective: ObjectiveSettings,
    inputs: Inputs,
    catalogue: Catalogue,
    *,
    seed: int,
    abort: Abort = never,
    on_step: Callable[[int, float], None] = lambda _sessions, _load: None,
    hold: Hold | None = None,
) -> Capacity | None:
    """Ramp the sessions up until a step fails twice or the ramp ends. Return the capacity, or None if `abort` ended the ramp.

    Without `hold` a session takes one turn after another with a short pause between them, of the inputs in a random order.
    """
    loads: list[float] = []
    steps: list[np.ndarray] = []
    traffic = traffic.with_cold_cache()

    def take_turns(sessions: int, attempt: int) -> tuple[list[Turn], str | None]:
        plan = plan_step(traffic, workload, inputs, seed=seed, sessions=sessions, attempt=attempt)
        return asyncio.run(_hold(traffic, workload, plan, abort))

    for sessions in range(1, workload.capacity_max_sessions + 1):
        turns: list[Turn] = []
        for attempt in range(2):
            more, aborted = (hold or take_turns)(sessions, attempt)
            if aborted:
                return None
            turns += more
            load = load_of(turns, objective, catalogue)
            if load <= 1.0 or load > workload.capacity_hopeless_load:
                break
        loads.append(load)
        steps.append(ratios_of(turns, objective, catalogue))
        on_step(sessions, load)
        if load > 1.0:
            return replace(decide(loads, at_ceiling=False), steps=tuple(steps))
    return replace(decide(loads, at_ceiling=True), steps=tuple(steps))


async def _hold(traffic: Traffic, workload: WorkloadSettings, plan: StepPlan, abort: Abort) -> tuple[list[Turn], str | None]:
    """Carry out one step, and return its turns, and why it was aborted or None."""
    turns: list[Turn] = []
    begins = time.monotonic()
    ends = begins + workload.capacity_step_s

    async def work() -> None:
        async with client_session() as client, asyncio.TaskGroup() as group:

            async def session(caller: Iterator[tuple[float, Item]]) -> None:
                for pause_s, item in caller:
                    await asyncio.sleep(pause_s)
                    if time.monotonic() >= ends:
                        return
                    turns.append(await take_turn(client, traffic, workload, item, due=time.monotonic()))

            async def ask(planned: Ask) -> None:
                due = begins + planned.at_s
                await asyncio.sleep(due - time.monotonic())
                await traffic.ask(client, planned.stage, planned.content, workload, due=due)

            for planned in plan.asks:
                group.create_task(ask(planned))
            for caller in plan.callers:
                group.create_task(session(caller))

    return turns, await until_done_or_aborted(work(), abort)
