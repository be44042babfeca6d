"""A comparison says where its arms come from, and adds to a finished run under a name of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.made_run import EXPERIMENT, FAST, QUICK, RUN_ID, SLOW, made_run
from tests.unit.promote.compared import replicates, write_comparison
from tune_gpu.artifacts.finished_run import read_finished_run
from tune_gpu.artifacts.reading import read_run
from tune_gpu.artifacts.records.comparison import ArmSource, Comparison
from tune_gpu.artifacts.records.ends import ComparisonEnd
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.compare import ComparisonRequest
from tune_gpu.cli.main import main
from tune_gpu.compare.confirm import BASELINE, WINNER
from tune_gpu.compare.rounds import Outcome
from tune_gpu.compare.sequential import interim_alpha
from tune_gpu.compare.setup import make_terms
from tune_gpu.compare.store import ReplicateStore
from tune_gpu.promote.evidence import evidence_of
from tune_gpu.promote.gate import TargetDevice, conditions
from tune_gpu.report.data import report_data
from tune_gpu.report.page import as_html

BASELESS = [*(setting for setting in QUICK if not setting.startswith("baseline.")), "~baseline"]


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments without services: the winner takes 840 ms, the other arm 1200 ms."""

    def measure(request: ComparisonRequest, kind: str, _print_line: object) -> tuple[Outcome, None]:
        made = [replace(replicate, arm=WINNER if replicate.arm == WINNER else request.theirs) for replicate in replicates()]
        terms = make_terms(request.run.config, kind, request.arms, request.rules.windows)
        store = ReplicateStore(request.run.folder.path / f"{request.file}.jsonl", terms)
        store.path.unlink(missing_ok=True)
        for replicate in made:
            store.append(replicate)
        return Outcome(ComparisonEnd.DECIDED, "every difference asked for is shown or ruled out", 4, interim_alpha(2, 0.05), tuple(made), 80.0), None

    monkeypatch.setattr("tune_gpu.cli.compare._measure", measure)


def compare(root: Path, *arguments: str) -> str:
    settings = [f"run.artifacts_dir={root}", "confirm.metric=voice_turn_ms.p50"]
    done = CliRunner().invoke(main, ["compare", RUN_ID, *arguments, *settings])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def made(folder: RunFolder, pattern: str = "comparison-*.json") -> tuple[str, Comparison]:
    (path,) = folder.path.glob(pattern)
    return path.name, Comparison.parse(json.loads(path.read_text()), path)


def winner_file(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "winners" / f"{EXPERIMENT}.json").read_text())
    return content


def confirmed(root: Path) -> Any:
    run = read_finished_run(str(root), RUN_ID, ["confirm.metric=voice_turn_ms.p50"], "promote")
    found = conditions(evidence_of(run), TargetDevice("cpu", None, 0.0), run.config.promote)
    return next(condition for condition in found if condition.name == "confirmed")


def test_a_given_baseline_outside_the_space_is_labelled_everywhere(tmp_path: Path) -> None:
    """It was compared under the name of the run's own baseline, without a word."""
    folder = made_run(tmp_path)
    output = compare(tmp_path, "--baseline", "vllm_memory_util=0.33")
    label = "from --baseline, outside the space: vllm_memory_util=0.33"
    assert f"given baseline ({label}): vllm_memory_util=0.33" in output, "the arm's line"
    assert f"winner against given baseline ({label})" in output, "the table"
    name, content = made(folder)
    assert content.sentence.endswith(f", against given baseline ({label})")
    assert content.sentence in output
    assert (content.our_arm.source, content.our_arm.outside) == (ArmSource.WINNER, {})
    assert (content.their_arm.source, content.their_arm.outside) == (ArmSource.GIVEN_BASELINE, {"vllm_memory_util": 0.33})
    assert content.confirmed_why.startswith("shown better than the baseline given by --baseline: ")
    assert name in output


