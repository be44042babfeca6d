"""System prompts: a text, or so many synthetic tokens that some callers share; the caller's own part; a clock."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from tune_gpu.workload.sessions.callers import Callers
from tune_gpu.workload.sessions.draws import Purpose, uniform
from tune_gpu.workload.sessions.prompts import clock, text_of
from tune_gpu.workload.sessions.values import Message, Role
from tune_gpu.workload.sources.values import Conversation


@dataclass(frozen=True)
class SessionPrompt:
    """The system prompt of one session."""

    text: str
    volatile: str
    begins: float
    """In [0, 1), when in a day the session began."""

    def at(self, turn: int) -> tuple[Message, ...] | None:
        """Return the messages of a turn, or None if all turns have the same."""
        return None if self.volatile == "none" else self._with_clock(turn)

    def before(self, turn: int) -> tuple[Message, ...]:
        """Return the messages before a turn is due."""
        if self.volatile != "none":
            return self._with_clock(turn - 1)
        return (Message(Role.SYSTEM, self.text),) if self.text else ()

    def _with_clock(self, turn: int) -> tuple[Message, ...]:
        parts = [self.text] if self.text else []
        parts.insert(0 if self.volatile == "head" else len(parts), clock(self.begins, turn))
        return (Message(Role.SYSTEM, "\n\n".join(parts)),)


class SystemPrompts:
    """The system prompts of some sessions of a profile.

    Args:
        callers: of the profile.
        numbers: of the sessions.
    """

    def __init__(self, callers: Callers, numbers: np.ndarray) -> None:
        self._settings = settings = callers.settings.system_prompt
        self._each = settings.tokens is not None and settings.shared_by == "session"
        self._shared = callers.source.system
        if settings.tokens is not None and not self._each:
            # Not of the window: a prefix stays warm from one window to the next.
            of = 0 if settings.shared_by == "all" else zlib.crc32(callers.profile.encode())
            self._shared = text_of(settings.tokens, float(uniform(callers.seed, 0, of, 0, Purpose.PROMPT)[0]))

        def drawn(needed: bool, purpose: Purpose) -> list[float]:
            return list(callers.draw(numbers, 0, purpose).tolist()) if needed else []

        self._words = drawn(self._each, Purpose.PROMPT)
        self._own = drawn(settings.per_session_tokens > 0, Purpose.OWN_PROMPT)
        self._clock = drawn(settings.volatile != "none", Purpose.CLOCK)

    def of(self, position: int, conversation: Conversation) -> SessionPrompt:
        """Return the system prompt of the session at a position. A conversation's own applies if the profile has none."""
        settings, text = self._settings, self._shared
        if self._each:
            text = text_of(settings.tokens or 1, self._words[position])
        elif text is None:
            text = conversation.system
        if self._own:
            own = text_of(settings.per_session_tokens, self._own[position])
            text = f"{text}\n\n{own}" if text else own
        return SessionPrompt(text or "", settings.volatile, self._clock[position] if self._clock else 0.0)
