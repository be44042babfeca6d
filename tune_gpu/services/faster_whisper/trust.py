"""Decide which variables of faster-whisper a space that is not the user's own may set."""

from __future__ import annotations

import re
from typing import Any

from tune_gpu.config.foreign_services import SWITCH, setting_needs_trust, variable_needs_trust
from tune_gpu.config.foreign_services import VARIABLES as COMMON

VARIABLES = {
    **COMMON,
    **dict.fromkeys(("CT2_VERBOSE", "CT2_USE_EXPERIMENTAL_PACKED_GEMM", "CT2_CUDA_ALLOW_FP16", "CT2_CUDA_ALLOW_BF16"), SWITCH),
    "CT2_CUDA_ALLOCATOR": re.compile(r"cub_caching|cuda_malloc_async"),
    "CT2_FORCE_CPU_ISA": re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII),
}
"""Environment variables of CTranslate2 that tune, with the values that they may have."""


def needs_trust(setting: str, entry: str | None, value: Any) -> str | None:
    """Return why a setting, or one variable, needs the user's trust, or None."""
    return setting_needs_trust(setting, value) if entry is None else variable_needs_trust(entry, value, VARIABLES)
