"""The requests beside the turns: titles and follow-ups over a session's history, and requests of others."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.distributions import distribution_of
from tune_gpu.config.rules import nearest
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.config.session_settings import AuxiliarySettings
from tune_gpu.workload.sessions.distributions import counts
from tune_gpu.workload.sessions.draws import Purpose, uniform
from tune_gpu.workload.sessions.prompts import text_of
from tune_gpu.workload.sessions.values import AuxiliaryRequest, Message, PlannedSession, Role
from tune_gpu.workload.stages import Stage

_OVER_HISTORY = "Summarise this conversation in one short line."
_OF_ITS_OWN = "Write a short note about the weather of this season."


def plan_auxiliary(
    workload: WorkloadSettings, stages: Sequence[Stage], sessions: Sequence[PlannedSession], *, seed: int, index: int, seconds: float
) -> tuple[AuxiliaryRequest, ...]:
    """Return the requests of a window beside its turns. Raise UserError if it is not known which service gets them."""
    found: list[AuxiliaryRequest] = []
    for name, settings in workload.auxiliary.items():
        service = auxiliary_service(name, settings, stages)
        found += _over_history(name, settings, service, sessions, seed, index)
        found += _of_their_own(name, settings, service, seed, index, seconds)
    return tuple(found)


def auxiliary_service(name: str, settings: AuxiliarySettings, stages: Sequence[Stage]) -> str:
    """Return the LLM that gets these requests. Raise UserError if there is none, or more than one."""
    answering = [stage.service for stage in stages if stage.generates]
    key = f"workload.auxiliary.{name}"
    if settings.service is not None:
        if settings.service not in answering:
            raise UserError(f"{key}.service={settings.service}: not an LLM of a turn{nearest(settings.service, answering)}. Set one of {', '.join(answering) or 'none'}.")
        return settings.service
    if len(answering) != 1:
        raise UserError(f"{key}: a turn has {len(answering)} LLMs, so it is not known which gets these requests. Set {key}.service, or remove it.")
    return answering[0]


def _over_history(
    name: str, settings: AuxiliarySettings, service: str, sessions: Sequence[PlannedSession], seed: int, index: int
) -> Iterator[AuxiliaryRequest]:
    if not settings.per_session and not settings.per_turn:
        return
    messages = (Message(Role.USER, settings.prompt or _OVER_HISTORY),)
    purpose = _purpose(name, Purpose.AUXILIARY)
    for session in sessions:
        turns = session.turns if settings.per_turn else session.turns[:1] if not session.past else ()
        if not turns:
            continue
        numbers = np.array([turn.number for turn in turns])
        chosen = uniform(seed, index, number_of(session), numbers, purpose) < (settings.per_turn or settings.per_session)
        tokens = counts(distribution_of(settings.answer_tokens), uniform(seed, index, number_of(session), numbers, _purpose(name, Purpose.AUXILIARY_TOKENS)))
        for number, length, wanted in zip(numbers.tolist(), tokens.tolist(), chosen.tolist(), strict=True):
            if wanted:
                yield AuxiliaryRequest(name, service, messages, length, session=session.name, after_turn=number)


def _of_their_own(name: str, settings: AuxiliarySettings, service: str, seed: int, index: int, seconds: float) -> Iterator[AuxiliaryRequest]:
    if not settings.per_min or not math.isfinite(seconds):
        return

    def draw(numbers: np.ndarray, turn: int, purpose: Purpose) -> np.ndarray:
        return uniform(seed, index, numbers, turn, _purpose(name, purpose))

    rate_per_s, now, number = settings.per_min / 60.0, 0.0, 0
    while True:
        numbers = np.arange(number, number + 256)
        at_s = now + np.cumsum(-np.log1p(-draw(numbers, 0, Purpose.AUXILIARY_AT)) / rate_per_s)
        tokens = counts(distribution_of(settings.answer_tokens), draw(numbers, 0, Purpose.AUXILIARY_TOKENS)).tolist()
        lengths = None if settings.prompt_tokens is None else counts(distribution_of(settings.prompt_tokens), draw(numbers, 1, Purpose.AUXILIARY_TOKENS)).tolist()
        texts = draw(numbers, 0, Purpose.AUXILIARY_TEXT).tolist()
        for place, at in enumerate(at_s.tolist()):
            if at >= seconds:
                return
            prompt = (settings.prompt or _OF_ITS_OWN) if lengths is None else text_of(lengths[place], texts[place])
            yield AuxiliaryRequest(name, service, (Message(Role.USER, prompt),), tokens[place], at_s=at)
        now, number = float(at_s[-1]), number + len(numbers)


def _purpose(name: str, purpose: Purpose) -> int:
    """Return the purpose of this kind of request alone."""
    return zlib.crc32(name.encode()) << 8 | purpose


def number_of(session: PlannedSession) -> int:
    """Return the number of a session, as its draws are keyed."""
    kind, number = session.name.rpartition("-")[2][0], int(session.name.rpartition("-")[2][1:])
    return -number if kind == "p" else number
