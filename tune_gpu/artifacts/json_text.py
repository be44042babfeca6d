"""JSON that every reader can read: no NaN, no infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(content: Any) -> str:
    """For people and programs: indented, and null for what is no number in JSON."""
    return json.dumps(finite(content), indent=2, ensure_ascii=False)


def finite(value: Any) -> Any:
    """NaN and infinity are no JSON, and no measurements: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return value
