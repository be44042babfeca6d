"""The benchmark of searchers, on a landscape made here."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.benchmarks.searchers import made_up, plateaus
from tests.benchmarks.searchers.__main__ import main
from tests.benchmarks.searchers.landscapes import load
from tests.benchmarks.searchers.peers import make
from tests.benchmarks.searchers.replay import replay
from tests.support.runs import ARTIFACTS, EXPERIMENT, WHOLE
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import SearchSettings

needs_smac = pytest.mark.skipif(importlib.util.find_spec("smac") is None, reason="the extra `benchmarks` is not installed")


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


def test_a_measured_run_of_this_program_is_a_landscape(tmp_path: Path) -> None:
    folder = tmp_path / "spica" / "20261124-120000"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("parameters:\n  size: {values: [tiny, base, small], kind: ordinal}\n  share: {values: [0.4, 0.5]}\n")
    rest = {"generation": 0, "origin": "fresh", "metrics": {}, "n_windows": 2, "duration_s": {}, "engine_reused": False}
    rows = [("tiny", 0.4, 0.5), ("base", 0.4, 0.8), ("base", 0.4, 0.6), ("small", 0.5, None)]
    (folder / "gen_0_candidates.jsonl").write_text("".join(json.dumps(rest | {
        "candidate_id": f"g0-c{i}", "params": {"size": size, "share": share}, "fitness": fitness, "status": "ok" if fitness else "failed",
        "failure": None if fitness else {"kind": "oom"}}) + "\n" for i, (size, share, fitness) in enumerate(rows)))
    landscape = load(str(folder))
    assert landscape.family == "spica"
    assert landscape.space.parameters["size"].values == ("tiny", "base", "small")
    assert landscape.optimum == landscape.cost({"size": "base", "share": 0.4}) == pytest.approx(1 / 0.7)
    assert math.isnan(landscape.cost({"size": "small", "share": 0.5}))
    assert not landscape.allowed({"size": "tiny", "share": 0.5})


def test_the_default_space_as_this_program_measured_it_is_a_landscape() -> None:
    folder = ARTIFACTS / EXPERIMENT / WHOLE
    landscape, summary = load(str(folder)), json.loads((folder / "summary.json").read_text())
    assert len(landscape.configurations or ()) == 24
    assert landscape.optimum == landscape.cost(summary["best"]["params"]) == pytest.approx(1 / summary["best"]["fitness"])


def test_a_table_whose_best_is_zero_is_scaled_to_have_a_ratio(tmp_path: Path) -> None:
    path = tmp_path / "zero.json"
    path.write_text(json.dumps({"tune_params_keys": ["x"], "cache": {str(x): {"x": x, "time": float(x)} for x in range(5)}}))
    landscape = load(str(path))
    assert [landscape.cost({"x": x}) for x in range(5)] == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_a_file_that_is_nested_without_end_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text('{"tune_params_keys": ["x"], "cache": ' + "[" * 100_000)
    found = CliRunner().invoke(main, [str(path), "--quiet"])
    assert found.exit_code == 2, found.output
    assert "expected JSON with tune_params_keys and cache" in found.output


@pytest.mark.parametrize("name", ["rzero", "classic"])
def test_r_zero_is_planned_for_the_budget_and_for_no_generation_more(file: Path, name: str) -> None:
    landscape = load(str(file))
    agent, evaluations = make(name, landscape, budget=17, batch=1, seed=0), 0
    while (params := agent.ask()) is not None:
        agent.tell(params, landscape.cost(params))
        evaluations += 1
    assert 17 <= evaluations < 17 + SearchSettings().tournament_size


@pytest.mark.parametrize(("name", "text"), [("kept", Path.read_text), ("kept.gz", lambda path: gzip.decompress(path.read_bytes()).decode())])
def test_runs_are_kept_and_none_is_made_twice_also_on_several_cores(file: Path, tmp_path: Path, name: str, text: Callable[[Path], str]) -> None:
    def compare(seeds: int, jobs: int, kept: str) -> str:
        arguments = [str(file), "--searchers", "classic", "--budgets", "12", "--jobs", str(jobs), "--seeds", str(seeds), "--quiet"]
        found = CliRunner().invoke(main, [*arguments, "--runs", str(tmp_path / kept), "--json", str(tmp_path / "out.json")])
        assert found.exit_code == 0, found.output
        return (tmp_path / "out.json").read_text()

    compare(2, 1, name)
    first = text(tmp_path / name)
    table = compare(4, 2, name)
    assert text(tmp_path / name).startswith(first)
    assert len(text(tmp_path / name).splitlines()) == 4

    def medians(out: str) -> list[tuple[float, float, float]]:
        return [(row["median"], row["ci_low"], row["ci_high"]) for row in json.loads(out)]

    assert medians(compare(4, 1, "anew")) == medians(table)


def _written(path: Path, values: list[Any], costs: list[Any]) -> Path:
    """A landscape of one parameter, `a`."""
    path.parent.mkdir(exist_ok=True)
    cache = {str(i): {"a": value, "time": cost} for i, (value, cost) in enumerate(zip(values, costs, strict=True))}
    path.write_text(json.dumps({"tune_params_keys": ["a"], "cache": cache}))
    return path


def _rows(files: list[Path], out: Path, *options: str) -> list[dict[str, Any]]:
    """What the command finds with `random` on each after one evaluation."""
    arguments = [*map(str, files), "--searchers", "random", "--budgets", "1", "--seeds", "4", "--jobs", "1", "--quiet", "--details", str(out)]
    found = CliRunner().invoke(main, [*arguments, *options])
    assert found.exit_code == 0, found.output
    return json.loads(out.read_text())


def test_two_files_of_the_same_name_are_two_landscapes(tmp_path: Path) -> None:
    """Also where runs are kept."""
    steep, flat = _written(tmp_path / "one" / "k.json", [1, 2, 3], [1.0, 4.0, 9.0]), _written(tmp_path / "two" / "k.json", [1, 2, 3], [100.0, 101.0, 102.0])
    out, table = tmp_path / "out.json", tmp_path / "table.md"
    kept = ["--runs", str(tmp_path / "kept.jsonl")]
    both = _rows([steep, flat], out, *kept, "--markdown", str(table))
    assert [row["median"] for row in both] == [row["median"] for file in (steep, flat) for row in _rows([file], out)]
    assert both[0]["median"] > 1.1 > both[1]["median"]
    assert [line.split(" | ")[0] for line in table.read_text().splitlines()[2:]] == [f"| {steep}", f"| {flat}"]
    assert _rows([flat], out, *kept)[0]["median"] == both[1]["median"]
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 8


def test_kept_runs_without_a_fingerprint_match_by_the_landscapes_name(tmp_path: Path) -> None:
    file, kept, out = _written(tmp_path / "k.json", [1, 2, 3], [1.0, 4.0, 9.0]), tmp_path / "kept.jsonl", tmp_path / "out.json"
    setting = {"landscape": "k", "searcher": "random", "budget": 1, "batch": 1, "noise": 0.0}
    run = {"best": [7.0], "winner": 7.0, "ms_per_proposal": 0.0, "repeats": 0}
    kept.write_text("".join(json.dumps({"setting": setting, "seed": seed, "run": run}) + "\n" for seed in range(4)))
    assert _rows([file], out, "--runs", str(kept))[0]["median"] == 7.0
    assert len(kept.read_text().splitlines()) == 4


@pytest.mark.parametrize("name", ["kept.jsonl", "kept.jsonl.gz"])
def test_a_comparison_that_was_killed_while_it_wrote_goes_on(tmp_path: Path, name: str) -> None:
    file, kept, out = _written(tmp_path / "k.json", [1, 2, 3], [1.0, 4.0, 9.0]), tmp_path / name, tmp_path / "out.json"
    expected = [row["median"] for row in _rows([file], out, "--runs", str(kept))]
    kept.write_bytes(kept.read_bytes()[:-40])
    assert [row["median"] for row in _rows([file], out, "--runs", str(kept))] == expected
    text = gzip.decompress(kept.read_bytes()).decode() if name.endswith(".gz") else kept.read_text()
    assert sorted(json.loads(line)["seed"] for line in text.splitlines()) == [0, 1, 2, 3]


@pytest.mark.parametrize("content", [b"notes of somebody\n", b'{"setting": 1}\n{"setting', b"\xff\xfe"])
def test_a_file_that_holds_no_runs_is_refused_and_left_as_it_is(file: Path, tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    found = CliRunner().invoke(main, [str(file), "--runs", str(other)])
    assert found.exit_code == 2
    assert f"runs {other}" in found.output
    assert other.read_bytes() == content


def test_where_nothing_that_runs_is_found_the_winner_is_missing(tmp_path: Path) -> None:
    file, table = _written(tmp_path / "k.json", list(range(50)), [1.0, *["fail"] * 49]), tmp_path / "table.md"
    row = _rows([file], tmp_path / "out.json", "--markdown", str(table))[0]
    assert row["median"] is row["winner_over_best"] is None
    assert table.read_text().splitlines()[2].split(" | ")[-2] == "-"
    found = CliRunner().invoke(main, [str(file), "--searchers", "random", "--budgets", "1", "--seeds", "2", "--jobs", "1"])
    assert "winner -" in found.output
    assert "nan" not in found.output


def test_a_searcher_that_is_named_twice_runs_once(file: Path, tmp_path: Path) -> None:
    assert [row["searcher"] for row in _rows([file], tmp_path / "out.json", "--searchers", "random,random")] == ["random"]


@pytest.mark.parametrize("searcher", ["random", "classic", "rzero"])
def test_a_replay_ends_at_the_optimum_of_a_small_space(file: Path, searcher: str) -> None:
    run = replay(load(str(file)), searcher, 60, 4, 0.0, seed=1)
    assert run.best[-1] == run.winner == 1.0
    assert all(a >= b for a, b in itertools.pairwise(run.best))
    if searcher == "random":
        assert run.repeats == 0


@needs_smac
def test_smac_continues_at_random_when_a_small_space_has_nothing_new(tmp_path: Path) -> None:
    run = replay(load(str(_written(tmp_path / "two.json", [1, 2], [3.0, 2.0]))), "smac", 8, 1, 0.0, seed=0)
    assert run.best[-1] == run.winner == 1.0
    assert run.repeats == 0


@needs_smac
def test_smac_finds_the_same_where_costs_are_huge_tiny_or_of_another_unit(tmp_path: Path) -> None:
    def best(unit: float) -> list[float]:
        costs = ["fail" if i % 3 else unit * (1.0 + i // 8) for i in range(40, 0, -1)]  # many of the lowest are the same
        file = _written(tmp_path / f"{unit:g}.json", list(range(40)), costs)
        return [round(value, 9) for value in replay(load(str(file)), "smac", 12, 1, 0.0, seed=3).best]

    huge = best(1e12)
    assert huge == best(1e200) == best(1e-12)
    assert huge[-1] < math.inf


@needs_smac
def test_the_same_command_finds_the_same_with_smac(tmp_path: Path) -> None:
    names = [f"{size}-{mode}" for size in range(12) for mode in "abcd"]
    file = _written(tmp_path / "names.json", names, [1.0 + (7 * i) % 48 for i in range(48)])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}

    def curves(kept: Path) -> list[list[float]]:
        command = [sys.executable, "-m", "tests.benchmarks.searchers", str(file), "--searchers", "smac", "--budgets", "12", "--seeds", "2", "--jobs", "2"]
        subprocess.run([*command, "--runs", str(kept), "--quiet"], check=True, env=environment, cwd=Path(__file__).parents[3], capture_output=True)
        return [json.loads(line)["run"]["best"] for line in kept.read_text().splitlines()]

    assert curves(tmp_path / "first.jsonl") == curves(tmp_path / "second.jsonl")


def test_the_command_writes_its_table(file: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out.json", tmp_path / "table.md"
    options = ["--searchers", "random,rzero", "--budgets", "5,10", "--seeds", "3", "--noise", "0.1", "--json", str(out), "--markdown", str(table)]
    found = CliRunner().invoke(main, [str(file), *options])
    assert found.exit_code == 0, found.output
    rows = json.loads(out.read_text())
    assert [(row["searcher"], row["budget"]) for row in rows] == [("random", 5), ("random", 10), ("rzero", 5), ("rzero", 10)]
    assert all(1.0 <= row["ci_low"] <= row["median"] <= row["ci_high"] for row in rows)
    assert all(set(row) == {"file", "searcher", "budget", "median", "ci_low", "ci_high", "ms_per_proposal"} for row in rows)
    lines = table.read_text().splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["random", "rzero"]
    assert f"{rows[0]['median']:.3f} (" in lines[2]


@pytest.mark.parametrize("arguments", [
    ["nowhere.json"], ["hpobench:car", "--searchers", "guess"], ["hpobench:car", "--searchers", ""], ["hpobench:car", "--budgets", "a"],
    ["hpobench:car", "--noise", "nan"], ["hpobench:car", "--noise", "inf"],
    *(["hpobench:car", option, "no_such_folder/out"] for option in ("--json", "--details", "--runs", "--markdown", "--plot")),
])
def test_bad_input_is_one_line_and_exit_2(arguments: list[str]) -> None:
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 2
    assert "Traceback" not in found.output


@pytest.mark.parametrize(("values", "costs", "message"), [
    ([True, 1], [2.0, 3.0], "parameter a: both true and 1,"),
    ([0.0, False, "x"], [2.0, 3.0, 4.0], "parameter a: both false and 0,"),
    ([None, 1], [2.0, 3.0], "parameter a: null; allowed are"),
    ([[1], [2]], [2.0, 3.0], r"parameter a: \[1\]; allowed are"),
    ([1, math.nan], [2.0, 3.0], "parameter a: NaN; allowed are"),
    ([1, 2], [10**400, 3.0], "too large"),
])
def test_values_that_no_searcher_could_use_are_refused_by_name(tmp_path: Path, values: list[Any], costs: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=f"odd.json: .*{message}"):
        load(str(_written(tmp_path / "odd.json", values, costs)))


def test_true_beside_numbers_and_an_always_null_parameter_are_accepted(tmp_path: Path) -> None:
    assert len(load(str(_written(tmp_path / "mixed.json", [True, 2, 0.5, "x"], [1.0, 2.0, 3.0, 4.0]))).configurations or ()) == 4
    path = tmp_path / "null.json"
    path.write_text(json.dumps({"tune_params_keys": ["a", "b"], "cache": {str(i): {"a": i, "b": None, "time": 1.0 + i} for i in range(3)}}))
    assert load(str(path)).space.names == ["a"]


def test_a_compressed_file_that_is_cut_short_or_damaged_is_refused(file: Path, tmp_path: Path) -> None:
    whole = gzip.compress(file.read_bytes())
    for content in (whole[:-30], whole[:30] + b"\xff" * 20 + whole[50:]):
        path = tmp_path / "made_here.json.gz"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"landscape .*made_here.json.gz"):
            load(str(path))


@pytest.mark.parametrize("name", made_up.MADE)
def test_of_what_is_made_up_to_fail_half_or_more_fails_and_something_runs(name: str) -> None:
    landscape = load(f"failing:{name}")
    costs = [landscape.cost(dict(zip(landscape.space.names, key, strict=True))) for key in landscape.configurations or ()]
    assert 0.45 < np.mean(np.isnan(costs)) < 0.97
    assert landscape.optimum == np.nanmin(costs) > 0.0


@pytest.mark.parametrize("name", plateaus.MADE)
def test_much_of_what_is_made_up_as_a_plateau_costs_the_same(name: str) -> None:
    landscape = load(f"plateau:{name}")
    costs = [landscape.cost(dict(zip(landscape.space.names, key, strict=True))) for key in landscape.configurations or ()]
    assert Counter(costs).most_common(1)[0][1] > len(costs) / 3
    assert min(costs) == landscape.optimum == 1.0


def test_what_is_not_made_up_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="failing:nothing: allowed are failing:product"):
        load("failing:nothing")


def test_a_file_that_is_no_landscape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="expected JSON with tune_params_keys"):
        load(str(path))


@pytest.mark.parametrize(("names", "rows", "message"), [
    (["a", "a"], [{"a": 1}, {"a": 2}], 'tune_params_keys: "a" twice'),
    (["a", "b"], [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}, {"a": 1, "b": "x"}], 'cache: {"a": 1, "b": "x"} twice'),
])
def test_a_parameter_or_a_configuration_that_is_there_twice_is_said(tmp_path: Path, names: list[str], rows: list[dict[str, Any]], message: str) -> None:
    path = tmp_path / "twice.json"
    path.write_text(json.dumps({"tune_params_keys": names, "cache": {str(i): row | {"time": 1.0 + i} for i, row in enumerate(rows)}}))
    with pytest.raises(UserError, match=re.escape(message)):
        load(str(path))
