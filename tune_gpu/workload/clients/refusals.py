"""What servers answer when a prompt does not fit the context of the model. Each has its own words for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

CONTEXT_TOO_LONG = "context_too_long"
"""The error of a request whose prompt, with its answer, is longer than the context of the model."""
_STATUSES = (400, 413, 422, 500)
_CODES = ("context_length_exceeded", "exceed_context_size_error")
"""OpenAI's code, and llama.cpp's type."""
_MESSAGES = re.compile(
    r"maximum context length"  # OpenAI, vLLM, Ollama
    r"|longer than the (maximum model length|model's context length)"  # vLLM's engine; SGLang
    r"|exceeds? (the )?(max_model_len|maximum allowed length|(available )?context (size|window))"  # vLLM, SGLang, llama.cpp, llama-cpp-python
    r"|context size has been exceeded"  # llama.cpp, in the middle of an answer
    r"|min_tokens must be less than or equal to max_tokens"  # vLLM has cut the answer to what the context leaves
    r"|`?inputs`? (tokens \+ `?max_new_tokens`? )?must (be <=|have less than)",  # Text Generation Inference
    re.IGNORECASE,
)


def refusal_of(status: int, body: bytes) -> str:
    """Return the error of an answer that is not 200: `context_too_long`, or `http_<status>`."""
    if status in _STATUSES:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = body.decode(errors="replace")
        if is_too_long(answer):
            return CONTEXT_TOO_LONG
    return f"http_{status}"


def is_too_long(answer: Any) -> bool:
    """Return whether this answer, or the `error` in it, says that the context is too short."""
    if isinstance(answer, str):
        return _MESSAGES.search(answer) is not None
    if not isinstance(answer, Mapping):
        return False
    if answer.get("code") in _CODES or answer.get("type") in _CODES:
        return True
    return any(is_too_long(answer.get(key)) for key in ("message", "error", "detail"))
