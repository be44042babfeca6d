"""Each artifact reads into its record and is written back with the same keys and values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.made_run import line
from tests.support.runs import ARTIFACTS, EXPERIMENT, INTERRUPTED, RUN, WHOLE
from tune_gpu.artifacts.reading import read_run, read_winner
from tune_gpu.artifacts.records.base import SCHEMA_VERSION, Record
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.records.evaluation import Durations, EngineReport, EvaluationRecord, FailedAttempt, FailureRecord
from tune_gpu.artifacts.records.manifest import Manifest
from tune_gpu.artifacts.records.summary import RunSummary
from tune_gpu.artifacts.records.winner import WinnerFile
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Status
from tune_gpu.report.data import report_data
from tune_gpu.report.importance import importance_of

REPORTED = json.loads((Path(__file__).parents[2] / "data" / "reported_numbers.json").read_text())
"""The numbers that the reports of the recorded runs had before records were typed (commit 8400737)."""

numbers = st.floats(allow_nan=False) | st.integers()
values = st.recursive(st.none() | st.booleans() | numbers | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)
objects = st.dictionaries(st.text(max_size=5), values, max_size=3)
parts = st.none() | st.dictionaries(st.sampled_from(["vllm", "whisper"]), numbers, max_size=2)
failures = st.builds(
    FailureRecord, kind=st.text(max_size=5), service=st.text(max_size=5), phase=st.text(max_size=5), message=st.text(max_size=5), evidence=st.text(max_size=5),
    shortfall=st.none() | numbers, retryable=st.booleans(),
)  # fmt: skip
attempts = st.builds(FailedAttempt, kind=st.text(max_size=5), message=st.text(max_size=5), wall_s=st.none() | numbers)
durations = st.builds(Durations, start=numbers, start_by_part=parts, warm=numbers, load=numbers, stop=numbers, stop_by_part=parts)
evaluations = st.builds(
    EvaluationRecord, candidate_id=st.text(max_size=5), generation=st.integers(), origin=st.text(max_size=5), params=objects, asked_after=st.none() | st.integers(),
    status=st.just(Status.FAILED), violation=st.none() | numbers, transient=st.booleans(), n_windows=st.integers(), failure=failures, fitness=st.none() | numbers,
    fitness_stderr=st.none() | numbers, objectives=st.none() | st.dictionaries(st.text(max_size=5), st.none() | numbers, max_size=2),
    violations=st.dictionaries(st.text(max_size=5), st.none() | numbers, max_size=2), metrics=objects, wall_s=st.none() | numbers, duration_s=durations,
    engine_reused=st.booleans(), engine=st.builds(EngineReport, kv_cache_tokens=st.none() | st.integers(), max_concurrency=st.none() | numbers),
    n_retries=st.integers(), retries=st.lists(attempts, max_size=2).map(tuple), told_after=st.none() | st.integers(),
)  # fmt: skip


def recorded() -> Iterator[tuple[type[Record], Any]]:
    """Every artifact of the recorded runs that has a record, with its record's type."""
    for path in sorted((ARTIFACTS / EXPERIMENT).glob("*/gen_*_candidates.jsonl")):
        for text in path.read_text().splitlines():
            yield EvaluationRecord, json.loads(text)
    kinds: dict[str, type[Record]] = {"summary.json": RunSummary, "manifest.json": Manifest, "confirmation.json": Comparison}
    for name, kind in kinds.items():
        for path in sorted((ARTIFACTS / EXPERIMENT).glob(f"*/{name}")):
            yield kind, json.loads(path.read_text())
    for path in sorted((ARTIFACTS / "winners").glob("*.json")):
        yield WinnerFile, json.loads(path.read_text())


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in recorded()}, key=str))
def test_recorded_artifacts_are_written_back_as_they_were(kind: type[Record]) -> None:
    contents = [content for of, content in recorded() if of is kind]
    assert contents
    for content in contents:
        assert kind.parse(content, "a recorded run").dump() == content


