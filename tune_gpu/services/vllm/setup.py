"""The flags and the environment of a vLLM server: the same for one that is measured and one that is deployed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from tune_gpu.common.process.cores import parse_cores
from tune_gpu.config.schema import VllmSettings
from tune_gpu.config.serve_options import NO, Kind, Spelling, read_name
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.vllm.secret_flags import shown_flags, variables_of

_FLAG_NAMES = (  # the settings that are flags of the same name
    "block_size",
    "dtype",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "load_format",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "quantization",
    "tensor_parallel_size",
)
_LEFT_OUT = {"dtype": "auto", "kv_cache_dtype": "auto", "load_format": "auto", "tensor_parallel_size": 1, "enforce_eager": False}
"""Values that are vLLM's own defaults."""
_LAUNCHER = "VLLM_USE_RUST_FRONTEND", "VLLM_RUST_FRONTEND_PATH"
NEVER = dict.fromkeys(_LAUNCHER, "`vllm serve` obeys it and the measured server does not")
"""Variables that no setting may have, and why."""
EVALUATION_ONLY = ("VLLM_API_KEY", "TMPDIR", "PYTHONUNBUFFERED", "VLLM_LOGGING_COLOR")
"""Variables of a measured server that a deployed one has not: by them an evaluation knows it, reads its log and keeps its files."""
IN_PLACE = ("VLLM_CPU_OMP_THREADS_BIND", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Variables by which a server stays on its cores and its card."""
HELD = (*EVALUATION_ONLY, *IN_PLACE)
"""Variables that a setting cannot replace while it is measured; promoted, the user's values count."""

Written = str | int | float | bool | list[str]


def serve_settings(settings: VllmSettings) -> dict[str, Written]:
    """Return what is set of `vllm serve`'s flags, by long names without dashes in front; model, name and address left out.

    Each entry means the same to every reader: on the command line, in the file of `vllm serve --config`, and in that of the API server's module.
    So a switch that is off stands as `no-x: true` (`vllm serve` drops `x: false` without a word), or not at all where it has no such form;
    structures are JSON; what lies below a dot is JSON; lists are words where the flag takes words.
    """
    own = {name: value for name in _FLAG_NAMES if (value := getattr(settings, name)) != _LEFT_OUT.get(name)}
    found: dict[tuple[str, ...], tuple[str, Written]] = {}
    for name, value in (own | shown_flags(settings.extra_args)).items():
        spelling = read_name(str(name))
        found.pop(spelling.target, None)  # a knob's spelling need not be the setting's that it replaces
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
    """The same as a command line."""
    flags: list[str] = []
    for flag, value in serve_settings(settings).items():
        flags.append(f"--{flag}")
        if value is not True:
            flags += value if isinstance(value, list) else [str(value)]
    return flags


def vllm_environment(settings: VllmSettings, device: str, evaluation: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a server has in its environment beside what its host has.

    Args:
        settings: their `env` wins where it is deployed, and for all but `HELD` where it is measured.
        device: `cuda` or `cpu`.
        evaluation: the variables of `EVALUATION_ONLY`; null where it is deployed.
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


CARD_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""A card's number is then NVML's, by which it is proven; vLLM warns of the other order."""


def layered(
    common: Mapping[str, str], place: Mapping[str, str], users: Mapping[str, str], evaluation: Mapping[str, str] | None
) -> dict[str, str]:
    """The variables of a service: the user's win over ours, but what an evaluation holds wins over the user's."""
    if evaluation is None:
        return {**common, **place, **users}
    return {**common, **users, **place, **evaluation}


def engine_environment(
    settings: VllmSettings, api_key: str, device: str, scratch: str, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a measured server: this process's, and what the device, the settings and the evaluation add."""
    evaluation = dict(zip(EVALUATION_ONLY, (api_key, scratch, "1", "0"), strict=True))
    return dict(os.environ if base is None else base) | vllm_environment(settings, device, evaluation)
