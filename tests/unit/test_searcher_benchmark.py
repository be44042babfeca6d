"""The benchmark of searchers, on a landscape made here."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.benchmarks.searchers.__main__ import main
from tests.benchmarks.searchers.landscapes import load
from tests.benchmarks.searchers.replay import replay
from tune_gpu.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """4 x 4 x 2 with one known constraint (x != y) and one configuration that fails."""
    rows = {
        f"{x},{y},{m}": {"x": x, "y": y, "mode": m, "fixed": 1, "time": "RuntimeFailedConfig" if (x, y, m) == (1, 2, "a") else 1.0 + x + 2 * y + (m == "b")}
        for x, y, m in itertools.product((1, 2, 4, 8), (1, 2, 4, 8), "ab") if x != y
    }
    path = tmp_path / "made_here.json"
    path.write_text(json.dumps({"tune_params_keys": ["x", "y", "mode", "fixed"], "objective": "time", "cache": rows}))
    return path


def test_a_landscape_knows_its_constraints_failures_and_optimum(file: Path) -> None:
    landscape = load(str(file))
    assert landscape.space.names == ["x", "y", "mode"]
    assert landscape.optimum == 5.0
    assert not landscape.allowed({"x": 1, "y": 1, "mode": "a"})
    assert landscape.cost({"x": 1, "y": 2, "mode": "a"}) != landscape.cost({"x": 1, "y": 2, "mode": "a"})


@pytest.mark.parametrize("searcher", ["random", "classic", "rzero"])
def test_a_replay_ends_at_the_optimum_of_a_small_space(file: Path, searcher: str) -> None:
    run = replay(load(str(file)), searcher, 60, 4, 0.0, seed=1)
    assert run.best[-1] == run.winner == 1.0
    assert all(a >= b for a, b in itertools.pairwise(run.best))
    if searcher == "random":
        assert run.repeats == 0


def test_the_command_writes_its_table(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    found = CliRunner().invoke(main, [str(file), "--searchers", "random,rzero", "--budgets", "5,10", "--seeds", "3", "--noise", "0.1", "--json", str(out)])
    assert found.exit_code == 0, found.output
    rows = json.loads(out.read_text())
    assert [(row["searcher"], row["budget"]) for row in rows] == [("random", 5), ("random", 10), ("rzero", 5), ("rzero", 10)]
    assert all(1.0 <= row["ci_low"] <= row["median"] <= row["ci_high"] for row in rows)


@pytest.mark.parametrize("arguments", [["nowhere.json"], ["hpobench:car", "--searchers", "guess"], ["hpobench:car", "--budgets", "a"]])
def test_bad_input_is_one_line_and_exit_2(arguments: list[str]) -> None:
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 2
    assert "Traceback" not in found.output


def test_a_file_that_is_no_landscape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="expected JSON with tune_params_keys"):
        load(str(path))
