"""One window of load: turns and background requests in an open loop, on all services at once.

An open loop sends each request when it is due, whether or not earlier ones have been answered, and every latency counts from the due time.
So a system that falls behind cannot hide its queue (coordinated omission). The generator watches its own delay: if it sends too late, the
window is invalid.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.clients.call import Sample
from tune_gpu.workload.inputs import Inputs, Item
from tune_gpu.workload.plan import Ask, WindowPlan, plan_window
from tune_gpu.workload.stages import Stage
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn, take_turn

Abort = Callable[[], str | None]
"""Called every tenth of a second during a window. Returns a reason to end it at once (a service has died, for example), or None."""

MAX_LAG_P99_MS = 50.0
MIXED = "mixed"
"""The mode of a window in which all services are driven."""
_ABORT_EVERY_S = 0.1


def never() -> str | None:
    """Return None: never abort."""
    return None


@dataclass(frozen=True)
class BackgroundSample:
    """A background request and its answer."""

    stage: Stage
    sample: Sample
    name: str = ""
    """Of its kind, `titles` for example; empty for a request of another user."""

    @property
    def error(self) -> str | None:
        """Return how it failed, or None."""
        return self.sample.error


@dataclass
class WindowResult:
    """Raw results of one window."""

    mode: str
    """`mixed`, or the label of the one service that was driven alone."""
    seconds: float = 0.0
    """Time from its start to its last answer."""
    turns: list[Turn] = field(default_factory=list)
    background: list[BackgroundSample] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    """Delay between each request's due time and its sending."""
    aborted: str | None = None
    started: float = 0.0
    """Monotonic clock."""
    offered_s: float = 0.0
    """Time from its start to the end of its arrivals; 0 if unknown."""
    censored: list[Turn] = field(default_factory=list)
    """Turns that its end cut. They are not among `turns`."""
    planned: int | None = None
    """Turns that the plan of its sessions has; None without sessions. Those that were never due are in no list."""

    @property
    def invalid(self) -> str | None:
        """Return why its numbers must not be used, or None if they may."""
        if self.lag_ms and (lag := float(np.percentile(self.lag_ms, 99))) > MAX_LAG_P99_MS:
            return f"the load generator sent {lag:.0f} ms late at p99 (allowed {MAX_LAG_P99_MS:.0f} ms)"
        return None


def run_window(
    traffic: Traffic,
    workload: WorkloadSettings,
    inputs: Inputs,
    *,
    seed: int,
    window_index: int,
    only: str | None = None,
    seconds: float | None = None,
    abort: Abort = never,
) -> WindowResult:
    """Drive one window and wait for its last answer (at most the request time-out of each stage after its end).

    The same seed and window index send the same traffic to every candidate.

    Args:
        traffic: the services.
        workload: rates, lengths and time-outs.
        inputs: of turns and background requests.
        seed: of the run.
        window_index: number of the window.
        only: a service that is driven alone.
        seconds: how long requests arrive; None for `workload.window_s`.
        abort: returns a reason to end the window at once.
    """
    seconds = seconds or workload.window_s
    plan = plan_window(traffic, workload, inputs, seed=seed, index=window_index, seconds=seconds, only=only)
    result = WindowResult(MIXED if only is None else traffic.stage(only).label, offered_s=seconds)
    asyncio.run(_drive(plan, traffic.with_cold_cache(), workload, only, result, abort))
    return result


async def _drive(plan: WindowPlan, traffic: Traffic, workload: WorkloadSettings, only: str | None, result: WindowResult, abort: Abort) -> None:
    """Send what is planned, and write the answers into the result."""
    in_flight = 0
    labels = tuple(stage.label for stage in traffic.stages)
    async with client_session() as session:

        async def turn(due: float, item: Item) -> None:
            nonlocal in_flight
            if in_flight >= workload.max_inflight_turns:
                result.turns.append(Turn(due, item.name, item.reference, shed=True, language=item.language, stages=labels))
                return
            in_flight += 1
            try:
                result.turns.append(await take_turn(session, traffic, workload, item, due=due, only=only))
            finally:
                in_flight -= 1

        async def ask(due: float, planned: Ask) -> None:
            result.background.append(BackgroundSample(planned.stage, await traffic.ask(session, planned.stage, planned.content, workload, due=due)))

        calls: list[_Planned] = [(at_s, lambda due, item=item: turn(due, item)) for at_s, item in plan.turns]  # type: ignore[misc]
        calls += [(planned.at_s, lambda due, planned=planned: ask(due, planned)) for planned in plan.asks]  # type: ignore[misc]
        calls.sort(key=lambda call: call[0])
        start = result.started = time.monotonic()
        result.aborted = await until_done_or_aborted(_open_loop(calls, start, result), abort)
        result.seconds = max(result.offered_s, time.monotonic() - start)


_Planned = tuple[float, Callable[[float], Coroutine[Any, Any, None]]]
"""When something is due after the start, in seconds, and what starts it, given the due time on the monotonic clock."""


async def _open_loop(calls: Sequence[_Planned], start: float, result: WindowResult) -> None:
    async with asyncio.TaskGroup() as group:
        for offset, call in calls:
            due = start + offset
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            result.lag_ms.append((time.monotonic() - due) * 1e3)
            group.create_task(call(due))


async def until_done_or_aborted(work: Coroutine[Any, Any, None], abort: Abort) -> str | None:
    """Run the work to its end and return None, or cancel it as soon as `abort` returns a reason, and return the reason."""
    task = asyncio.create_task(work)
    while not task.done():
        if reason := abort():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return reason
        await asyncio.wait([task], timeout=_ABORT_EVERY_S)
    task.result()
    return None


def client_session() -> aiohttp.ClientSession:
    """Return a session without limits of its own, so that requests wait in the service under test."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**20)


def warm_up(
    traffic: Traffic,
    workload: WorkloadSettings,
    inputs: Inputs,
    *,
    only: str,
    turns: int | None = None,
    workers: int = 1,
    abort: Abort = never,
) -> list[Turn]:
    """Send inputs to one service, one after another, the longest first, because memory that grows depends on it. They are not measured.

    The first is sent once for each worker of the service at the same time, because each has memory of its own. It is returned once.

    Args:
        traffic: the services.
        workload: lengths and time-outs.
        inputs: of turns.
        only: the service.
        turns: how many; None for `workload.warmup_turns`.
        workers: of the service.
        abort: returns a reason to end at once.
    """
    return asyncio.run(_warm_up(traffic.with_cold_cache(), workload, inputs, only, workload.warmup_turns if turns is None else turns, workers, abort))


async def _warm_up(
    traffic: Traffic, workload: WorkloadSettings, inputs: Inputs, only: str, turns: int, workers: int, abort: Abort
) -> list[Turn]:
    longest_first = sorted(inputs.of(traffic.stages, traffic.stage(only)), key=lambda item: -item.length)
    taken: list[Turn] = []

    async def work() -> None:
        async with client_session() as session:

            async def take(number: int) -> Turn:
                return await take_turn(session, traffic, workload, longest_first[number % len(longest_first)], due=time.monotonic(), only=only)

            for number in range(turns):
                taken.append((await asyncio.gather(*(take(number) for _ in range(1 if number else workers))))[0])

    await until_done_or_aborted(work(), abort)
    return taken
