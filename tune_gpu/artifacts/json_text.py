"""JSON that every reader accepts: no NaN, no infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(content: Any) -> str:
    """Return indented JSON, with null for NaN and infinity."""
    return json.dumps(finite(content), indent=2, ensure_ascii=False)


def finite(value: Any) -> Any:
    """Return the value with None for NaN and infinity, which are neither JSON nor measurements."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return value
