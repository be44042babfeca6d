"""A search of R-Zero that tests drive by hand."""

from __future__ import annotations

from typing import Any

from tune_gpu.config.schema import SearchSettings
from tune_gpu.rzero import RZeroSearch

SPACE = {"x": [1, 2, 3, 4, 5, 6], "mode": ["a", "b"]}

CLASSIC = SearchSettings(algorithm="classic", seed=0)


def search_of(**changes: Any) -> RZeroSearch:
    options: dict[str, Any] = {"space": SPACE, "metric": "score", "mode": "max", "settings": CLASSIC}
    return RZeroSearch(**options | changes)


def units(width: int) -> int:
    return width
