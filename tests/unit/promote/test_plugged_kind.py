"""The winner of a kind that somebody else's package has as an entry point is deployed and undone by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.support.made_run import DEVICE, RUN_ID, line
from tests.support.plugged import plug
from tests.unit.promote.test_apply import free_ports
from tune_gpu.artifacts.manifest import manifest
from tune_gpu.artifacts.records.comparison import ConfirmationSummary
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.ends import ComparisonEnd, RunEnd
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.main import main
from tune_gpu.common.clock import now
from tune_gpu.compare.confirm import BASELINE, WINNER, confirmed
from tune_gpu.compare.metrics import metrics_of
from tune_gpu.compare.records import make_comparison
from tune_gpu.compare.rounds import Outcome, Rules, findings_of
from tune_gpu.compare.samples import Replicate, Turn, turn_metrics
from tune_gpu.compare.sequential import interim_alpha
from tune_gpu.compare.store import ReplicateStore
from tune_gpu.config import kinds
from tune_gpu.config.loader import as_yaml, load_config
from tune_gpu.config.schema import ExperimentConfig, SearchSettings
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.summary import summarise_run, winner_of
from tune_gpu.promote.bundle import write_bundle
from tune_gpu.promote.subject import subject_of
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Result as Measured
from tune_gpu.search.tournament import Tournament
from tune_gpu.services.loopback import NoAnswer, get

KEY, UNIT = "of-the-fake", "tune-gpu-writer.service"
SLOW, FAST = {"word_ms": 60}, {"word_ms": 1}
SPACE: dict[str, Any] = {
    "name": "faked",
    "device": "cpu",
    "services": {"writer": {"kind": "fake"}},
    "parameters": {"word_ms": {"target": "writer.latency_ms", "values": [1, 60]}},
    "baseline": SLOW,
    "objective": {"weights": {"writer.ttft": 0.5, "writer.latency": 0.5}},
    "traffic": {"max_tokens": 3, "capacity_step_s": 0},
}


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with the kind `fake` on the path."""
    monkeypatch.syspath_prepend(str(plug(tmp_path / "package")))
    found = (kinds._found, kinds.kind_names, kinds.load_kind)
    for each in found:
        each.cache_clear()
    yield
    for each in found:
        each.cache_clear()


def compared_run(root: Path) -> None:
    """A run of two evaluations and the comparison that confirms its winner, as `launch` and `compare` leave them."""
    space = root / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE, sort_keys=False))
    config = load_config(str(space), [f"run.artifacts_dir={root}"], "cpu")
    folder, device = RunFolder(root, config.name, RUN_ID), DeviceRecord.parse(DEVICE, "a made device")
    folder.create(as_yaml(config))
    lines = [line("g0-c0", SLOW, 0.4), line("g0-c1", FAST, 0.6)]
    tournament = Tournament(SearchSpace.from_specs(config.parameters), SearchSettings(generations=1), baseline=SLOW, points=[FAST])
    for made in lines:
        folder.append_candidate(made)
        candidate = tournament.ask()
        assert candidate is not None
        tournament.tell(candidate.candidate_id, Measured("ok", made.fitness, n_windows=1))
    summary = summarise_run(
        tournament, lines, run_id=RUN_ID, experiment=config.name, device="cpu", wall_s=10.0, baseline=SLOW, ended=RunEnd.GENERATIONS
    )
    folder.write_json("summary.json", summary)
    folder.write_json("manifest.json", replace(manifest(RUN_ID, 0, device), ended_at=now()))
    unconfirmed = ConfirmationSummary(confirmed=False, confirmed_why="nothing was compared")
    folder.write_winner(winner_of(summary, lines, device, 500.0, unconfirmed))
    compare(config, folder)


def compare(config: ExperimentConfig, folder: RunFolder) -> None:
    keys = [metric.compared.turn_key or metric.compared_name for metric in turn_metrics(catalogue_for(config)) if metric.compared]
    arms = {WINNER: FAST, BASELINE: SLOW}
    measured = [
        Replicate(arm, number, tuple(Turn(dict.fromkeys(keys, ms + number + place)) for place in range(6)), fitness=fitness, wall_s=10.0)
        for number in range(4)
        for arm, ms, fitness in ((WINNER, 100.0, 0.9), (BASELINE, 900.0, 0.1))
    ]
    terms = {"schema_version": 1, "arms": arms, "device": "cpu", "seed": 0, "services": asdict(config.services)}
    store = ReplicateStore(folder.path / "comparison.jsonl", terms)
    for replicate in measured:
        store.append(replicate)
    alpha = interim_alpha(2, 0.05)
    outcome = Outcome(ComparisonEnd.DECIDED, "every difference asked for is shown or ruled out", 4, alpha, tuple(measured), 80.0)
    rules = Rules(0.95, 3, 12, 600.0, 1, config.confirm.tolerances, 0)
    findings = findings_of(measured, WINNER, BASELINE, metrics_of(config), alpha=alpha, tolerances=rules.tolerances, seed=0)
    holds, why = confirmed(findings, config.confirm.metric, outcome.why)
    content = make_comparison(
        run_id=folder.run_id, experiment=config.name, device=DEVICE, arms=arms, ours=WINNER, theirs=BASELINE, findings=findings, outcome=outcome,
        rules=rules, neighbours_mib=500.0, confirmed=holds, confirmed_why=why,
    )  # fmt: skip
    folder.write_json("comparison.json", content.dump())


def test_a_winner_of_a_plugged_kind_is_deployed_and_undone(plugged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_API_KEY", KEY)
    compared_run(tmp_path)
    (port,) = free_ports(1)
    install, url = tmp_path / "deployed", f"http://127.0.0.1:{port}"
    overrides = [
        *(f"run.artifacts_dir={tmp_path}", f"promote.install_dir={install}", "promote.target=process", "promote.device=cpu"),
        *("promote.neighbours_mib=0", "promote.probes=1", "promote.probe_max_ratio=50", f"promote.services.writer.url={url}"),
    ]

    def promote(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["promote", *arguments, *overrides])

    subject = subject_of(RUN_ID, overrides, None, None, lambda _line: None, check_config)
    subject.folder.mkdir(parents=True)
    (subject.folder / "gate.json").write_text("{}")
    write_bundle(subject.folder, subject.bundle, subject.bundle, subject.about)  # as after a soak
    assert set(subject.bundle.files) == {"writer.env", f"{UNIT}.json"}
    try:
        applied = promote(RUN_ID, "--apply", "--expect", subject.bundle.sha256)
        assert applied.exit_code == 0, applied.output
        assert "ignored" not in applied.output, "the run has no promote settings of its own"
        assert "compare: ok (writer, command line, environment)" in applied.output
        assert [get(f"{url}/v1/models", key)[0] for key in (None, KEY)] == [401, 200]
        command = json.loads((install / "supervised" / f"{UNIT}.json").read_text())["command"]
        assert command[-2:] == [str(port), "1"], "the fast one"
        undone = promote("--rollback")
        assert undone.exit_code == 0, undone.output
        with pytest.raises(NoAnswer):
            get(f"{url}/health", KEY)
        assert not (install / "writer.env").exists()
    finally:
        ProcessSupervisor(install / "supervised").stop(UNIT)
