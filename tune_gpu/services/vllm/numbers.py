"""Read numbers in the syntax of vLLM's flags (`32k`, `8K`, `auto`) once, so that everything else computes with whole numbers."""

from __future__ import annotations

import re
from typing import Any

_SUFFIXED = re.compile(r"(\d+(?:\.\d+)?)([kmgtKMGT])")
_POWER = {suffix: power for power, suffix in enumerate("kmgt", 1)}
AUTO = "auto"


def read_length(value: Any) -> Any:
    """Return the whole number of a text, or `auto` if vLLM reads the value so. Return anything else unchanged."""
    if (value == -1 or (isinstance(value, str) and value.strip().lower() in (AUTO, "-1"))) and value is not True:
        return AUTO
    return read_count(value)


def read_count(value: Any) -> Any:
    """Return the whole number of a text. Return anything else unchanged."""
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
