"""Decide what a space that is not the user's own may set of the services: flags and variables that tune, and can neither run nor fetch
code.

This is an allow-list: an option or a variable that is not listed, such as one of a newer vLLM, needs the user's trust.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tune_gpu.config.serve_options import Kind, Role, Spelling, read_name

_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20})?[A-Za-z]{0,3}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}", re.ASCII)
"""Neither a path, nor an address, nor a module or class below one: no slash, dot or colon."""
_WHY = {
    Role.ANSWERS: "it changes who may ask the server, what a request may bring, or what answers and logs reveal",
    Role.CODE: "it can run code of others",
    Role.FILES: "it names files or another model",
    Role.NETWORK: "it names another machine, or what is fetched from one",
    Role.STRUCTURE: "this part of it may name code, files or machines",
    Role.SERVER: "it changes where or how the server answers",
}

_WORDS: dict[str, frozenset[str]] = {
    "attention-backend": frozenset({"FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION", "CPU_ATTN", "TORCH_SDPA", "FLASHMLA", "CUTLASS_MLA", "TRITON_MLA"}),
    "config-format": frozenset({"auto", "hf", "mistral"}),
    "kv-offloading-backend": frozenset({"native"}),
    "mm-encoder-attn-backend": frozenset({"FLASH_ATTN", "TORCH_SDPA", "TRITON_ATTN"}),
    "model-impl": frozenset({"auto", "vllm"}),
    "optimization-level": frozenset({"0", "1", "2", "3"}),
    "tokenizer-mode": frozenset({"auto", "hf", "slow", "mistral"}),
}
"""Options of which other words name a plugin, or a program with a configuration of its own."""
_LOAD_FORMATS = frozenset({"auto", "dummy", "safetensors", "fastsafetensors", "hf", "gguf", "bitsandbytes", "mistral"})
"""`load_format`s that read weights from the model's own files; others fetch them, or are plugins."""

_BELOW: dict[str, dict[str, frozenset[str] | None]] = {
    "compilation-config": dict.fromkeys(
        ("mode", "level", "cudagraph_mode", "cudagraph_capture_sizes", "max_cudagraph_capture_size", "cudagraph_num_of_warmups", "compile_sizes",
         "use_inductor_graph_partition")
    ),
    "limit-mm-per-prompt": dict.fromkeys(("image", "video", "audio")),
    "speculative-config": {
        "method": frozenset({"ngram"}), **dict.fromkeys(("num_speculative_tokens", "prompt_lookup_max", "prompt_lookup_min")),
    },
}  # fmt: skip
"""Parts of structures, with their words where not every word is harmless."""

_SWITCH, _COUNT = re.compile(r"0|1|[Tt]rue|[Ff]alse"), re.compile(r"-?\d{1,12}(\.\d{1,12})?", re.ASCII)
_CORES, _UPPER = re.compile(r"[\d,|-]{1,200}|auto|nobind", re.ASCII), re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_ALLOCATOR = re.compile(r"([a-z_]{1,40}:(\d{1,9}(\.\d{1,6})?|True|False|native|cudaMallocAsync)(,|$)){1,10}", re.ASCII)
VARIABLES: dict[str, re.Pattern[str]] = {
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
         "KMP_BLOCKTIME", "MALLOC_ARENA_MAX", "CUDA_DEVICE_MAX_CONNECTIONS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_NUM_OF_RESERVED_CPU",
         "VLLM_ENGINE_READY_TIMEOUT_S", "VLLM_LOG_STATS_INTERVAL", "VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE", "VLLM_DBO_COMM_SMS"), _COUNT,
    ),
    **dict.fromkeys(
        ("OMP_DYNAMIC", "MKL_DYNAMIC", "TOKENIZERS_PARALLELISM", "NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE", "NCCL_CUMEM_ENABLE",
         "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_CPU_ATTN_SPLIT_KV", "VLLM_USE_FLASHINFER_SAMPLER",
         "VLLM_USE_DEEP_GEMM", "VLLM_MOE_USE_DEEP_GEMM", "VLLM_USE_TRITON_AWQ", "VLLM_MARLIN_USE_ATOMIC_ADD", "VLLM_ALLREDUCE_USE_SYMM_MEM",
         "VLLM_ALLREDUCE_USE_FLASHINFER", "VLLM_DISABLE_PYNCCL", "VLLM_SKIP_P2P_CHECK", "VLLM_USE_V2_MODEL_RUNNER", "VLLM_DISABLE_COMPILE_CACHE",
         "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE", "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "VLLM_USE_V1", "CT2_VERBOSE",
         "CT2_USE_EXPERIMENTAL_PACKED_GEMM", "CT2_CUDA_ALLOW_FP16", "CT2_CUDA_ALLOW_BF16"), _SWITCH,
    ),
    "CT2_CUDA_ALLOCATOR": re.compile(r"cub_caching|cuda_malloc_async"),
    "CT2_FORCE_CPU_ISA": _UPPER,
    "CUDA_DEVICE_ORDER": re.compile(r"PCI_BUS_ID|FASTEST_FIRST"),
    "CUDA_MODULE_LOADING": re.compile(r"LAZY|EAGER"),
    "OMP_PLACES": re.compile(r"threads|cores|sockets"),
    "OMP_PROC_BIND": re.compile(r"true|false|close|spread|master|primary", re.IGNORECASE),
    "OMP_WAIT_POLICY": re.compile(r"ACTIVE|PASSIVE", re.IGNORECASE),
    "PYTORCH_ALLOC_CONF": _ALLOCATOR,
    "PYTORCH_CUDA_ALLOC_CONF": _ALLOCATOR,
    "VLLM_ATTENTION_BACKEND": re.compile("|".join(sorted(_WORDS["attention-backend"]))),
    "VLLM_CPU_OMP_THREADS_BIND": _CORES,
    "VLLM_KV_CACHE_LAYOUT": re.compile(r"NHD|HND"),
    "VLLM_LOGGING_LEVEL": re.compile(r"DEBUG|INFO|WARNING|ERROR|CRITICAL"),
    "VLLM_WORKER_MULTIPROC_METHOD": re.compile(r"fork|spawn"),
}  # fmt: skip
"""Environment variables that tune, with the values that they may have."""


