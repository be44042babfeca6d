"""When the baseline is deployed again, and what is said of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.made_run import line
from tests.unit.ray_tune.test_through_client import PlayedQueue
from tune_gpu.artifacts.reading import read_run
from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.summary import RunSummary
from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.artifacts.run_folder import ANCHORS, RunFolder
from tune_gpu.cli.status import describe_run
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.experiment.anchors import Anchors, describe_anchors
from tune_gpu.experiment.results import ResultKeeper
from tune_gpu.experiment.summary import summarise_run
from tune_gpu.ray_tune import client as ray_client
from tune_gpu.report.data import report_data
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Candidate, Tournament

BASELINE = {"x": 1}


class Played:
    """A run with a baseline, and Tune played at its seam: each trial reports this fitness, or is lost without one."""

    def __init__(self, folder: RunFolder, *settings: str) -> None:
        self.folder, self.begun, self.noted = folder, list[Candidate](), list[str]()
        config = load_config("spica_gpu_allocation", list(settings), None)
        self.results = ResultKeeper(config, "cpu", folder, self)
        self.anchors = Anchors(config.search.anchors, self.results, self)
        self.fitness: float | None = 0.6509
        self.stops_short = False

    def began(self, candidate: Candidate) -> None: ...

    def ended(self, line: EvaluationRecord, *, replayed: bool = False) -> None: ...

    def note(self, line: str) -> None:
        self.noted.append(line)

    def measure(self, ended: RunEnd = RunEnd.GENERATIONS, left_s: Callable[[], float | None] = lambda: None) -> RunEnd:
        return self.anchors.measure(ended, left_s, self._tuner)

    def _tuner(self, candidates: Sequence[Candidate], callback: Any) -> Any:
        def fit() -> None:
            for candidate in candidates:
                self.begun.append(candidate)
                trial = SimpleNamespace(config={"candidate": vars(candidate)}, last_result={})
                if self.stops_short:
                    return
                if self.fitness is None:
                    callback.on_trial_error(1, [], trial)
                    continue
                made = line(candidate.candidate_id, candidate.params, self.fitness, origin=candidate.origin, fitness_stderr=0.0054)
                trial.last_result = made.report()
                callback.on_trial_complete(1, [], trial)

        return SimpleNamespace(fit=fit)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # a keeper sets it
    monkeypatch.setattr(ray_client, "Queue", PlayedQueue)
    made = RunFolder(tmp_path, "made", "run")
    made.create("name: made\nparameters: {}\n")
    made.append_candidate(line("g0-c0", BASELINE, 0.6801, origin="baseline", fitness_stderr=0.0021))
    made.append_candidate(line("g1-c0", {"x": 2}, 0.7, origin="offspring", generation=1))
    return made


def test_the_baseline_is_measured_once_more_and_kept_apart(folder: RunFolder) -> None:
    run = Played(folder)
    assert run.measure() is RunEnd.GENERATIONS
    assert [(each.candidate_id, each.origin, each.params) for each in run.begun] == [("anchor-1", "anchor", BASELINE)]
    assert [made.fitness for made in folder.anchors()] == [0.6509]
    assert [made.candidate_id for made in folder.candidates()] == ["g0-c0", "g1-c0"], "no candidate's line"
    assert run.anchors.sentence == (
        "the baseline deployed twice: fitness 0.6801 and 0.6509; its deployments alone differ by 0.0292, and the errors within them explain up to 0.0114"
    )
    record = read_run(folder.root, "run")
    assert [made.fitness for made in record.anchors] == [0.6509]
    shown = report_data(record).as_dict()
    assert [each["candidate_id"] for each in shown["anchors"]] == ["anchor-1"], "a program reads them in the report, too"
    assert [each["candidate_id"] for each in shown["lines"]] == ["g0-c0", "g1-c0"]
    assert (describe_run(folder, record)["n_evaluations"], describe_run(folder, record)["n_anchors"]) == (2, 1)


def test_an_anchor_that_exists_is_not_measured_again(folder: RunFolder) -> None:
    Played(folder).measure()
    run = Played(folder)
    assert run.measure() is RunEnd.GENERATIONS
    assert (run.begun, run.noted) == ([], [])
    assert "deployed twice" in (run.anchors.sentence or "")
    more = Played(folder, "search.anchors=3")
    more.measure()
    assert [each.candidate_id for each in more.begun] == ["anchor-2", "anchor-3"]


def test_none_is_measured_where_none_is_wanted_or_nothing_compares(folder: RunFolder, tmp_path: Path) -> None:
    off = Played(folder, "search.anchors=0")
    assert off.measure() is RunEnd.GENERATIONS
    without = RunFolder(tmp_path, "made", "without")
    without.create("name: made\n")
    without.append_candidate(line("g0-c0", BASELINE, 0.6, origin="initial"))
    failed = RunFolder(tmp_path, "made", "failed")
    failed.create("name: made\n")
    failed.append_candidate(line("g0-c0", BASELINE, None, origin="baseline"))
    for run in (off, Played(without), Played(failed)):
        run.measure()
        assert (run.begun, run.anchors.sentence) == ([], None)
        assert not (run.folder.path / ANCHORS).exists()


@pytest.mark.parametrize(
    ("ended", "left_s", "why"),
    [
        (RunEnd.INTERRUPTED, None, "the run was interrupted"),
        (RunEnd.TIME_BUDGET, 0.0, "the run's time budget is over"),
        (RunEnd.GENERATIONS, 4.0, "the run's time budget leaves 4 s, and the baseline took 5 s"),
    ],
)
def test_a_run_that_may_not_go_on_skips_it_and_says_so(folder: RunFolder, ended: RunEnd, left_s: float | None, why: str) -> None:
    run = Played(folder)
    assert run.measure(ended, lambda: left_s) is ended
    assert run.begun == []
    assert (run.anchors.sentence or "").endswith(f"differs between its deployments: {why}")


def test_a_ctrl_c_while_it_is_measured_interrupts_the_run(folder: RunFolder) -> None:
    run = Played(folder)
    run.stops_short = True
    assert run.measure() is RunEnd.INTERRUPTED
    assert list(folder.anchors()) == []
    again = Played(folder)
    assert again.measure() is RunEnd.GENERATIONS
    assert len(list(folder.anchors())) == 1


def test_a_lost_anchor_is_kept_with_its_failure_and_is_said(folder: RunFolder) -> None:
    run = Played(folder)
    run.fitness = None
    run.measure()
    [lost] = folder.anchors()
    assert lost.failure is not None
    assert lost.failure.kind == "service_lost"
    assert "0.6801 at first, no measurement after that (service_lost" in (run.anchors.sentence or "")


def test_a_half_written_anchor_is_cut_off_and_measured_again(folder: RunFolder) -> None:
    (folder.path / ANCHORS).write_text('{"candidate_id": "anch')
    assert read_run(folder.root, "run").anchors == ()
    Played(folder).measure()
    assert len(list(folder.anchors())) == 1


def test_an_anchor_file_that_is_not_of_this_program_is_refused_by_name(folder: RunFolder) -> None:
    (folder.path / ANCHORS).write_text("[1]\n")
    with pytest.raises(UserError, match=r"anchors\.jsonl, line 1: not written by this program"):
        read_run(folder.root, "run")


def test_deployments_of_unknown_error_are_said_without_what_explains_them() -> None:
    first, other = line("g0-c0", BASELINE, 0.5, origin="baseline"), line("anchor-1", BASELINE, 0.4, origin="anchor")
    assert describe_anchors([first], [other]) == "the baseline deployed twice: fitness 0.5000 and 0.4000; its deployments alone differ by 0.1000"
    assert "up to 0.2000 (standard deviation 0.1000)" in (describe_anchors([first], [other, replace(other, fitness=0.3)]) or "")


def test_elites_of_the_baseline_are_deployments_of_it_too() -> None:
    """A recorded run said "deployed twice: 0.6476 and 0.6483", and its elites of the same configuration had 0.6533, 0.6446 and 0.6149."""
    values = (0.6476, 0.6533, 0.6446, 0.6149)
    lines = [line(f"g{i}-c0", BASELINE, value, origin="elite" if i else "baseline", generation=i) for i, value in enumerate(values)]
    other = line("g1-c1", {"x": 2}, 0.9)
    assert describe_anchors([*lines, other], [line("anchor-1", BASELINE, 0.6483, origin="anchor")]) == (
        "the baseline deployed 5 times: fitness 0.6476, 0.6533, 0.6446, 0.6149 and 0.6483; "
        "its deployments alone differ by up to 0.0384 (standard deviation 0.0153)"
    )
    skipped = describe_anchors([*lines[:2], other], [], "the run was interrupted")
    assert skipped == "the baseline deployed twice: fitness 0.6476 and 0.6533; its deployments alone differ by 0.0057; it was not deployed again at the end: the run was interrupted"


def test_anchors_are_copied_to_the_storage_without_secrets(folder: RunFolder, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    run = Played(folder, f"ray.storage_path={storage}", "services.vllm.env={OTHER_KEY: hunter2hunter2}")
    folder.redactor = Redactor(load_config("spica_gpu_allocation", ["services.vllm.env={OTHER_KEY: hunter2hunter2}"], None))
    run.results.received_anchor(Candidate("anchor-1", 1, "anchor", BASELINE), json.dumps(line("anchor-1", BASELINE, 0.5, engine={"said": "hunter2hunter2"}).dump()), [])
    kept = (folder.path / ANCHORS).read_text()
    assert "hunter2" not in kept
    assert (storage / "made" / "run" / ANCHORS).read_text() == kept


def test_an_anchor_is_evidence_of_the_baseline_and_no_evaluation(folder: RunFolder) -> None:
    lines = [line("g0-c0", BASELINE, 0.68, origin="baseline", fitness_stderr=0.002), line("g0-c1", {"x": 2}, 0.70, fitness_stderr=0.002)]
    anchor = line("anchor-1", BASELINE, 0.62, origin="anchor", fitness_stderr=0.002, wall_s=7.0, started_at="2026-11-30T08:30:00+00:00")
    tournament = Tournament(SearchSpace.from_specs({"x": ParameterSpec(target="", values=[1, 2])}), SearchSettings(generations=1))
    for made in lines:
        tournament.add_evaluated(made.params, made.result())

    def summary(*anchors: EvaluationRecord) -> RunSummary:
        return summarise_run(
            tournament, lines, run_id="r", experiment="e", device="cpu", wall_s=30.0, baseline=BASELINE, ended=RunEnd.GENERATIONS, anchors=anchors
        )  # fmt: skip

    without, beside = summary(), summary(anchor)
    assert (beside.n_evaluations, beside.n_deployments, without.n_deployments) == (2, 3, 2)
    assert beside.baseline is not None
    assert beside.baseline.n_evaluations == 1
    assert beside.costs.anchors_s == 7.0
    assert beside.costs.orchestration_s == without.costs.orchestration_s - 7.0
    assert (beside.between_deployments or 0.0) > 5 * (without.between_deployments or 0.0)
    assert without.ties == ()
    assert len(beside.ties) == 2, "what one configuration differs by is more than what the two differ by"
    assert RunSummary.parse(beside.dump(), "summary") == beside
