"""Read numbers in the syntax of vLLM's flags (`32k`, `8K`, `auto`) once, so that everything else computes with whole numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target

_SUFFIXED = re.compile(r"(\d+(?:\.\d+)?)([kmgtKMGT])")
_POWER = {suffix: power for power, suffix in enumerate("kmgt", 1)}
AUTO = "auto"
_SETTINGS = ("max_model_len", "max_num_batched_tokens")
"""The settings whose flags take such text."""


def read_number(setting: str, value: Any) -> Any:
    """Return the whole number of a text, or `auto` if vLLM reads the value so. Return anything else unchanged, to be checked elsewhere."""
    if setting == "max_model_len" and (value == -1 or (isinstance(value, str) and value.strip().lower() in (AUTO, "-1"))) and value is not True:
        return AUTO
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.isdecimal():
        return int(text)
    found = with_suffix(text)
    return value if found is None else found


def with_suffix(text: str) -> int | None:
    """Return the whole number that vLLM reads in `32k` (32,000) or `8K` (8,192), or None for any other text."""
    if not (found := _SUFFIXED.fullmatch(text)):
        return None
    digits, suffix = found.groups()
    if suffix.islower():
        return int(float(digits) * 1000 ** _POWER[suffix])
    return int(digits) * 1024 ** _POWER[suffix.lower()] if digits.isdecimal() else None


def with_numbers(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer of a configuration, not yet merged, with the numbers of `services.vllm` read."""
    services = layer.get("services")
    vllm = services.get("vllm") if isinstance(services, dict) else None
    if not isinstance(services, dict) or not isinstance(vllm, dict):
        return dict(layer)
    read = vllm | {name: read_number(name, vllm[name]) for name in _SETTINGS if name in vllm}
    return {**layer, "services": {**services, "vllm": read}}


def read_parameters(config: ExperimentConfig) -> None:
    """Read the numbers in the values of parameters, in the baseline, and in the conditions that name these values."""
    for name, spec in config.parameters.items():
        target = Target.parse(spec.target)
        setting = target.setting
        if target.service != "vllm" or setting not in _SETTINGS:
            continue
        if spec.values is not None:
            spec.values = [read_number(setting, value) for value in spec.values]
        if name in config.baseline:
            config.baseline[name] = read_number(setting, config.baseline[name])
        for other in config.parameters.values():
            if name in other.when:
                other.when[name] = [read_number(setting, value) for value in other.when[name]]
