"""Settings of the services that are deployed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from tune_gpu.config.bounds import Bounds
from tune_gpu.config.languages import check_language
from tune_gpu.config.rules import By, NumberOr, bounded, one_of, ruled
from tune_gpu.config.texts import check_cores
from tune_gpu.config.vllm_numbers import AUTO, read_count, read_length


@dataclass
class VllmSettings:
    """The flags of a candidate's vLLM server. `None` leaves a flag to vLLM's own default."""

    model: str = "demo-llm"
    """A folder, a hub name, `demo-llm` (a toy made by this program), or a model with real weights from a package: `smollm2-135m` (writes text)
    or `all-MiniLM-L6-v2` (embeddings; with `runner: pooling` in `extra_args`)."""
    gpu_memory_utilization: float = bounded(0.5, above=0, most=1)
    """Share of the device's memory (on the CPU: of the NUMA node's), in (0, 1]."""
    max_model_len: int | str | None = ruled(None, NumberOr(Bounds(above=0), AUTO, "32768, or 32k as vLLM writes it"), read_length)
    """Tokens; `auto` lets vLLM take the longest context that fits. As in vLLM's own flags, 32k is 32,000 and 32K is 32,768."""
    max_num_seqs: int | None = bounded(None, above=0)
    max_num_batched_tokens: int | None = bounded(None, above=0, read=read_count)
    dtype: str = one_of("auto", "auto", "half", "float16", "bfloat16", "float", "float32")
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    block_size: int | None = bounded(None, above=0)
    tensor_parallel_size: int = bounded(1, least=1)
    enforce_eager: bool = False
    enable_prefix_caching: bool | None = None
    enable_chunked_prefill: bool | None = None
    load_format: str = "auto"
    """`dummy` draws random weights of the true shape: speed and memory depend on shapes, not on values."""
    cpu_cores: str | None = ruled(None, By(check_cores))
    """CPU only: the cores of the engine, as in `VLLM_CPU_OMP_THREADS_BIND` and taskset ("0", "0-1", "0,2")."""
    mps_active_thread_pct: float | None = bounded(None, above=0, most=100)
    """Cards only, with `run.mps`: share of the multiprocessors that it may use (CUDA_MPS_ACTIVE_THREAD_PERCENTAGE); null or 100 leaves MPS out."""
    runner: str = one_of("auto", "auto", "generate", "pooling")
    """`pooling` serves embeddings, or the scores of a reranker."""
    api: str = one_of("auto", "auto", "chat", "completions")
    """How a generating model is asked: `chat` with its own template, or `completions`. `auto`: chat if the model has a template. The default pair
    is always asked by completions."""
    extra_args: dict[str, Any] = field(default_factory=dict)
    """Any further flag of `vllm serve`, by its long name without dashes in front."""
    env: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = bounded(300.0, above=0)


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


class SpaceServices:
    """The services of a space, one field for each. What runs while nothing is tuned: a candidate's parameters are written over it."""

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield name and settings of each service, in the order of the space."""
        return ((each.name, getattr(self, each.name)) for each in fields(self))  # type: ignore[arg-type]  # every subclass is a dataclass

    def __getitem__(self, name: str) -> Any:
        """Return the settings of the service of this name. Raise KeyError if the space has none."""
        if name not in self:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return any(name == each for each, _ in self.items())


@dataclass
class Services(SpaceServices):
    """The default pair: the services of a space of version 1."""

    vllm: VllmSettings = field(default_factory=VllmSettings)
    whisper: WhisperSettings = field(default_factory=WhisperSettings)


PAIR = {"vllm": "vllm", "whisper": "faster-whisper"}
"""Name -> kind of the default pair."""
