"""R-Zero conforms as a searcher, with each of its algorithms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from ray.tune.search import Searcher

from tune_gpu.config.schema import SearchSettings
from tune_gpu.rzero import RZeroSearch
from tune_gpu.testing.search_conformance import METRIC, SearcherConformance


class TestRZero(SearcherConformance):
    algorithm = "rzero"

    @pytest.fixture
    def space(self) -> Mapping[str, Sequence[Any]]:
        return {"x": [1, 2, 3, 4, 5, 6], "mode": ["a", "b"]}

    @pytest.fixture
    def make(self, space: Mapping[str, Sequence[Any]]) -> Callable[[], Searcher]:
        return lambda: RZeroSearch(space, METRIC, "max", settings=SearchSettings(algorithm=self.algorithm, seed=0))


class TestClassic(TestRZero):
    algorithm = "classic"
