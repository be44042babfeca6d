"""One window of load: voice turns and background requests in an open loop, on both services at once.

An open loop sends each request when it is due, whether or not earlier ones have been answered, and every latency counts from the due time.
So a system that falls behind cannot hide its queue (coordinated omission). The generator watches its own delay: if it sends too late, the
window is invalid.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.arrivals import poisson_arrivals
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.clients import Endpoints, LlmSample, complete
from tune_gpu.workload.voice_turn import TurnSample, take_turn

Abort = Callable[[], str | None]
"""Called every tenth of a second during a window. Returns a reason to end it at once (a service has died, for example), or None."""

MAX_LAG_P99_MS = 50.0
_ABORT_EVERY_S = 0.1
_SPOKEN = 2_000_000  # names the random stream of the clips' order


def never() -> str | None:
    """Return None: never abort."""
    return None


@dataclass
class WindowResult:
    """Raw results of one window."""

    mode: str
    """`mixed`, or `stt` or `llm` for one service alone."""
    seconds: float = 0.0
    """Time from its start to its last answer."""
    turns: list[TurnSample] = field(default_factory=list)
    background: list[LlmSample] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    """Delay between each request's due time and its sending."""
    aborted: str | None = None
    started: float = 0.0
    """Monotonic clock."""
    offered_s: float = 0.0
    """Time from its start to the end of its arrivals; 0 if unknown."""

    @property
    def invalid(self) -> str | None:
        """Return why its numbers must not be used, or None if they may."""
        if self.lag_ms and (lag := float(np.percentile(self.lag_ms, 99))) > MAX_LAG_P99_MS:
            return f"the load generator sent {lag:.0f} ms late at p99 (allowed {MAX_LAG_P99_MS:.0f} ms)"
        return None


def spoken_order(utterances: Sequence[Utterance], rng: np.random.Generator) -> Iterator[Utterance]:
    """Yield every clip once in a random order, again and again. Callers differ in the order, not in the clips."""
    while True:
        for index in rng.permutation(len(utterances)):
            yield utterances[index]


def background_prompt(n_tokens: int, rng: np.random.Generator) -> str:
    """Return random words of about this many tokens, which no prefix cache can hold."""
    letters = rng.integers(97, 123, size=max(1, n_tokens))
    return " ".join("".join(map(chr, letters[i : i + 4])) for i in range(0, len(letters), 5))


def run_window(
    endpoints: Endpoints,
    workload: WorkloadSettings,
    utterances: Sequence[Utterance],
    *,
    seed: int,
    window_index: int,
    seconds: float | None = None,
    mode: str = "mixed",
    abort: Abort = never,
) -> WindowResult:
    """Drive one window and wait for its last answer (at most the request time-out after its end).

    The same seed and window index send the same traffic to every candidate.
    """
    return asyncio.run(_window(endpoints.with_cold_cache(), workload, utterances, seed, window_index, seconds or workload.window_s, mode, abort))


async def _window(
    endpoints: Endpoints,
    workload: WorkloadSettings,
    utterances: Sequence[Utterance],
    seed: int,
    index: int,
    seconds: float,
    mode: str,
    abort: Abort,
) -> WindowResult:
    rng = np.random.default_rng([seed, index])
    # One order for all windows: each starts about where the previous one ended, so that together they cover as many clips as possible.
    so_far = round(index * seconds * workload.turn_rate_per_s) % len(utterances)
    spoken = itertools.islice(spoken_order(utterances, np.random.default_rng([seed, _SPOKEN])), so_far, None)
    result = WindowResult(mode)
    turns = poisson_arrivals(workload.turn_rate_per_s, seconds, rng)
    while not turns:  # a window without a turn measures nothing: the process is conditioned on at least one
        turns = poisson_arrivals(workload.turn_rate_per_s, seconds, rng)
    asks = poisson_arrivals(workload.background_rate_per_s, seconds, rng) if mode != "stt" else []
    prompts = [background_prompt(workload.background_prompt_tokens, rng) for _ in asks]
    in_flight = 0
    async with client_session() as session:

        async def turn(due: float, utterance: Utterance) -> None:
            nonlocal in_flight
            if in_flight >= workload.max_inflight_turns:
                result.turns.append(TurnSample(due, utterance.name, utterance.reference, shed=True, language=utterance.language))
                return
            in_flight += 1
            try:
                result.turns.append(
                    await take_turn(
                        session,
                        endpoints,
                        utterance,
                        due=due,
                        max_tokens=workload.max_tokens,
                        timeout_s=workload.request_timeout_s,
                        mode=mode,
                    )
                )
            finally:
                in_flight -= 1

        async def ask(due: float, prompt: str) -> None:
            result.background.append(
                await complete(session, endpoints, prompt, max_tokens=workload.max_tokens, due=due, timeout_s=workload.request_timeout_s)
            )

        start = result.started = time.monotonic()
        result.offered_s = seconds
        calls: list[tuple[float, Callable[[float], Coroutine[Any, Any, None]]]] = []
        for offset in turns:
            utterance = next(spoken)
            calls.append((offset, lambda due, u=utterance: turn(due, u)))  # type: ignore[misc]
        for offset, prompt in zip(asks, prompts, strict=True):
            calls.append((offset, lambda due, p=prompt: ask(due, p)))  # type: ignore[misc]
        calls.sort(key=lambda call: call[0])
        result.aborted = await until_done_or_aborted(_open_loop(calls, start, result), abort)
        result.seconds = max(seconds, time.monotonic() - start)
    return result


async def _open_loop(
    calls: Sequence[tuple[float, Callable[[float], Coroutine[Any, Any, None]]]], start: float, result: WindowResult
) -> None:
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
    endpoints: Endpoints,
    workload: WorkloadSettings,
    utterances: Sequence[Utterance],
    *,
    turns: int | None = None,
    mode: str = "mixed",
    workers: int = 1,
    abort: Abort = never,
) -> list[TurnSample]:
    """Take turns one after another, the longest utterance first, because Whisper's peak memory depends on its input. They are not measured.

    The first turn is taken once for each of Whisper's workers at the same time, because each has memory of its own. It is returned once.
    """
    return asyncio.run(_warm_up(endpoints.with_cold_cache(), workload, utterances, workload.warmup_turns if turns is None else turns, mode, workers, abort))


async def _warm_up(
    endpoints: Endpoints, workload: WorkloadSettings, utterances: Sequence[Utterance], turns: int, mode: str, workers: int, abort: Abort
) -> list[TurnSample]:
    longest_first = sorted(utterances, key=lambda utterance: -utterance.duration_s)
    taken: list[TurnSample] = []

    async def work() -> None:
        async with client_session() as session:

            async def take(number: int) -> TurnSample:
                return await take_turn(
                    session,
                    endpoints,
                    longest_first[number % len(longest_first)],
                    due=time.monotonic(),
                    max_tokens=workload.max_tokens,
                    timeout_s=workload.request_timeout_s,
                    mode=mode,
                )

            for number in range(turns):
                taken.append((await asyncio.gather(*(take(number) for _ in range(1 if number else workers))))[0])

    await until_done_or_aborted(work(), abort)
    return taken
