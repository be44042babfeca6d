"""The client of OpenAI's `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_gpu.workload.clients.call import Call
from tune_gpu.workload.clients.generation import GenerationSample, generate

_REASONING = ("reasoning", "reasoning_content")
"""Names under which servers stream what a model thinks before it answers."""


async def chat(call: Call, message: str) -> GenerationSample:
    """Stream the answer to one message of a user. The server applies the model's own chat template."""
    return await generate(call, "/v1/chat/completions", {"messages": [{"role": "user", "content": message}]}, _token_text)


def _token_text(choice: Mapping[str, Any]) -> str | None:
    """Return the text of a chunk, or None if it has no token: a first chunk may name only the role, and a last one only why it ends.

    A token may be part of a character, so text that is empty counts, unless the role stands beside it. The text is what a next stage would
    get: without the reasoning.
    """
    delta = choice["delta"]
    parts = [part for name in ("content", *_REASONING) if isinstance(part := delta.get(name), str)]
    if not any(parts) and (not parts or delta.get("role")):
        return None
    content = delta.get("content")
    return content if isinstance(content, str) else ""
