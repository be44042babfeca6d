"""Each result of a run is on disk before anything else happens with it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.made_run import line
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.results import ResultKeeper
from tune_gpu.search.evaluations import Candidate, Result

CANDIDATE = Candidate("g0-c0", 0, "initial", {"x": 1})
OUTCOME = Result("failed", transient=True)


class Shown:
    """Keeps what it is shown, and how many results were on disk then."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.ended_with, self.began_with = folder, list[tuple[str, int, bool]](), list[str]()

    def began(self, candidate: Candidate) -> None:
        self.began_with.append(candidate.candidate_id)

    def ended(self, line: EvaluationRecord, *, replayed: bool = False) -> None:
        self.ended_with.append((line.candidate_id, len([*self.folder.candidates()]), replayed))

    def note(self, line: str) -> None:
        raise AssertionError(line)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ResultKeeper, Shown]]:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # a keeper sets it
    level = logging.getLogger("ray.tune").level
    folder = RunFolder(tmp_path, "made", "run")
    folder.create("name: made\n")
    shown = Shown(folder)
    yield ResultKeeper(load_config("spica_gpu_allocation", [], None), "cpu", folder, shown), shown
    logging.getLogger("ray.tune").setLevel(level)


def test_a_lost_trial_is_kept_as_failed_before_it_is_shown(kept: tuple[ResultKeeper, Shown]) -> None:
    keeper, shown = kept
    keeper.record(CANDIDATE, OUTCOME, None)
    assert shown.ended_with == [("g0-c0", 1, False)]
    assert [(found.candidate_id, found.status, found.told_after) for found in keeper.lines] == [("g0-c0", "failed", 0)]


def test_a_result_is_kept_as_it_was_reported(kept: tuple[ResultKeeper, Shown]) -> None:
    keeper, _ = kept
    for number in range(2):
        made = line(f"g0-c{number}", {"x": number}, 0.5 + number)
        keeper.record(replace(CANDIDATE, candidate_id=f"g0-c{number}"), OUTCOME, {"line_json": json.dumps(made.dump())})
    assert [(found.candidate_id, found.fitness, found.told_after) for found in keeper.lines] == [("g0-c0", 0.5, 0), ("g0-c1", 1.5, 1)]


def test_a_resumed_run_counts_on_from_what_is_kept(kept: tuple[ResultKeeper, Shown]) -> None:
    keeper, shown = kept
    keeper.record(CANDIDATE, OUTCOME, None)
    again = ResultKeeper(load_config("spica_gpu_allocation", [], None), "cpu", shown.folder, shown)
    again.replay()
    assert shown.ended_with[1:] == [("g0-c0", 1, True)]
    again.received(replace(CANDIDATE, candidate_id="g0-c1"), None, [])
    assert [found.told_after for found in again.lines] == [0, 1]


def test_a_result_that_cannot_be_written_ends_the_run_and_is_not_shown(kept: tuple[ResultKeeper, Shown]) -> None:
    keeper, shown = kept
    (shown.folder.path / "gen_0_candidates.jsonl").mkdir()
    keeper.record(CANDIDATE, OUTCOME, None)
    assert isinstance(keeper.unwritten.error, OSError)
    assert keeper.unwritten.stop_all()
    assert shown.ended_with == []
