"""The plan of sessions as values: what each caller says and when, how long each answer is, and what is cancelled. Nothing here was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tune_gpu.workload.audio import Utterance


class Role(StrEnum):
    """Who a message is from."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True)
class Message:
    """A message of a chat, in the form of OpenAI's API."""

    role: Role
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """The calls that an assistant's message makes."""
    tool_call_id: str | None = None
    """The call that a tool's message answers."""

    def as_dict(self) -> dict[str, Any]:
        """Return the message as a request has it."""
        found: dict[str, Any] = {"role": str(self.role), "content": self.content}
        if self.tool_calls:
            found["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            found["tool_call_id"] = self.tool_call_id
        return found


@dataclass(frozen=True)
class ToolStep:
    """A call of a tool within a turn. The LLM is asked again with the result."""

    call: Message
    """The assistant's message with the call. It goes into the history, whatever the server answered."""
    result: Message
    latency_s: float
    """How long the tool takes."""


@dataclass(frozen=True)
class Retrieval:
    """A search for context before the LLM is asked: an embedding request, and then a longer prompt."""

    query: str
    context: str
    """What the search finds. It stands in front of the user's words, and does not stay in the history."""


@dataclass(frozen=True)
class PlannedTurn:
    """One turn of a session."""

    number: int
    """In its session, from 0. Turns of the past count."""
    says: str
    """The user's words: the reference of its clip."""
    clip: Utterance | None
    """The same as speech; None in a session of texts."""
    recorded: str
    """The answer that the history holds in the search, whatever the server said."""
    answer_tokens: int | None
    """The length of the answer; None lets the model end it."""
    think_s: float
    """Pause before the turn, after the answer before it was heard."""
    tools: tuple[ToolStep, ...] = ()
    retrieval: Retrieval | None = None
    barge_in_s: float | None = None
    """The caller interrupts so many seconds after the answer began to be heard; None if the answer is heard to its end."""
    preemptive: float | None = None
    """The LLM is first asked with this share of the words, and that request is cancelled when the caller goes on; None if it is asked once."""
    system: tuple[Message, ...] | None = None
    """The messages before the history in this turn's requests; None for the session's. A prompt with a clock differs in every turn."""


@dataclass(frozen=True)
class PlannedSession:
    """One session of a window."""

    name: str
    """The same for all candidates, `w0-s3` for example."""
    profile: str
    starts_s: float
    """When its first turn is due, in seconds after the window's start."""
    system: tuple[Message, ...]
    """The messages before the history."""
    tools: tuple[Mapping[str, Any], ...]
    """Definitions of tools that every request carries."""
    past: tuple[Message, ...]
    """The history before its first turn; empty for a session that begins in the window."""
    turns: tuple[PlannedTurn, ...]
    language: str = "en"


@dataclass(frozen=True)
class AuxiliaryRequest:
    """A request to an LLM beside the turns."""

    name: str
    """Of its kind, `titles` for example."""
    service: str
    messages: tuple[Message, ...]
    answer_tokens: int
    at_s: float | None = None
    """After the window's start; None for a request that follows a turn."""
    session: str | None = None
    """The session whose history it carries in front of its messages; None for a request of its own."""
    after_turn: int | None = None
    """The turn of that session after which it is sent."""


@dataclass(frozen=True)
class SessionWindow:
    """The plan of a window."""

    sessions: Sequence[PlannedSession]
    auxiliary: Sequence[AuxiliaryRequest] = ()
