"""The client of OpenAI's `/v1/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_gpu.workload.clients.call import Call
from tune_gpu.workload.clients.generation import GenerationSample, generate


async def complete(call: Call, prompt: str) -> GenerationSample:
    """Stream one completion."""
    return await generate(call, "/v1/completions", {"prompt": prompt}, _token_text)


def _token_text(choice: Mapping[str, Any]) -> str:
    """Return the text of a chunk. Every chunk with a choice counts, even one without text, because a token may be part of a character."""
    text = choice.get("text")
    return text if isinstance(text, str) else ""
