"""Carry out the plan of a window of sessions: one task per session, whose caller waits, listens, thinks and goes on.

Sessions begin when they are due, whatever became of the others (an open loop); inside a session a turn is due after the answer before it was
heard. Turns that are due by the window's end are taken. Each then has the time-out of its requests to end; what is cut is censored.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import aiohttp

from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.clients.chat import Chat
from tune_gpu.workload.clients.hangup import Hangup
from tune_gpu.workload.sessions.exchange import Exchange, Line, ask_ahead, passed_labels, sleep_until
from tune_gpu.workload.sessions.habits import Habits, speaking_s
from tune_gpu.workload.sessions.history import History
from tune_gpu.workload.sessions.values import AuxiliaryRequest, PlannedSession, PlannedTurn, SessionWindow
from tune_gpu.workload.stages import Stage
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import FurtherRequest, Place, Turn
from tune_gpu.workload.window import MIXED, Abort, BackgroundSample, WindowResult, client_session, never, until_done_or_aborted


def run_sessions(
    plan: SessionWindow,
    traffic: Traffic,
    workload: WorkloadSettings,
    habits: Habits,
    *,
    seconds: float,
    only: str | None = None,
    abort: Abort = never,
) -> WindowResult:
    """Carry out a window, and wait for the last answer of turns that were due in it.

    Args:
        plan: of the window.
        traffic: the services; their prefix caches are as they are.
        workload: lengths and time-outs.
        habits: of the callers.
        seconds: how long turns may become due.
        only: a service that is driven alone.
        abort: returns a reason to end the window at once.
    """
    result = WindowResult(MIXED if only is None else traffic.stage(only).label, offered_s=seconds)
    result.planned = sum(len(session.turns) for session in plan.sessions)
    asyncio.run(_drive(plan, traffic, workload, habits, result, only, abort))
    return result


async def _drive(
    plan: SessionWindow, traffic: Traffic, workload: WorkloadSettings, habits: Habits, result: WindowResult, only: str | None, abort: Abort
) -> None:
    async with client_session() as client:
        result.started = time.monotonic()
        callers = Callers(client, traffic, workload, habits, result, traffic.chain(only), result.started + result.offered_s)
        result.aborted = await until_done_or_aborted(callers.take(plan, result.started), abort)
        result.seconds = max(result.offered_s, time.monotonic() - result.started)


@dataclass
class Callers:
    """The callers of one window."""

    client: aiohttp.ClientSession
    traffic: Traffic
    workload: WorkloadSettings
    habits: Habits
    result: WindowResult
    """Receives the turns as they end."""
    chain: tuple[Stage, ...]
    ends: float
    """When no more turns become due (monotonic clock, seconds)."""
    _under_way: dict[str, Turn] = field(default_factory=dict)
    """By their session and number."""

    async def take(self, plan: SessionWindow, starts: float) -> None:
        """Take all sessions of a plan. Turns that are under way a time-out after the end are censored."""
        after: dict[tuple[str | None, int | None], list[AuxiliaryRequest]] = {}
        for request in plan.auxiliary:
            after.setdefault((request.session, request.after_turn), []).append(request)
        whole = {stage.service for stage in self.chain} >= {stage.service for stage in self.traffic.stages}
        try:
            async with asyncio.timeout_at(self.ends + self.workload.request_timeout_s), asyncio.TaskGroup() as group:
                for session in plan.sessions:
                    group.create_task(self._session(session, starts + session.starts_s, after if whole else {}, group))
                for request in plan.auxiliary if whole else ():
                    if request.at_s is not None:
                        group.create_task(self._ask_beside(request, Chat(request.messages, answer_tokens=request.answer_tokens), starts + request.at_s))
        except TimeoutError:
            pass
        for turn in self._under_way.values():
            turn.censored = True
        self.result.censored += self._under_way.values()

    async def _session(
        self, session: PlannedSession, due: float, after: dict[tuple[str | None, int | None], list[AuxiliaryRequest]], group: asyncio.TaskGroup
    ) -> None:
        line = Line(self.client, self.traffic, self.workload, self.habits, self.chain, session, History(session, own=self.habits.own_history))
        for number, planned in enumerate(session.turns):
            if due >= self.ends:
                return
            ahead = await self._wait(line, planned, due, group)
            until, interrupted = await self._turn(line, planned, due, ahead)
            for request in after.get((session.name, planned.number), ()):
                asked = Chat(line.history.beside(request.messages), session.tools, request.answer_tokens)
                group.create_task(self._ask_beside(request, asked, time.monotonic()))
            if number + 1 < len(session.turns):
                due = self._next_due(session.turns[number + 1], until, interrupted)

    def _next_due(self, planned: PlannedTurn, heard_until: float, interrupted: bool) -> float:
        """Return when the next turn is due. A caller who interrupts speaks at once."""
        if planned.clip is None:
            return heard_until + planned.think_s + self.habits.endpoint_s
        return heard_until + (0.0 if interrupted else planned.think_s) + planned.clip.duration_s + self.habits.endpoint_s

    async def _wait(self, line: Line, planned: PlannedTurn, due: float, group: asyncio.TaskGroup) -> asyncio.Task[FurtherRequest | None] | None:
        """Wait until the turn is due. A pre-emptive request is sent when its words have been said, and cancelled when all have been."""
        spoken_by = due - self.habits.endpoint_s
        ahead: asyncio.Task[FurtherRequest | None] | None = None
        if planned.preemptive is not None:
            length_s = speaking_s(planned.says) if planned.clip is None else planned.clip.duration_s
            hangup, asked = Hangup(), spoken_by - (1.0 - planned.preemptive) * length_s
            await sleep_until(asked)
            ahead = group.create_task(ask_ahead(line, planned, max(asked, time.monotonic()), hangup))
            await sleep_until(spoken_by)
            hangup.now()
        await sleep_until(due)
        self.result.lag_ms.append((time.monotonic() - due) * 1e3)
        return ahead

    async def _turn(
        self, line: Line, planned: PlannedTurn, due: float, ahead: asyncio.Task[FurtherRequest | None] | None
    ) -> tuple[float, bool]:
        """Take one turn, and return when it was heard, and whether the caller interrupted it."""
        session = line.planned
        name = f"{session.name}/{planned.number}"
        turn = Turn(due, name if planned.clip is None else planned.clip.name, planned.says, language=session.language, stages=passed_labels(self.traffic.stages, planned))
        turn.place = Place(session.name, planned.number, session.profile, line.history.returning)
        if len(self._under_way) >= self.workload.max_inflight_turns:
            turn.shed = True
            line.history.add(planned, planned.says, None)
            self.result.turns.append(turn)
            return due, False
        self._under_way[name] = turn
        until = await Exchange(line, planned, turn).take()
        if ahead is not None and (request := await ahead) is not None:
            turn.further.append(request)
        del self._under_way[name]
        self.result.turns.append(turn)
        return until, turn.interrupted

    async def _ask_beside(self, request: AuxiliaryRequest, asked: Chat, due: float) -> None:
        await sleep_until(due)
        if due >= self.ends:
            return
        self.result.lag_ms.append((time.monotonic() - due) * 1e3)
        stage = self.traffic.stage(request.service)
        sample = await self.traffic.ask(self.client, stage, asked, self.workload, due=due)
        self.result.background.append(BackgroundSample(stage, sample, request.name))