def flag_needs_trust(given: str, value: Any) -> str | None:
    """Return why an entry of `extra_args` needs the user's trust, or None."""
    spelling = read_name(given)
    if spelling.known is None:
        return "vLLM's options as this program knows them have no such flag"
    if spelling.known.role is Role.STRUCTURE:
        return _structure_needs_trust(spelling, value)
    if spelling.known.role is not Role.PLAIN:
        return _WHY[spelling.known.role]
    if spelling.path or spelling.problem:
        return "it is not the whole name of a flag"
    if isinstance(value, list) and spelling.known.kind is not Kind.VALUES:
        return "it takes one value, and vLLM would read the list as a text"
    return _value_needs_trust(value, _WORDS.get(spelling.known.name))


def _structure_needs_trust(spelling: Spelling, value: Any) -> str | None:
    parts = {spelling.path: value} if spelling.path else {(key,): inner for key, inner in value.items()} if isinstance(value, dict) else None
    allowed = _BELOW.get(spelling.option, {})
    if parts is None or spelling.adds:
        return _WHY[Role.STRUCTURE]
    for path, inner in parts.items():
        if len(path) != 1 or path[0] not in allowed:
            return f"{_WHY[Role.STRUCTURE]} ({'.'.join(map(str, path))})"
        if why := _value_needs_trust(inner, allowed[path[0]]):
            return why
    return None


def _value_needs_trust(value: Any, words: frozenset[str] | None) -> str | None:
    """Return why a value needs trust, or None for numbers, switches and plain words, and for lists of them."""
    for item in value if isinstance(value, list) else [value]:
        if item is None or isinstance(item, (bool, int, float)):
            continue
        if not isinstance(item, str) or not (_NUMBER.fullmatch(item) or _WORD.fullmatch(item)):
            return f"{_short(item)} is neither a number nor a plain word"
        if words is not None and item not in words:
            return f"{_short(item)} is none of {', '.join(sorted(words))}"
    return None


def variable_needs_trust(name: str, value: Any) -> str | None:
    """Return why an environment variable needs the user's trust, or None."""
    if name not in VARIABLES:
        return "it is none of the variables that only tune"
    if not VARIABLES[name].fullmatch(str(value)):
        return f"{_short(value)} is not a value that only tunes"
    return None


def setting_needs_trust(name: str, value: Any) -> str | None:
    """Return why a setting of a service needs the user's trust, or None. `extra_args` and `env` have checks of their own."""
    if name == "model":
        return "it is an address, or names a remote store" if "://" in str(value) else None
    if name == "load_format":
        return None if str(value) in _LOAD_FORMATS else f"{_short(value)} is none of {', '.join(sorted(_LOAD_FORMATS))}"
    if name == "cpu_cores":
        return None  # it is read as a list of cores, or refused
    return _value_needs_trust(value, None)


def _short(value: Any) -> str:
    return json.dumps(value, default=str)[:60]
