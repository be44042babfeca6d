"""A run whose candidates were proposed as soon as a place was free, and which is killed: resumed, it goes on from there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.ray.noop import AtOnceTrainable
from tests.ray.noop_run import experiment
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.experiment.run import Experiment

pytestmark = pytest.mark.ray

EVALUATIONS, KILLED_AFTER = 2 + 5 * 4, 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    os.environ.update(TUNE_DISABLE_STRICT_METRIC_CHECKING="1", TUNE_GLOBAL_CHECKPOINT_S="0", RAY_AIR_NEW_OUTPUT="0")
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield tmp_path_factory.mktemp("asynchronous")
    ray.shutdown()


def asynchronous(folder: Path) -> Experiment:
    settings = ["search.algorithm=rzero", "search.asynchronous=true", "search.generations=6", "ray.max_concurrent_trials=3"]
    return experiment(folder, AtOnceTrainable, "cpu", 0, *settings)


def test_a_killed_asynchronous_run_resumes_measurements_and_proposals(folder: Path) -> None:
    whole = asynchronous(folder / "whole")
    whole.run()
    lines = sorted(whole.results.lines, key=lambda line: line.told_after or 0)
    assert [line.told_after for line in lines] == list(range(EVALUATIONS))
    assert any((line.asked_after or 0) < (line.told_after or 0) for line in lines), "some ran side by side"

    killed = asynchronous(folder / "killed")
    in_flight = [line for line in lines[KILLED_AFTER:] if (line.asked_after or 0) <= KILLED_AFTER]
    for line in lines[:KILLED_AFTER]:
        killed.folder.append_candidate(line)
    for line in [*lines[:KILLED_AFTER], *in_flight]:
        killed.folder.append_proposal(whole.tournament.candidate(line.candidate_id))

    resumed = Experiment(killed.config, killed.choice, killed.folder, killed.progress, Refusals())
    resumed.trainable = AtOnceTrainable
    resumed.run()
    gone_on = sorted(resumed.results.lines, key=lambda line: line.told_after or 0)
    assert gone_on[:KILLED_AFTER] == lines[:KILLED_AFTER]
    assert len({line.candidate_id for line in gone_on}) == len(gone_on) == EVALUATIONS
    assert in_flight
    for line in in_flight:
        assert resumed.tournament.candidate(line.candidate_id) == whole.tournament.candidate(line.candidate_id)


def test_the_fitness_can_be_an_objective_and_such_a_run_be_resumed(folder: Path) -> None:
    settings = ["search.algorithm=rzero", "search.generations=2", "search.objectives={fitness: max}"]
    whole = experiment(folder / "front", AtOnceTrainable, "cpu", 0, *settings)
    check_config(load_config("spica_gpu_allocation", settings, None))
    summary = whole.run()
    assert summary.best
    assert [line.objectives for line in whole.results.lines] == [{"fitness": line.fitness} for line in whole.results.lines]
    again = Experiment(whole.config, whole.choice, whole.folder, whole.progress, Refusals()).run()
    assert again.best == summary.best


def test_after_the_search_ctrl_c_reaches_the_program_again(folder: Path) -> None:
    """Ray Tune leaves its handler behind, which takes the next Ctrl-C: that of a user who stops the confirmation."""
    before = signal.getsignal(signal.SIGINT)
    experiment(folder / "signals", AtOnceTrainable, "cpu", 0).run()
    assert signal.getsignal(signal.SIGINT) is before
