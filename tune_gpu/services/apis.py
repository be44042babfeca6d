"""The APIs that a server of the user's own may speak, as a space names them."""

from __future__ import annotations

from tune_gpu.common.metric import Protocol

NONE = "none"
"""No request of ours can drive the service."""
VOICE = "voice"
"""The setting of a service whose value a request for speech carries."""
APIS: dict[str, Protocol | None] = {
    "openai-chat": Protocol.CHAT,
    "openai-completions": Protocol.COMPLETION,
    "openai-transcriptions": Protocol.TRANSCRIPTION,
    "openai-speech": Protocol.SPEECH,
    "openai-embeddings": Protocol.EMBEDDING,
    NONE: None,
}
"""Name of an API -> protocol of its requests."""
