"""What the first page of recorded runs says that misled their readers."""

from __future__ import annotations

from tests.support.runs import ABOVE_ITS_TARGET, MISLEADING, OFF_ITS_FRONT
from tune_gpu.artifacts.reading import RunRecord, read_run
from tune_gpu.report.facts import facts_of


def recorded(run_id: str) -> RunRecord:
    return read_run(MISLEADING, run_id)


def test_the_first_sentence_says_that_a_target_is_far_away() -> None:
    verdict = facts_of(recorded(OFF_ITS_FRONT)).verdict
    assert "its first token at p95 is 6758 ms, far outside the target of 500 ms (n=2 samples; what runs: 425 ms)" in verdict.partition(". ")[0] + "."


def test_an_error_rate_above_its_target_is_in_the_first_sentence() -> None:
    first = facts_of(recorded(ABOVE_ITS_TARGET)).verdict
    assert first.startswith("By the weights of the objective ")
    assert "is the best, but its word error rate is 0.168, outside the target of 0.1 (what runs: 0.0632). " in first
