"""Measure how many callers can be served at once, by a ramp of voice sessions on the running services.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tune_gpu.config.measure_settings import LONGEST_PAUSE
from tune_gpu.config.schema import ObjectiveSettings, WorkloadSettings
from tune_gpu.metrics import of_turns
from tune_gpu.workload.arrivals import poisson_arrivals
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.capacity_error import resampled
from tune_gpu.workload.clients import Endpoints, complete
from tune_gpu.workload.percentiles import Distribution
from tune_gpu.workload.voice_turn import TurnSample, sample_of, take_turn
from tune_gpu.workload.window import Abort, background_prompt, client_session, never, spoken_order, until_done_or_aborted

_BESIDE = 3_000_000  # names the random stream of the background requests


@dataclass(frozen=True)
class Capacity:
    """Result of a ramp."""

    sessions: int
    """Most simultaneous voice sessions that met the targets."""
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


def ratios_of(turns: Sequence[TurnSample], objective: ObjectiveSettings) -> np.ndarray:
    """Return for each answered turn the latencies of Whisper, of the LLM and to the first token, over their targets: (turns, 3)."""
    targets = (objective.stt_latency_target_ms, objective.llm_latency_target_ms, objective.ttft_target_ms)
    rows = [(t.stt.latency_ms, t.llm.latency_ms, t.llm.ttft_ms) for t in turns if t.error is None and t.stt is not None and t.llm is not None]
    return np.array([row for row in rows if None not in row], dtype=float).reshape(-1, 3) / targets


def with_error(capacity: Capacity, objective: ObjectiveSettings, windows: Sequence[Sequence[TurnSample]] = (), seed: int = 0) -> Capacity:
    """Return the capacity with its standard error and interval, from the turns of its steps. The turns of windows of load add to what is known of
    the spread of latencies, because a short step has one turn or two."""
    also = [ratios_of([turn for turns in windows for turn in turns], objective)]
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


def load_of(turns: Sequence[TurnSample], objective: ObjectiveSettings) -> float:
    """Return the worst ratio of a latency's percentile to its target, or infinity if nothing was answered or too many turns failed.

    A failed turn has no latency. Above the allowed share of failures the step cannot pass.
    """
    answered = [turn for turn in turns if turn.error is None]
    allowed_pct = 0.0 if objective.max_failed_requests_pct is None else objective.max_failed_requests_pct
    if not answered or 100.0 * (len(turns) - len(answered)) / len(turns) > allowed_pct:
        return float("inf")
    loads = []
    for metric in of_turns():
        if not metric.target:
            continue
        found = Distribution.of([sample for turn in answered if (sample := sample_of(turn, metric)) is not None])
        if found is None:
            return float("inf")
        loads.append(found.at(objective.latency_percentile) / float(getattr(objective, metric.target)))
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


def find_capacity(
    endpoints: Endpoints,
    workload: WorkloadSettings,
    objective: ObjectiveSettings,
    utterances: Sequence[Utterance],
    *,
    seed: int,
    abort: Abort = never,
    on_step: Callable[[int, float], None] = lambda _sessions, _load: None,
) -> Capacity | None:
    """Ramp the sessions up until a step fails twice or the ramp ends. Return the capacity, or None if `abort` ended the ramp."""
    loads: list[float] = []
    steps: list[np.ndarray] = []
    endpoints = endpoints.with_cold_cache()
    for sessions in range(1, workload.capacity_max_sessions + 1):
        turns: list[TurnSample] = []
        for attempt in range(2):
            rng = np.random.default_rng([seed, 1_000_000, sessions, attempt])
            beside = np.random.default_rng([seed, _BESIDE, sessions, attempt])
            more, aborted = asyncio.run(_hold(endpoints, workload, utterances, sessions, rng, beside, abort))
            if aborted:
                return None
            turns += more
            load = load_of(turns, objective)
            if load <= 1.0 or load > workload.capacity_hopeless_load:
                break
        loads.append(load)
        steps.append(ratios_of(turns, objective))
        on_step(sessions, load)
        if load > 1.0:
            return replace(decide(loads, at_ceiling=False), steps=tuple(steps))
    return replace(decide(loads, at_ceiling=True), steps=tuple(steps))


async def _hold(
    endpoints: Endpoints,
    workload: WorkloadSettings,
    utterances: Sequence[Utterance],
    sessions: int,
    rng: np.random.Generator,
    beside: np.random.Generator,
    abort: Abort,
) -> tuple[list[TurnSample], str | None]:
    """Hold so many sessions for one step, and return their turns, and why it was aborted or None. `beside` draws the background requests."""
    turns: list[TurnSample] = []
    ends = time.monotonic() + workload.capacity_step_s
    voices = [np.random.default_rng(rng.integers(2**63)) for _ in range(sessions)]

    async def work() -> None:
        async with client_session() as client, asyncio.TaskGroup() as group:

            async def session(voice: np.random.Generator) -> None:
                for utterance in spoken_order(utterances, voice):
                    await asyncio.sleep(float(voice.uniform(0.5, LONGEST_PAUSE)) * workload.session_pause_s)
                    if time.monotonic() >= ends:
                        return
                    turns.append(
                        await take_turn(
                            client,
                            endpoints,
                            utterance,
                            due=time.monotonic(),
                            max_tokens=workload.max_tokens,
                            timeout_s=workload.request_timeout_s,
                        )
                    )

            async def ask(due: float, prompt: str) -> None:
                await asyncio.sleep(due - time.monotonic())
                await complete(client, endpoints, prompt, max_tokens=workload.max_tokens, due=due, timeout_s=workload.request_timeout_s)

            begins = ends - workload.capacity_step_s
            for offset in poisson_arrivals(workload.background_rate_per_s, workload.capacity_step_s, beside):
                group.create_task(ask(begins + offset, background_prompt(workload.background_prompt_tokens, beside)))
            for voice in voices:
                group.create_task(session(voice))

    return turns, await until_done_or_aborted(work(), abort)
