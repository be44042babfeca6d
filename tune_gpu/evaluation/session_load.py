"""The load of one evaluation whose traffic is sessions: each window is filled before it is scored, and all share one cache salt."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace

from tune_gpu.config.languages import spoken_language
from tune_gpu.config.schema import ExperimentConfig, WorkloadSettings
from tune_gpu.workload.inputs import Inputs
from tune_gpu.workload.sessions.drive import run_sessions
from tune_gpu.workload.sessions.filling import Filling, fill
from tune_gpu.workload.sessions.habits import Habits
from tune_gpu.workload.sessions.ideal import Ideal, ideal_of
from tune_gpu.workload.sessions.plan import plan_sessions
from tune_gpu.workload.sessions.sent_prompts import prompts_of
from tune_gpu.workload.sessions.values import SessionWindow
from tune_gpu.workload.sources.loaded import load_sources
from tune_gpu.workload.stages import stages_of
from tune_gpu.workload.texts import load_texts
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn
from tune_gpu.workload.window import Abort, WindowResult

Planner = Callable[[int, float], SessionWindow]
"""Returns the plan of a window by its number and its length in seconds."""
_RAMP = 1_000_000
"""Numbers of the plans of a ramp begin here."""
_MOST_CLIPS = 64
"""Clips that are transcribed once for each setting of a recogniser, outside of any window. A source may have thousands."""


def planned_sessions(config: ExperimentConfig) -> tuple[Planner, Inputs]:
    """Return the plans of a space's windows, and the inputs with which its services are warmed up. Raise UserError if a source cannot be read."""
    workload, stages = config.workload, stages_of(config)
    sources = load_sources(workload, stages, spoken_language(config))

    def plan(index: int, seconds: float) -> SessionWindow:
        return plan_sessions(workload, stages, sources, seed=config.search.seed, index=index, seconds=seconds)

    said = (turn.clip for session in plan(0, workload.window_s).sessions for turn in session.turns if turn.clip is not None)
    clips = {clip.name: clip for clip in itertools.islice(said, _MOST_CLIPS)}
    return plan, Inputs(list(clips.values()), load_texts(workload.texts))


class SessionLoad:
    """Drives sessions on the services of one evaluation.

    Prefixes are cold when the evaluation begins, so that a candidate on an engine that is reused finds no more than one on a new engine.

    Args:
        workload: the settings of the traffic.
        plan: of a window.
    """

    def __init__(self, workload: WorkloadSettings, plan: Planner) -> None:
        self._workload, self._plan = workload, plan
        self._habits = Habits.of(workload)
        self._salt, self._driven = uuid.uuid4().hex, set[tuple[int, str | None]]()
        self.fillings: list[Filling] = []

    def fill(self, traffic: Traffic, index: int, only: str | None, seconds: float | None, abort: Abort) -> SessionWindow:
        """Fill the caches for a window, and return its plan. It is not scored.

        A window that is driven again has the same prompts: its caches begin cold again, or it would find its own answers.
        """
        if (index, only) in self._driven:
            self._salt = uuid.uuid4().hex
        self._driven.add((index, only))
        plan = self._plan(index, seconds or self._workload.window_s)
        if any(stage.generates for stage in traffic.chain(only)):
            self._fill(plan, traffic, abort)
        return plan

    def drive(self, plan: SessionWindow, traffic: Traffic, only: str | None, seconds: float | None, abort: Abort) -> WindowResult:
        """Drive a window that was filled."""
        seconds = seconds or self._workload.window_s
        return run_sessions(plan, self._salted(traffic), self._workload, self._habits, seconds=seconds, only=only, abort=abort)

    def ideals(self, plan: SessionWindow, result: WindowResult, traffic: Traffic, block_sizes: Mapping[str, int]) -> dict[str, Ideal]:
        """Return what a prefix cache could have done in a window that was driven, for each LLM of a turn whose block size is known."""
        found: dict[str, Ideal] = {}
        for stage in traffic.stages:
            if stage.generates and (block_size := block_sizes.get(stage.service)):
                ideal = ideal_of(prompts_of(plan, result, stage.label, own_history=self._habits.own_history), block_size)
                found |= {stage.service: ideal} if ideal else {}
        return found

    def hold(self, traffic: Traffic, first: int, sessions: int, attempt: int, abort: Abort) -> tuple[list[Turn], str | None]:
        """Hold so many sessions for one step of a ramp, all from its beginning on. Return their turns, and why it was aborted or None.

        Args:
            traffic: the services.
            first: number of the evaluation's first window, which decides the traffic of the ramp.
            sessions: how many.
            attempt: number of the attempt at this step.
            abort: returns a reason to end at once.
        """
        step_s = self._workload.capacity_step_s
        number = _RAMP * (1 + first) + 1000 * (2 * sessions + attempt)
        plans = [self._plan(number, step_s)]
        while sum(len(plan.sessions) for plan in plans) < sessions:
            plans.append(self._plan(number + len(plans), step_s))
        chosen = list(itertools.chain.from_iterable(plan.sessions for plan in plans))[:sessions]
        # All begin within the first half, so that each takes a turn.
        callers = [replace(session, starts_s=0.5 * step_s * at / sessions) for at, session in enumerate(chosen)]
        names = {None, *(session.name for session in callers)}
        plan = SessionWindow(callers, [request for plan in plans for request in plan.auxiliary if request.session in names and (plan is plans[0] or request.session)])
        self._fill(plan, traffic, abort)
        result = run_sessions(plan, self._salted(traffic), self._workload, self._habits, seconds=step_s, abort=abort)
        return result.turns, result.aborted

    def _fill(self, plan: SessionWindow, traffic: Traffic, abort: Abort) -> None:
        self.fillings.append(fill(plan, self._salted(traffic), self._workload, abort=abort))

    def _salted(self, traffic: Traffic) -> Traffic:
        return replace(traffic, cache_salt=self._salt)
