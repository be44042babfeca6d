"""The client of OpenAI's `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.workload.clients.call import Call
from tune_gpu.workload.clients.generation import GenerationSample, Length, generate
from tune_gpu.workload.sessions.values import Message

_PATH = "/v1/chat/completions"
_REASONING = ("reasoning", "reasoning_content")
"""Names under which servers stream what a model thinks before it answers."""


@dataclass(frozen=True)
class Chat:
    """A conversation that an LLM continues."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    """Definitions of tools."""
    answer_tokens: int | None = None
    """The length of the answer; None lets the model end it, at the latest where `Call.max_tokens` are reached."""

    def as_dict(self) -> dict[str, object]:
        """Return it as a request has it.

        The model may not choose a tool: servers refuse that unless they were started with a parser for it, and whether a turn calls a tool is
        the plan's to decide. The definitions are in the prompt all the same.
        """
        found: dict[str, object] = {"messages": [message.as_dict() for message in self.messages]}
        return found | ({"tools": [dict(tool) for tool in self.tools], "tool_choice": "none"} if self.tools else {})


async def chat(call: Call, asked: str | Chat) -> GenerationSample:
    """Stream the answer to one message of a user, or to a whole conversation. The server applies the model's own chat template."""
    if isinstance(asked, str):
        return await generate(call, _PATH, {"messages": [{"role": "user", "content": asked}]}, _token_text)
    natural = asked.answer_tokens is None
    length = Length(asked.answer_tokens or call.max_tokens, natural=natural, refused=not natural)
    return await generate(call, _PATH, asked.as_dict(), _token_text, length)


def _token_text(choice: Mapping[str, Any]) -> str | None:
    """Return the text of a chunk, or None if it has no token: a first chunk may name only the role, and a last one only why it ends.

    A token may be part of a character, so text that is empty counts, unless the role stands beside it. The text is what a next stage would
    get: without the reasoning, and without the call of a tool.
    """
    delta = choice["delta"]
    if delta.get("tool_calls"):
        return ""
    parts = [part for name in ("content", *_REASONING) if isinstance(part := delta.get(name), str)]
    if not any(parts) and (not parts or delta.get("role")):
        return None
    content = delta.get("content")
    return content if isinstance(content, str) else ""
