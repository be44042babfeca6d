"""One record of an evaluation: what it said to the search when it arrived is what it says after it was kept."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.runs import ARTIFACTS, EXPERIMENT, RUN, WHOLE
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.evaluation.measurement import Measurement, Score, Status
from tune_gpu.evaluation.record import lost, record_of
from tune_gpu.experiment.replay import replay
from tune_gpu.ray_tune.run_search import OnResult, RunSearch
from tune_gpu.search.evaluations import Candidate, Result
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Tournament

OBJECTIVES = {"stt_latency_ms.p95": "min", "wer": "min", "fitness": "max"}
CANDIDATE = Candidate("g0-c0", 0, "initial", {"x": 1}, 0)
RUNS = itertools.count()
FOLDER = tempfile.TemporaryDirectory()
metrics = st.fixed_dictionaries(
    {},
    optional={
        "wer": st.none() | st.floats() | st.text(max_size=3),
        "stt_latency_ms": st.none() | st.fixed_dictionaries({}, optional={"p95": st.none() | st.floats()}),
    },
)
scores = st.builds(
    Score, st.none() | st.floats(), st.none() | st.floats(), st.dictionaries(st.sampled_from(["max_wer", "max_failed_requests_pct"]), st.floats(0.0))
)  # fmt: skip
failures = st.builds(
    Failure, st.sampled_from(FailureKind), st.sampled_from(["vllm", "whisper", "tune_gpu"]), st.sampled_from(Phase), st.text(max_size=5),
    st.text(max_size=5), st.floats(),
)  # fmt: skip
measurements = st.builds(
    lambda found, score, n: Measurement(Status.OK, "cpu", metrics=found, score=score, n_windows=n), metrics, scores, st.integers(1, 9)
) | st.builds(
    lambda failure, n: Measurement.failed(failure, "cpu", n_windows=n), failures, st.integers(0, 9)
)


def searched(objectives: dict[str, str], on_result: OnResult | None = None) -> RunSearch:
    return RunSearch(tournament(objectives), on_result=on_result)


def tournament(objectives: dict[str, str]) -> Tournament:
    space = SearchSpace.from_specs({"x": ParameterSpec(target="", values=[1, 2, 3, 4])})
    return Tournament(space, SearchSettings(algorithm="classic", initial=2, generations=1, objectives=objectives))


def recorded(measurement: Measurement, candidate: Candidate = CANDIDATE, objectives: dict[str, str] = OBJECTIVES) -> EvaluationRecord:
    return record_of(candidate, measurement, objectives=objectives, started_at="2026-01-01T00:00:00+00:00", wall_s=1.0)


def kept(*records: EvaluationRecord) -> list[EvaluationRecord]:
    """The lines as they come back from a run's folder."""
    folder = RunFolder(FOLDER.name, "experiment", f"run-{next(RUNS)}")
    folder.create("name: experiment\n")
    for record in records:
        folder.append_candidate(record)
    return list(folder.candidates())


@settings(max_examples=200, deadline=None)
@given(measurement=measurements, wanted=st.sets(st.sampled_from(sorted(OBJECTIVES))))
def test_any_measurement_says_the_same_live_and_replayed(measurement: Measurement, wanted: set[str]) -> None:
    objectives = {name: direction for name, direction in OBJECTIVES.items() if name in wanted}
    record = recorded(measurement, objectives=objectives)
    live = searched(objectives).read(record.report())
    (line,) = kept(record)
    assert line.result(objectives) == live
    assert (line.counted(objectives).fitness is None) == (live.fitness is None) or line.status != "ok"


def test_a_lost_trial_says_the_same_live_and_replayed() -> None:
    results: list[Result] = []
    search = searched(OBJECTIVES, lambda _candidate, outcome, _result: results.append(outcome))
    suggested = search.suggest("t0")
    assert isinstance(suggested, dict)
    search.on_trial_complete("t0", None, error=True)
    (line,) = kept(lost(CANDIDATE, "cpu", started_at="", retries=[]))
    assert [line.result(OBJECTIVES)] == results


def test_a_search_that_missed_an_objective_is_replayed_to_its_state() -> None:
    objectives = {"wer": "min"}
    live, records = tournament(objectives), []
    search = RunSearch(live)
    found: list[tuple[float, dict[str, Any]]] = [(0.5, {"wer": None}), (0.4, {"wer": 0.1})]
    for number, (fitness, measured) in enumerate(found):
        suggested = search.suggest(f"t{number}")
        assert isinstance(suggested, dict)
        record = recorded(Measurement(Status.OK, "cpu", metrics=measured, score=Score(fitness), n_windows=1), Candidate(**suggested["candidate"]), objectives)
        search.on_trial_complete(f"t{number}", record.report())
        records.append(record)
    again = tournament(objectives)
    assert replay(again, {line.candidate_id: (line.params, line.result(objectives)) for line in kept(*records)}) == []
    assert again.state_dict() == live.state_dict()
    assert [result.status for _, result in again.history] == ["infeasible", "ok"]


@pytest.mark.parametrize("measured", [{}, {"wer": None}, {"other": 1.0}])
def test_a_kept_fitness_without_its_objective_does_not_count(measured: dict[str, Any]) -> None:
    line = replace(recorded(Measurement(Status.OK, "cpu", score=Score(0.5), n_windows=2)), objectives=measured)
    assert line.result({"wer": "min"}) == Result("infeasible", n_windows=2)
    counted = line.counted({"wer": "min"})
    assert (counted.fitness, list(counted.violations)) == (None, ["search.objectives.wer (not measured)"])
    assert line.result().fitness == line.counted({}).fitness == 0.5


@pytest.mark.parametrize(
    "change", [{"status": "banana"}, {"fitness": "high"}, {"fitness": True}, {"n_windows": None}, {"params": None}, {"objectives": [1]}]
)
def test_a_line_of_another_program_is_refused(change: dict[str, Any]) -> None:
    (line,) = kept(recorded(Measurement(Status.OK, "cpu", score=Score(0.5), n_windows=2)))
    (key,) = change
    with pytest.raises(UserError, match=f"line 7: not written by this program .`{key}` is "):
        EvaluationRecord.parse(line.dump() | change, "line 7")


@pytest.mark.parametrize("run_id", [RUN, WHOLE])
def test_recorded_runs_have_no_key_that_the_record_lacks(run_id: str) -> None:
    lines = list(RunFolder(Path(ARTIFACTS), EXPERIMENT, run_id).candidates(repair=False))
    assert lines
    for line in lines:
        assert line.unknown == {}
        assert (line.result().fitness is None) == (line.fitness is None)
