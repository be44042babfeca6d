"""Decide what a space that is not the user's own may set of any service: values and variables that tune, and can neither run nor fetch code.

This is an allow-list: a variable that is not listed needs the user's trust. A kind with settings of another sort judges them itself
(`JudgesValues` in `foreign.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20})?[A-Za-z]{0,3}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}", re.ASCII)
"""Neither a path, nor an address, nor a module or class below one: no slash, dot or colon."""

SWITCH, COUNT = re.compile(r"0|1|[Tt]rue|[Ff]alse"), re.compile(r"-?\d{1,12}(\.\d{1,12})?", re.ASCII)
"""Values of variables."""
_ALLOCATOR = re.compile(r"([a-z_]{1,40}:(\d{1,9}(\.\d{1,6})?|True|False|native|cudaMallocAsync)(,|$)){1,10}", re.ASCII)
Variables = Mapping[str, re.Pattern[str]]
VARIABLES: Variables = {
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
         "KMP_BLOCKTIME", "MALLOC_ARENA_MAX", "CUDA_DEVICE_MAX_CONNECTIONS"), COUNT,
    ),
    **dict.fromkeys(
        ("OMP_DYNAMIC", "MKL_DYNAMIC", "TOKENIZERS_PARALLELISM", "NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE", "NCCL_CUMEM_ENABLE",
         "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), SWITCH,
    ),
    "CUDA_DEVICE_ORDER": re.compile(r"PCI_BUS_ID|FASTEST_FIRST"),
    "CUDA_MODULE_LOADING": re.compile(r"LAZY|EAGER"),
    "OMP_PLACES": re.compile(r"threads|cores|sockets"),
    "OMP_PROC_BIND": re.compile(r"true|false|close|spread|master|primary", re.IGNORECASE),
    "OMP_WAIT_POLICY": re.compile(r"ACTIVE|PASSIVE", re.IGNORECASE),
    "PYTORCH_ALLOC_CONF": _ALLOCATOR,
    "PYTORCH_CUDA_ALLOC_CONF": _ALLOCATOR,
}  # fmt: skip
"""Environment variables that tune, with the values that they may have. A kind adds those of its own program."""


def value_needs_trust(value: Any, words: frozenset[str] | None = None) -> str | None:
    """Return why a value needs trust, or None for numbers, switches and plain words, and for lists of them."""
    for item in value if isinstance(value, list) else [value]:
        if item is None or isinstance(item, (bool, int, float)):
            continue
        if not isinstance(item, str) or not (_NUMBER.fullmatch(item) or _WORD.fullmatch(item)):
            return f"{short(item)} is neither a number nor a plain word"
        if words is not None and item not in words:
            return f"{short(item)} is none of {', '.join(sorted(words))}"
    return None


def variable_needs_trust(name: str, value: Any, variables: Variables = VARIABLES) -> str | None:
    """Return why an environment variable needs the user's trust, or None."""
    if name not in variables:
        return "it is none of the variables that only tune"
    if not variables[name].fullmatch(str(value)):
        return f"{short(value)} is not a value that only tunes"
    return None


def setting_needs_trust(name: str, value: Any) -> str | None:
    """Return why a setting of a service needs the user's trust, or None."""
    if name == "model":
        return "it is an address, or names a remote store" if "://" in str(value) else None
    if name == "cpu_cores":
        return None  # it is read as a list of cores, or refused
    return value_needs_trust(value)


def entry_needs_trust(setting: str, entry: str, value: Any) -> str | None:
    """Return why an entry of a mapping of a service needs the user's trust, or None."""
    return variable_needs_trust(entry, value) if setting == "env" else "what it changes is not known"


def short(value: Any) -> str:
    """Return a value for a message."""
    return json.dumps(value, default=str)[:60]
