"""Decide which flags, variables and settings of vLLM a space that is not the user's own may set.

This is an allow-list: an option or a variable that is not listed, such as one of a newer vLLM, needs the user's trust.
"""

from __future__ import annotations

import re
from typing import Any

from tune_gpu.config.foreign_services import COUNT, SWITCH, setting_needs_trust, short, value_needs_trust, variable_needs_trust
from tune_gpu.config.foreign_services import VARIABLES as COMMON
from tune_gpu.services.vllm.options import Kind, Role, Spelling, problem_of, read_name

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

_CORES = re.compile(r"[\d,|-]{1,200}|auto|nobind", re.ASCII)
VARIABLES = {
    **COMMON,
    **dict.fromkeys(
        ("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_ENGINE_READY_TIMEOUT_S", "VLLM_LOG_STATS_INTERVAL",
         "VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE", "VLLM_DBO_COMM_SMS"), COUNT,
    ),
    **dict.fromkeys(
        ("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_CPU_ATTN_SPLIT_KV", "VLLM_USE_FLASHINFER_SAMPLER", "VLLM_USE_DEEP_GEMM", "VLLM_MOE_USE_DEEP_GEMM",
         "VLLM_USE_TRITON_AWQ", "VLLM_MARLIN_USE_ATOMIC_ADD", "VLLM_ALLREDUCE_USE_SYMM_MEM", "VLLM_ALLREDUCE_USE_FLASHINFER", "VLLM_DISABLE_PYNCCL",
         "VLLM_SKIP_P2P_CHECK", "VLLM_USE_V2_MODEL_RUNNER", "VLLM_DISABLE_COMPILE_CACHE", "VLLM_ENABLE_INDUCTOR_MAX_AUTOTUNE",
         "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "VLLM_USE_V1"), SWITCH,
    ),
    "VLLM_ATTENTION_BACKEND": re.compile("|".join(sorted(_WORDS["attention-backend"]))),
    "VLLM_CPU_OMP_THREADS_BIND": _CORES,
    "VLLM_KV_CACHE_LAYOUT": re.compile(r"NHD|HND"),
    "VLLM_LOGGING_LEVEL": re.compile(r"DEBUG|INFO|WARNING|ERROR|CRITICAL"),
    "VLLM_WORKER_MULTIPROC_METHOD": re.compile(r"fork|spawn"),
}  # fmt: skip
"""Environment variables of an engine that tune, with the values that they may have."""


def needs_trust(setting: str, entry: str | None, value: Any) -> str | None:
    """Return why a setting, or one entry of a mapping, needs the user's trust, or None. Flags that nobody may set are refused elsewhere."""
    if entry is None:
        if setting == "load_format":
            return None if str(value) in _LOAD_FORMATS else f"{short(value)} is none of {', '.join(sorted(_LOAD_FORMATS))}"
        return setting_needs_trust(setting, value)
    if setting == "env":
        return variable_needs_trust(entry, value, VARIABLES)
    return None if problem_of(entry, value) else flag_needs_trust(entry, value)


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
    return value_needs_trust(value, _WORDS.get(spelling.known.name))


def _structure_needs_trust(spelling: Spelling, value: Any) -> str | None:
    parts = {spelling.path: value} if spelling.path else {(key,): inner for key, inner in value.items()} if isinstance(value, dict) else None
    allowed = _BELOW.get(spelling.option, {})
    if parts is None or spelling.adds:
        return _WHY[Role.STRUCTURE]
    for path, inner in parts.items():
        if len(path) != 1 or path[0] not in allowed:
            return f"{_WHY[Role.STRUCTURE]} ({'.'.join(map(str, path))})"
        if why := value_needs_trust(inner, allowed[path[0]]):
            return why
    return None