def test_an_arm_of_against_is_labelled(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    output = compare(tmp_path, "--against", "whisper_cores=0-1")
    _, content = made(folder)
    assert (content.theirs, content.their_arm.source) == ("other", ArmSource.AGAINST)
    assert "outside the space" not in content.sentence
    assert "other (from --against): " in output
    assert "shown better than other: " in content.confirmed_why


def test_the_runs_own_arms_have_no_label(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    output = compare(tmp_path)
    _, content = made(folder, "comparison.json")
    assert [arm.source for arm in content.arms.values()] == [ArmSource.WINNER, ArmSource.BASELINE]
    assert "a budget of 1800 s holds about 12, a verdict needs 3" in output
    assert "a budget of 5 s holds about 0, a verdict needs 3" in compare(tmp_path, "--budget-s", "5")
    assert "from --" not in output
    assert "against" not in content.sentence
    assert compare(tmp_path, "--baseline", f"vllm_memory_util={SLOW['vllm_memory_util']}").count("from --") == 0, "it is the run's own"
    assert not list(folder.path.glob("comparison-*.json"))


def test_only_the_comparisons_own_files_are_added_to_a_run(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    write_comparison(folder, "confirmation")
    compare(tmp_path)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert winner_file(tmp_path)["confirmation"]["file"] == "comparison.json"
    own = winner_file(tmp_path)
    compare(tmp_path, "--baseline", "vllm_memory_util=0.33")
    compare(tmp_path, "--baseline", "vllm_memory_util=0.34")
    compare(tmp_path, "--against", "vllm_memory_util=0.34")
    after = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert len([path for path in after if path.match("comparison-*.json")]) == 3
    assert winner_file(tmp_path) == own, "it rests on the comparison with the run's own baseline"


def test_a_given_baseline_confirms_nothing_for_a_run_that_has_one(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    output = compare(tmp_path, "--baseline", "vllm_memory_util=0.33")
    _, content = made(folder)
    assert not content.confirmed
    assert content.decision is None
    assert f"Promote goes by the run's own baseline: tune-gpu compare {RUN_ID}" in output
    assert confirmed(tmp_path).said == "the winner was never compared with the baseline: run tune-gpu compare"
    compare(tmp_path)
    assert confirmed(tmp_path).holds


def test_a_run_without_a_baseline_is_confirmed_against_a_given_one(tmp_path: Path) -> None:
    folder = made_run(tmp_path, overrides=BASELESS)
    given = ",".join(f"{name}={json.dumps(value)}" for name, value in SLOW.items() if name != "vllm_memory_util")
    output = compare(tmp_path, "--baseline", f"vllm_memory_util=0.33,{given}")
    name, content = made(folder)
    assert content.confirmed
    assert "confirmed: true; shown better than the baseline given by --baseline" in output
    assert winner_file(tmp_path)["confirmation"]["file"] == name
    found = confirmed(tmp_path)
    assert found.holds
    assert "(against {'vllm_memory_util': 0.33" in found.said
    assert "from --baseline, outside the space: vllm_memory_util=0.33)" in found.said
    record = read_run(tmp_path, RUN_ID)
    assert record.evidence == content
    assert "(from --baseline, outside the space: vllm_memory_util=0.33)" in " ".join(as_html(report_data(record)).split())


def test_a_baseline_under_the_name_of_the_runs_own_is_no_evidence(tmp_path: Path) -> None:
    """An older program kept a given baseline in comparison.json."""
    folder = made_run(tmp_path)
    content = write_comparison(folder)
    content["arms"][BASELINE]["params"] = SLOW | {"vllm_memory_util": 0.33}
    folder.write_json("comparison.json", content)
    run = read_finished_run(str(tmp_path), RUN_ID, [], "promote")
    assert "its baseline is {'vllm_memory_util': 0.33" in (evidence_of(run).difference or "")
    assert run.winner == FAST
