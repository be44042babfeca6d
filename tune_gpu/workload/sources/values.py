"""Conversations as values, and the protocol of what has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.sessions.values import Message


@dataclass(frozen=True)
class Exchange:
    """The user's words and what was answered."""

    says: str
    answer: str | None = None
    """None if the source has no answers."""
    clip: Utterance | None = None
    """The same words as speech."""
    tools: tuple[tuple[Message, Message], ...] = ()
    """Calls of tools before the answer, each with its result."""
    answer_tokens: int | None = None
    """Length of the answer, if the source gives it."""


@dataclass(frozen=True)
class Conversation:
    """A conversation, or a single request."""

    name: str
    """In its source: `line 12` for example."""
    exchanges: tuple[Exchange, ...]
    system: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    """Definitions of tools, in the form of OpenAI's API."""


class Source(Protocol):
    """Something that has conversations."""

    @property
    def synthetic(self) -> bool:
        """Return whether they were made up for this program: no user has said them."""

    def conversations(self) -> Sequence[Conversation]:
        """Return all conversations, in a fixed order. Raise UserError, with the number of the line, for input that is not valid."""

    def notes(self) -> Sequence[str]:
        """Return what of the source is not used, in words, after the conversations have been read."""
