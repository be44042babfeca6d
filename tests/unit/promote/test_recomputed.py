"""A verdict is what the recorded deployments give; a file that says otherwise is refused, and the difference is named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.made_run import FAST, QUICK, RUN_ID, made_run
from tests.unit.promote.compared import replicates, write_comparison
from tune_gpu.artifacts.finished_run import FinishedRun, read_finished_run
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Metric, Protocol
from tune_gpu.metrics import CATALOGUE
from tune_gpu.promote.evidence import evidence_of
from tune_gpu.promote.recomputed import recomputed

RECORDED = Path(__file__).resolve().parents[2] / "data" / "runs"


def read(root: Path, *overrides: str) -> FinishedRun:
    return read_finished_run(str(root), RUN_ID, list(overrides), "promote")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = made_run(tmp_path)
    write_comparison(made)
    return made


def changed(folder: RunFolder, name: str, **change: Any) -> None:
    folder.write_json(name, json.loads((folder.path / name).read_text()) | change)


def difference(folder: RunFolder, *overrides: str) -> str:
    found = evidence_of(read(folder.root, *overrides)).difference
    assert found is not None
    return found


def test_a_run_that_was_really_recorded_gives_its_own_verdict_again() -> None:
    run = read_finished_run(str(RECORDED), "20261125-222441", [], "promote")
    found = evidence_of(run)
    stated = json.loads((run.folder.path / "confirmation.json").read_text())
    assert found.difference is None
    assert found.comparison is not None
    for one, other in zip(found.comparison.dump()["findings"], stated["findings"], strict=True):
        known = one["verdict"] != "unknown"
        assert known is (one["metric"] == "voice_turn_ms.p50"), "six turns carry no p95, nor a share of failures, few words no error rate, and nothing else was measured"
        assert one["effect"] is other["effect"] is None or one["effect"].items() >= {key: value for key, value in other["effect"].items() if known or key == "estimate"}.items()
        assert not known or one["verdict"] == other["verdict"]


def test_a_verdict_that_its_deployments_do_not_give_is_named(folder: RunFolder) -> None:
    write_comparison(folder, measured=replicates(winner_ms=1190.0))
    content = json.loads((folder.path / "comparison.json").read_text())
    content["findings"][0] |= {"verdict": "better", "effect": content["findings"][0]["effect"] | {"estimate": -30.0, "ours": 840.0}}
    changed(folder, "comparison.json", confirmed=True, confirmed_why="shown better", findings=content["findings"])
    assert "comparison.json: the file says voice_turn_ms.p95 is better, -30 %" in difference(folder)
    evidence = evidence_of(read(folder.root))
    assert evidence.comparison is not None
    assert evidence.comparison.findings[0].effect is not None
    assert evidence.comparison.findings[0].effect.estimate > -5.0, "the gate goes by the deployments"


def test_a_claim_of_being_confirmed_is_not_enough(folder: RunFolder) -> None:
    write_comparison(folder, measured=replicates(winner_ms=1260.0), confirmed=True, confirmed_why="shown better")
    assert "the file says confirmed, but by its deployments: shown worse than the baseline" in difference(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interval_confidence": 0.5}, "intervals at 0.5 do not belong to a comparison at 0.95"),
        ({"confidence": 0.6, "interval_confidence": round(1 - 0.4 / 12, 6)}, "the file says|confidence of 0.6"),
        ({"device": {"kind": "cuda", "name": "a card"}}, "the file says measured on cuda, but its deployments were on cpu"),
        ({"findings": []}, "the file has findings on nothing"),
    ],
)
def test_what_a_comparison_states_of_itself_is_checked(folder: RunFolder, change: dict[str, Any], message: str) -> None:
    changed(folder, "comparison.json", **change)
    assert any(part in difference(folder) for part in message.split("|"))


def test_deployments_that_are_missing_are_no_evidence(folder: RunFolder) -> None:
    store = folder.path / "comparison.jsonl"
    kept = store.read_text().splitlines(keepends=True)
    store.write_text("".join(kept[:-2]))
    assert "n_deployments=4 for winner, but its deployments give 3" in difference(folder)
    store.unlink()
    assert "comparison.jsonl is missing" in difference(folder)


def test_out_of_memory_events_are_counted_in_the_deployments(folder: RunFolder) -> None:
    store = folder.path / "comparison.jsonl"
    store.write_text(store.read_text().replace('"oom_events": 0', '"oom_events": 1', 1))
    assert "the file says oom_events=0 for winner, but its deployments give 1" in difference(folder)


def test_what_was_deployed_must_be_what_the_configuration_deploys_now(folder: RunFolder) -> None:
    config = folder.path / "config.yaml"
    config.write_text(config.read_text().replace("max_num_seqs: 4", "max_num_seqs: 256"))
    assert "config.yaml has services.vllm.max_num_seqs=256, but the deployments had 4" in difference(folder)


def test_a_secret_that_one_of_them_hides_is_no_difference(folder: RunFolder) -> None:
    store = folder.path / "comparison.jsonl"
    store.write_text(store.read_text().replace('"model": "demo-llm"', '"model": "<redacted>"', 1))
    assert evidence_of(read(folder.root)).difference is None


def test_parameters_that_were_not_deployed_are_named(folder: RunFolder) -> None:
    store = folder.path / "comparison.jsonl"
    store.write_text(store.read_text().replace('"whisper_model_size": "tiny.en"', '"whisper_model_size": "base"', 1))
    assert "was deployed as winner" in difference(folder)
    assert FAST["whisper_model_size"] in difference(folder)


def test_a_confidence_below_the_one_asked_for_is_refused(folder: RunFolder) -> None:
    assert "it was compared at a confidence of 0.95, but confirm.confidence=0.99" in difference(folder, "confirm.confidence=0.99")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[FinishedRun, dict[str, Any]]:
    made = made_run(tmp_path_factory.mktemp("artifacts"))
    content = write_comparison(made)
    return read(made.root), content


@given(data=st.data(), factor=st.floats(0.1, 0.98) | st.floats(1.02, 10.0))
@settings(max_examples=60, deadline=None)
def test_no_stated_estimate_can_be_another(recorded: tuple[FinishedRun, dict[str, Any]], data: st.DataObject, factor: float) -> None:
    run, content = recorded
    content = copy.deepcopy(content)
    finding = data.draw(st.sampled_from([found for found in content["findings"] if found["effect"] and abs(found["effect"]["estimate"]) > 1e-2]))
    key = data.draw(st.sampled_from(["estimate", "ours", "theirs"]))
    finding["effect"][key] *= factor
    _, found = recomputed(run.config, Comparison.parse(content, "comparison.json"), run.folder.path / "comparison.jsonl")
    assert found is not None
    assert finding["metric"] in found


def test_samples_that_are_nested_too_deep_are_refused_in_one_line(folder: RunFolder) -> None:
    path = folder.path / "comparison.jsonl"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(UserError, match=r"comparison.*nested deeper"):
        evidence_of(read(folder.root))


def test_errors_counted_in_characters_give_their_verdict_again(tmp_path: Path) -> None:
    """They were recomputed as word errors: every comparison in Japanese was refused for its unit."""
    made = made_run(tmp_path, overrides=[*QUICK, "workload.audio.source=/clips", "workload.audio.language=ja"])
    write_comparison(made)
    found = evidence_of(read(tmp_path))
    assert found.difference is None
    assert found.comparison is not None
    assert "CER" in {finding.unit for finding in found.comparison.findings}


def test_a_metric_newer_than_the_comparison_is_no_difference(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Metric("answer_tokens", (Protocol.COMPLETION,), "tokens of an answer", "Tokens of an answer", many=True, of_turn="llm.n_tokens")
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    assert evidence_of(read(folder.root)).difference is None


def test_a_measured_metric_that_the_file_leaves_out_is_named(folder: RunFolder) -> None:
    content = json.loads((folder.path / "comparison.json").read_text())
    changed(folder, "comparison.json", findings=[finding for finding in content["findings"] if finding["metric"] != "wer"])
    assert "the file has findings on" in difference(folder)
