"""How honest the intervals are: the short form of `python -m tests.benchmarks.coverage`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from tests.benchmarks.coverage.__main__ import main
from tests.benchmarks.coverage.recorded import exact_interval, predicted, prior, read
from tests.benchmarks.coverage.simulated import SETTINGS, simulate, simulate_many
from tests.support import made_run
from tune_gpu.search.evidence import PRIOR_FREEDOM, PRIOR_RATIO, Evidence

DATA = Path(__file__).parents[2] / "data"
SOAK = DATA / "soak_quiet.jsonl"
HELD_OUT = DATA / "soak_idle.jsonl"
"""Measured after the prior had been fitted to the other runs."""
RUNS = [path for path in sorted((DATA / "runs" / "spica_gpu_allocation").iterdir()) if path.is_dir()]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """One run of each setting."""
    out = tmp_path_factory.mktemp("coverage") / "out.json"
    assert CliRunner().invoke(main, ["--simulate", str(len(SETTINGS)), "--json", str(out)]).exit_code == 0
    return {row["runs"]: row for row in json.loads(out.read_text())["simulated"]}


def test_a_95_pct_prediction_interval_holds_95_pct(table: dict[str, dict[str, float]]) -> None:
    assert 0.93 <= table["all"]["coverage"] <= 0.97


def test_the_intervals_are_little_wider_than_an_oracles(table: dict[str, dict[str, float]]) -> None:
    assert 1.0 <= table["all"]["median width over the oracle's"] <= 1.3


def test_equal_configurations_are_seldom_called_different(table: dict[str, dict[str, float]]) -> None:
    assert table["all"]["equal pairs called different"] <= 0.05
    assert table["all"]["equals called different from the winner"] <= 0.05


def test_a_best_three_deviations_ahead_is_named(table: dict[str, dict[str, float]]) -> None:
    assert table["all"]["true best named"] >= 0.8
    assert table["design soak"]["true best told apart from all"] >= 0.8, "six deployments of each are enough to be sure of it"


def test_the_windows_alone_would_not_have_covered() -> None:
    """The error of one deployment's windows, which was printed, holds far fewer of the next deployments: the test can fail."""
    covered = [inside for outcome in simulate_many(54) for inside in outcome.covered]
    naive = []
    for deployments in (read(SOAK), *(read(run) for run in RUNS)):
        pairs = [(a, b) for i, a in enumerate(deployments) for b in deployments[i + 1 :] if a.key == b.key]
        naive += [abs(a.value - b.value) <= 1.96 * np.hypot(a.stderr or 0.0, b.stderr or 0.0) for a, b in pairs]
    assert np.mean(naive) < 0.85 < np.mean(covered)


def test_the_recorded_deployments_lie_in_their_intervals() -> None:
    found = [one for path in (SOAK, *RUNS) for one in predicted(read(path))]
    hits = sum(one.inside for one in found)
    low, high = exact_interval(hits, len(found))
    assert len(found) == 42
    assert low <= 0.95 <= high


def test_a_soak_that_no_prior_was_fitted_to_lies_in_its_intervals() -> None:
    found = predicted(read(HELD_OUT))
    hits = sum(one.inside for one in found)
    low, high = exact_interval(hits, len(found))
    assert (hits, len(found)) == (57, 60)
    assert low <= 0.95 <= high
    deployments = read(HELD_OUT)
    pairs = [(a, b) for i, a in enumerate(deployments) for b in deployments[i + 1 :] if a.key == b.key]
    naive = np.mean([abs(a.value - b.value) <= 1.96 * np.hypot(a.stderr or 0.0, b.stderr or 0.0) for a, b in pairs])
    assert naive < 0.85, "by the errors within deployments alone they do not"


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (22, 24), (57, 60)])
def test_the_binomial_interval_is_that_of_clopper_and_pearson(hits: int, n: int) -> None:
    theirs = binomtest(hits, n).proportion_ci(method="exact")
    assert exact_interval(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_prior_is_what_the_recorded_runs_make_likely() -> None:
    found = prior([read(path) for path in (SOAK, *RUNS)])
    ratio, log = found[PRIOR_FREEDOM]
    assert log > max(value for _, value in found.values()) - 1.0
    assert ratio == pytest.approx(PRIOR_RATIO, rel=0.25)


def test_a_simulated_run_is_the_same_again() -> None:
    assert simulate(SETTINGS[5], 3) == simulate(SETTINGS[5], 3)


def test_a_run_folder_counts_its_anchors_too(tmp_path: Path) -> None:
    line = made_run.line("g0-c0", {"a": 1}, 0.5, origin="baseline", fitness_stderr=0.01, n_windows=3, started_at="2026-11-30T08:00:00+00:00").dump()
    failed = {**line, "params": {"a": 2}, "fitness": None}
    (tmp_path / "gen_0_candidates.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(failed)}\n")
    (tmp_path / "anchors.jsonl").write_text(json.dumps({**line, "params": {"a": 1.0}, "fitness": 0.52, "started_at": "2026-11-30T09:00:00+00:00"}) + "\n")
    deployments = read(tmp_path)
    assert [each.anchor for each in deployments] == [True, True]
    assert deployments[1].at - deployments[0].at == 3600.0
    assert len(predicted(deployments)) == 2
    assert len(Evidence(deployments).keys) == 1


@pytest.mark.parametrize("arguments", [[], ["EMPTY"]])
def test_nothing_to_count_is_refused_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path) for _ in arguments])
    assert result.exit_code == 2
    assert "Give" in result.output
