"""Fill the prefix caches with what the sessions of a window have said before it begins, so that it finds them as callers leave them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.clients.chat import Chat
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.sessions.values import Message, PlannedSession, SessionWindow
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.window import Abort, client_session, never, until_done_or_aborted

_LEAST_SHARED = 64
"""Characters. A shorter start of a system prompt that others share is not filled alone."""


@dataclass(frozen=True)
class Filling:
    """The filling of one window. It is not scored."""

    requests: int
    failed: int
    prompt_tokens: int | None
    """None where a server does not count them."""
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as the artifacts have it."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def filling_of(plan: SessionWindow) -> list[Chat]:
    """Return the requests that fill a window, in order, each with an answer of one token.

    What several sessions share comes first, so that each of them finds it. Then every session with a past sends its prompt without the words of
    its first turn; the one that is due first has waited longest since its last turn, so it is filled first.
    """
    asked: list[Chat] = []
    seen: set[tuple[Message, ...]] = set()
    for group in _groups(plan.sessions):
        shared = shared_start([session.system for session in group])
        if shared and shared not in seen:
            seen.add(shared)
            asked.append(Chat(shared, group[0].tools, 1))
    by_time = sorted((session for session in plan.sessions if session.past and session.turns), key=lambda session: session.starts_s)
    return asked + [Chat((*session.system, *session.past), session.tools, 1) for session in by_time]


def _groups(sessions: Sequence[PlannedSession]) -> Iterator[list[PlannedSession]]:
    """Yield those with the same tools, then those of the same profile among them; sessions alone share nothing."""
    names: dict[tuple[str, ...], list[PlannedSession]] = {}
    for session in sessions:
        tools = repr(session.tools)
        names.setdefault((tools,), []).append(session)
        names.setdefault((tools, session.profile), []).append(session)
    yield from (group for _, group in sorted(names.items(), key=lambda item: len(item[0])) if len(group) > 1)


def shared_start(prompts: Sequence[tuple[Message, ...]]) -> tuple[Message, ...]:
    """Return the messages with which all of these prompts begin. The last may be the start of a message, cut between two words."""
    shared: list[Message] = []
    for messages in zip(*prompts, strict=False):
        first = messages[0]
        if all(message == first for message in messages):
            shared.append(first)
            continue
        start = _common([message.content for message in messages]).rpartition(" ")[0]
        if len(start) >= _LEAST_SHARED and all(replace(message, content="") == replace(first, content="") for message in messages):
            shared.append(replace(first, content=start))
        break
    return tuple(shared)


def _common(texts: Sequence[str]) -> str:
    """Return the characters with which all texts begin: the first and the last by the alphabet differ earliest."""
    low, high = min(texts), max(texts)
    return low[: next((at for at, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), min(len(low), len(high)))]


def fill(plan: SessionWindow, traffic: Traffic, workload: WorkloadSettings, *, abort: Abort = never) -> Filling:
    """Fill the prefix caches of the LLMs of a turn, one request after another, and return what that took. A request that fails is counted."""
    started = time.monotonic()
    samples = asyncio.run(_fill(filling_of(plan), traffic, workload, abort))
    counted = [sample.prompt_tokens for sample in samples if sample.error is None]
    known = [tokens for tokens in counted if tokens is not None]
    return Filling(
        len(samples), sum(sample.error is not None for sample in samples), sum(known) if len(known) == len(counted) else None, time.monotonic() - started
    )


async def _fill(asked: Sequence[Chat], traffic: Traffic, workload: WorkloadSettings, abort: Abort) -> list[GenerationSample]:
    samples: list[GenerationSample] = []

    async def work() -> None:
        async with client_session() as client:
            for chat in asked:
                for stage in traffic.stages:
                    if stage.generates:
                        sample = await traffic.ask(client, stage, chat, workload, due=time.monotonic())
                        assert isinstance(sample, GenerationSample)
                        samples.append(sample)

    await until_done_or_aborted(work(), abort)
    return samples
