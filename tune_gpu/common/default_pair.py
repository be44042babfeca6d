"""The default pair: the two services of a space of version 1, whose settings, metrics and artifacts keep the names that they had."""

from __future__ import annotations

from dataclasses import dataclass

from tune_gpu.common.metric import Protocol


@dataclass(frozen=True)
class PairMember:
    """One of the two services."""

    name: str
    """Its name in settings, artifacts and metrics."""
    kind: str
    protocol: Protocol
    label: str
    """Its name in turns, errors and metrics of version 1."""
    title: str
    """The name of its program, as people write it."""
    unit: str
    """The unit that it is deployed as."""
    url: str
    key_env: str
    """The variable that holds its API key."""


STT = PairMember("whisper", "faster-whisper", Protocol.TRANSCRIPTION, "stt", "Whisper", "whisper.service", "http://127.0.0.1:8001", "TUNE_GPU_API_KEY")
LLM = PairMember("vllm", "vllm", Protocol.COMPLETION, "llm", "vLLM", "vllm.service", "http://127.0.0.1:8000", "VLLM_API_KEY")