@pytest.mark.parametrize("kind", [RunSummary, Manifest, WinnerFile, Comparison])
def test_unknown_fields_of_recorded_artifacts_are_written_back(kind: type[Record]) -> None:
    content = next(content for of, content in recorded() if of is kind) | {"of_tomorrow": {"x": [1]}}
    found = kind.parse(content, "a recorded run")
    assert found.dump() == content
    assert kind.parse(found.dump(), "written back") == found


def test_recorded_artifacts_have_no_key_that_their_record_lacks() -> None:
    for kind, content in recorded():
        assert kind.parse(content, "a recorded run").unknown == {}


@given(record=evaluations)
def test_an_evaluation_is_the_same_after_writing_and_reading(record: EvaluationRecord) -> None:
    content = json.loads(json.dumps(record.dump()))
    assert content["schema_version"] == SCHEMA_VERSION
    assert EvaluationRecord.parse(content, "a line") == record
    assert EvaluationRecord.parse(content, "a line").dump() == content


@given(content=objects, nested=objects)
def test_unknown_fields_are_written_back_at_every_level(content: dict[str, Any], nested: dict[str, Any]) -> None:
    known = line("g0-c0", {"x": 1}, 0.5).dump()
    whole = content | known | {"duration_s": nested | {"start": 1.0, "load": 1.0, "stop": 0.0}, "retries": [nested | {"kind": "oom"}]}
    assert EvaluationRecord.parse(whole, "a line").dump() == whole


def test_a_field_that_was_absent_stays_absent_until_it_is_set() -> None:
    content = {key: value for key, value in line("g0-c0", {}, 0.5).dump().items() if key not in ("schema_version", "fitness_stderr", "asked_after")}
    found = EvaluationRecord.parse(content, "a line")
    assert (found.schema_version, found.fitness_stderr) == (1, None)
    assert found.dump() == content
    assert replace(found, fitness_stderr=0.1, told_after=0).dump() == content | {"fitness_stderr": 0.1, "told_after": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fitness": "high"}, '`fitness` is "high"'),
        ({"fitness": True}, "`fitness` is true"),
        ({"generation": 1.5}, "`generation` is 1.5"),
        ({"engine_reused": 1}, "`engine_reused` is 1"),
        ({"duration_s": {"start_by_part": {"vllm": "long"}}}, '`duration_s.start_by_part.vllm` is "long"'),
        ({"failure": {}}, "`failure.kind` is missing"),
        ({"retries": [{"kind": 1}]}, "`retries.kind` is 1"),
        ({"failure": {"kind": "oom"}}, "status ok and failure contradict one another"),
        ({"schema_version": 2}, "schema_version=2: this program reads up to 1"),
        ({"schema_version": "new"}, "schema_version=new: this program reads up to 1"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        EvaluationRecord.parse(line("g0-c0", {}, 0.5).dump() | change, "gen_0_candidates.jsonl, line 7")
    assert str(raised.value).startswith("gen_0_candidates.jsonl, line 7: ")
    assert message in str(raised.value)


@pytest.mark.parametrize("run_id", [RUN, INTERRUPTED, WHOLE])
def test_no_number_of_a_recorded_report_has_changed(run_id: str) -> None:
    record = read_run(ARTIFACTS, run_id)
    data = report_data(record, read_winner(record.folder))
    expected = REPORTED[run_id] | {}
    importance = importance_of(data.lines)
    assert expected.pop("importance") == (None if importance is None else pytest.approx(dict(zip(importance.names, importance.mean, strict=True))))
    assert {
        "rows": [[row.winner, row.baseline, row.digits, row.better] for row in data.rows],
        "costs": [[cost.seconds, cost.share] for cost in data.costs],
        "changes": [list(change) for change in data.changes],
        "failures": [[failure["kind"], failure["count"], failure["candidates"]] for failure in data.failures],
        "n_doubts": len(data.caveats),
    } == expected
