"""Settings of a service of kind `faster-whisper`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tune_gpu.config.languages import check_language
from tune_gpu.config.rules import By, bounded, one_of, ruled
from tune_gpu.config.texts import check_cores


@dataclass
class WhisperSettings:
    """How faster-whisper is loaded and asked."""

    model: str = "base"
    """A size (`tiny.en`, `base` …), a folder in CTranslate2's form, or a hub name."""
    compute_type: str = one_of(
        "default", "default", "auto", "float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16", "int8_bfloat16"
    )
    beam_size: int = bounded(1, above=0)
    cpu_threads: int = bounded(1, least=0)
    num_workers: int = bounded(1, above=0)
    """Transcriptions at the same time in one model (CTranslate2's `num_workers`)."""
    language: str = ruled("en", By(check_language))
    """Whisper's code of the language it transcribes ("ja", not "jp"; "no" needs its quotes in YAML)."""
    vad_filter: bool = False
    condition_on_previous_text: bool = False
    cpu_cores: str | None = ruled(None, By(check_cores))
    """CPU only: the cores that the service may use."""
    batch_size: int = bounded(1, above=0)
    """Above 1 the pieces of a long utterance are decoded together, up to so many (faster-whisper's batched pipeline)."""
    mps_active_thread_pct: float | None = bounded(None, above=0, most=100)
    """As vLLM's."""
    env: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = bounded(120.0, above=0)
