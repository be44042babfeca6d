"""Settings of a service of kind `vllm`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tune_gpu.config.bounds import Bounds
from tune_gpu.config.rules import By, NumberOr, bounded, one_of, ruled
from tune_gpu.config.texts import check_cores
from tune_gpu.services.vllm.numbers import AUTO, read_count, read_length


@dataclass
class VllmSettings:
    """The flags of a candidate's vLLM server. `None` leaves a flag to vLLM's own default."""

    model: str = "demo-llm"
    """A folder, a hub name, `demo-llm` (a toy made by this program), or a model with real weights from a package: `smollm2-135m` (writes text)
    or `all-MiniLM-L6-v2` (embeddings; with `runner: pooling` in `extra_args`)."""
    gpu_memory_utilization: float = bounded(0.5, above=0, most=1)
    """Share of the device's memory (on the CPU: of the NUMA node's), in (0, 1]."""
    kv_cache_memory_bytes: int | None = bounded(None, above=0, read=read_count)
    """The exact size of the KV cache on each card, in place of what `gpu_memory_utilization` leaves for it; `256M` as vLLM writes it. On a card
    the share must be free all the same when it starts."""
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
