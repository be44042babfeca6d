"""The words with which a run and a comparison end are a contract of the artifacts."""

from __future__ import annotations

from tune_gpu.artifacts.records.ends import ComparisonEnd, RunEnd
from tune_gpu.search.ending import Ended


def test_the_ends_in_the_artifacts_keep_their_words() -> None:
    assert list(RunEnd) == ["generations", "space exhausted", "time budget", "interrupted", "same failure"]
    assert list(ComparisonEnd) == ["decided", "rounds", "budget", "interrupted", "failed"]


def test_every_end_of_a_search_is_an_end_of_a_run() -> None:
    assert [RunEnd(ended) for ended in Ended] == [RunEnd.GENERATIONS, RunEnd.SPACE_EXHAUSTED]
