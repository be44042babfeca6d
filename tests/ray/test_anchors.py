"""The baseline is deployed again after the search, in a new process, and no tournament knows of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from tests.ray.noop import ANCHOR, DRIVER, LOG, NotedTrainable, noted
from tests.ray.noop_run import experiment
from tune_gpu.artifacts.records.summary import RunSummary
from tune_gpu.artifacts.run_folder import ANCHORS
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.experiment.run import Experiment

pytestmark = pytest.mark.ray

BASELINE = {"x": 500}
SETTINGS = ["search.generations=2", "ray.max_retries=1"]
N_EVALUATIONS = 2 + 4
Run = Callable[..., tuple[Experiment, RunSummary]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One Ray for all searches, whose trials write their log into this folder and find in it how an anchor fares."""
    folder = tmp_path_factory.mktemp("anchors")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TUNE_DISABLE_STRICT_METRIC_CHECKING": "1", "TUNE_GLOBAL_CHECKPOINT_S": "0", "RAY_AIR_NEW_OUTPUT": "0"}.items():
            patch.setenv(name, value)
        variables = {LOG: str(folder / "log"), ANCHOR: str(folder / "fate"), DRIVER: str(os.getpid())}
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": variables})
        yield folder
        ray.shutdown()


@pytest.fixture
def run(told: Path, tmp_path: Path) -> Run:
    """Run or resume a search to its end. The caller decides what happens to the anchor."""
    (told / "log").unlink(missing_ok=True)

    def to_its_end(fate: str, *settings: str, resumed: Experiment | None = None) -> tuple[Experiment, RunSummary]:
        (told / "fate").write_text(fate)
        if resumed is None:
            made = experiment(tmp_path, NotedTrainable, "cpu", 0, *SETTINGS, *settings, baseline=BASELINE)
        else:
            made = Experiment(resumed.config, resumed.choice, resumed.folder, resumed.progress, Refusals())
            made.trainable = NotedTrainable
        return made, made.run()

    return to_its_end


def test_the_baseline_is_deployed_again_in_a_process_of_its_own(run: Run, told: Path) -> None:
    made, summary = run("ok", "search.anchors=2")
    assert (summary.n_evaluations, summary.n_deployments) == (N_EVALUATIONS, N_EVALUATIONS + 2)
    assert len(made.tournament.history) == N_EVALUATIONS, "no tournament knows of them"
    assert [(line.candidate_id, line.params, line.fitness, line.engine_reused) for line in made.folder.anchors()] == [
        ("anchor-1", BASELINE, 1.0 / 201.0, False),
        ("anchor-2", BASELINE, 1.0 / 201.0, False),
    ]
    deployed = noted(told / "log")
    again = [each["pid"] for each in deployed if each["origin"] == "anchor"]
    assert len({*again}) == 2
    assert not {*again} & {each["pid"] for each in deployed if each["origin"] != "anchor"}, "an engine that still runs would not be a new start"
    assert summary.costs.anchors_s >= 0.0
    assert "deployed 4 times: fitness 0.0050, " in (summary.repeated or "")


def test_an_interrupted_anchor_is_measured_on_resume_and_then_never_again(run: Run, told: Path) -> None:
    stopped, summary = run("ctrl-c")
    assert (summary.ended, summary.n_evaluations, summary.n_deployments) == ("interrupted", N_EVALUATIONS, N_EVALUATIONS)
    assert "interrupted" in (summary.repeated or "")
    assert not (stopped.folder.path / ANCHORS).exists()
    resumed, summary = run("ok", resumed=stopped)
    assert (summary.ended, summary.n_evaluations, summary.n_deployments) == ("generations", N_EVALUATIONS, N_EVALUATIONS + 1)
    begun = len(noted(told / "log"))
    assert begun == N_EVALUATIONS + 2, "of the search, once, and of the anchor twice"
    _, again = run("ok", resumed=resumed)
    assert (again.n_deployments, len(noted(told / "log"))) == (N_EVALUATIONS + 1, begun)


def test_an_anchor_that_fails_is_tried_again_and_kept_with_its_failure(run: Run) -> None:
    made, summary = run("port_conflict")
    [line] = made.folder.anchors()
    assert line.failure is not None
    assert (line.failure.kind, line.n_retries) == ("port_conflict", 1)
    assert "deployed again at the end it was not measured (port_conflict, told to)" in (summary.repeated or "")
    assert summary.best is not None
