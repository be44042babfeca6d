"""Make the flags and the environment of a vLLM server, the same for a measured and a deployed one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from tune_gpu.common.process.cores import parse_cores
from tune_gpu.services.environment import CARD_ORDER, layered
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.vllm.options import NO, Kind, Spelling, read_name
from tune_gpu.services.vllm.secret_flags import shown_flags, variables_of
from tune_gpu.services.vllm.settings import VllmSettings

_FLAG_NAMES = (  # settings that are flags of the same name
    "block_size",
    "dtype",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "kv_cache_memory_bytes",
    "load_format",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "quantization",
    "runner",
    "tensor_parallel_size",
)
_LEFT_OUT = {"dtype": "auto", "kv_cache_dtype": "auto", "load_format": "auto", "runner": "auto", "tensor_parallel_size": 1, "enforce_eager": False}
"""Values that are vLLM's own defaults."""
_LAUNCHER = "VLLM_USE_RUST_FRONTEND", "VLLM_RUST_FRONTEND_PATH"
NEVER = dict.fromkeys(_LAUNCHER, "`vllm serve` obeys it and the measured server does not")
"""Variables that no setting may have, and why."""
EVALUATION_ONLY = ("VLLM_API_KEY", "TMPDIR", "PYTHONUNBUFFERED", "VLLM_LOGGING_COLOR")
"""Variables of a measured server that a deployed one does not have. They identify it, and say where its log and its files are."""
IN_PLACE = ("VLLM_CPU_OMP_THREADS_BIND", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Variables that keep a server on its cores and its card."""
HELD = (*EVALUATION_ONLY, *IN_PLACE)
"""Variables that settings cannot replace during a measurement. In a deployment the user's values count."""

Written = str | int | float | bool | list[str]


def serve_settings(settings: VllmSettings) -> dict[str, Written]:
    """Return the values of `vllm serve`'s flags, by long names without leading dashes, without model, name and address.

    Each entry means the same on the command line, in the file of `vllm serve --config`, and in that of the API server's module. So a switch
    that is off is `no-x: true` (`vllm serve` ignores `x: false` silently), or absent if it has no such form. Structures and values below a
    dot are JSON. Lists are words if the flag takes words.
    """
    own = {name: value for name in _FLAG_NAMES if (value := getattr(settings, name)) != _LEFT_OUT.get(name)}
    found: dict[tuple[str, ...], tuple[str, Written]] = {}
    for name, value in (own | shown_flags(settings.extra_args)).items():
        spelling = read_name(str(name))
        found.pop(spelling.target, None)  # a knob's spelling may differ from that of the setting that it replaces
        if (entry := _entry(spelling, value)) is not None:
            found[spelling.target] = entry
    if ("data-parallel-size",) in found:  # `vllm serve` would start one HTTP server for each, the measured module starts one
        found["api-server-count",] = "api-server-count", 1
    return dict(found.values())


def _entry(spelling: Spelling, value: Any) -> tuple[str, Written] | None:
    kind = spelling.known.kind if spelling.known else None
    if value is None or (value == [] and not spelling.path):
        return None
    if spelling.path:
        name = ".".join((spelling.option, *spelling.path))
        return name, json.dumps([value] if spelling.adds and not isinstance(value, list) else value)
    if isinstance(value, bool):
        if value != spelling.off:
            return spelling.option, True
        return None if kind in (Kind.ON, Kind.OPTIONAL) else (f"{NO}{spelling.option}", True)
    if isinstance(value, dict) or (isinstance(value, list) and kind in (Kind.VALUE, Kind.OPTIONAL)):
        return spelling.option, json.dumps(value)
    if isinstance(value, list):
        return spelling.option, [item if isinstance(item, str) else json.dumps(item) for item in value]
    return spelling.option, value


def serve_flags(settings: VllmSettings) -> list[str]:
    """Return the same as a command line."""
    flags: list[str] = []
    for flag, value in serve_settings(settings).items():
        flags.append(f"--{flag}")
        if value is not True:
            flags += value if isinstance(value, list) else [str(value)]
    return flags


def vllm_environment(settings: VllmSettings, device: str, evaluation: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that a server gets in addition to its host's.

    Args:
        settings: their `env` has precedence in a deployment, and during a measurement for all but `HELD`.
        device: `cuda` or `cpu`.
        evaluation: the variables of `EVALUATION_ONLY`; None for a deployment.
    """
    common = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if os.path.isdir(resolve_llm(settings.model)):
        common["HF_HUB_OFFLINE"] = "1"
    if device == "cpu":
        cores = parse_cores(settings.cpu_cores) or sorted(os.sched_getaffinity(0))
        common["OMP_NUM_THREADS"] = str(len(cores))
        # The cores are the process's own affinity (taskset), so that a warm engine and a cold one are bound alike.
        place = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "CUDA_VISIBLE_DEVICES": ""}
    else:
        place = CARD_ORDER
    return layered(common, place, variables_of(settings.extra_args) | dict(settings.env), evaluation)


def engine_environment(
    settings: VllmSettings, api_key: str, device: str, scratch: str, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the whole environment of a measured server: this process's, with the variables of the device, the settings and the
    evaluation."""
    evaluation = dict(zip(EVALUATION_ONLY, (api_key, scratch, "1", "0"), strict=True))
    return dict(os.environ if base is None else base) | vllm_environment(settings, device, evaluation)
