"""A comparison as `tune-gpu compare` leaves it: deployments on disk, and the verdict that follows from them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.support.made_run import DEVICE, FAST, SLOW
from tests.support.traffic import turn
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.records.ends import ComparisonEnd
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.compare.confirm import BASELINE, WINNER, confirmed
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.compare.records import make_comparison
from tune_gpu.compare.rounds import Outcome, Rules, findings_of
from tune_gpu.compare.samples import Replicate
from tune_gpu.compare.sequential import interim_alpha
from tune_gpu.compare.store import ReplicateStore
from tune_gpu.config.languages import error_unit, spoken_language
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig


def replicates(*, winner_ms: float = 840.0, baseline_ms: float = 1200.0, rounds: int = 4) -> list[Replicate]:
    """Deployments of two arms, each turn a little longer than the one before."""
    found = []
    for number in range(rounds):
        for arm, ms in ((WINNER, winner_ms), (BASELINE, baseline_ms)):
            times = [ms * (1.0 + 0.01 * number + 0.002 * place) for place in range(6)]
            turns = tuple(turn(0.6 * t, 0.1 * t, 0.3 * t, t) for t in times)
            found.append(Replicate(arm, number, turns, fitness=0.5, wall_s=10.0))
    return found


def write_comparison(folder: RunFolder, name: str = "comparison", measured: list[Replicate] | None = None, **change: Any) -> dict[str, Any]:
    """Both files of a run's comparison; what its verdict file states may be changed afterwards."""
    config = load_config(str(folder.path / "config.yaml"), [], None)
    measured = replicates() if measured is None else measured
    arms = {WINNER: FAST, BASELINE: SLOW}
    terms = {"schema_version": 1, "arms": arms, "device": "cpu", "seed": 0, "services": asdict(config.services)}
    store = ReplicateStore(folder.path / f"{name}.jsonl", terms)
    store.path.unlink(missing_ok=True)
    for replicate in measured:
        store.append(replicate)
    content = verdict(config, measured, folder.run_id).dump() | change
    folder.write_json(f"{name}.json", content)
    return content


def verdict(config: ExperimentConfig, measured: list[Replicate], run_id: str) -> Comparison:
    """As `tune_gpu.cli.compare` computes it."""
    alpha = interim_alpha(2, 0.05)
    outcome = Outcome(ComparisonEnd.DECIDED, "every difference asked for is shown or ruled out", len(measured) // 2, alpha, tuple(measured), 80.0)
    rules = Rules(0.95, 3, 12, 600.0, 1, config.confirm.tolerances, 0)
    metrics = standard_metrics(config.objective.latency_percentile, error_unit(spoken_language(config)))
    findings = findings_of(measured, WINNER, BASELINE, metrics, alpha=alpha, tolerances=rules.tolerances, seed=0)
    holds, why = confirmed(findings, config.confirm.metric, outcome.why)
    return make_comparison(
        run_id=run_id, experiment=config.name, device=DEVICE, arms={WINNER: FAST, BASELINE: SLOW}, ours=WINNER, theirs=BASELINE,
        findings=findings, outcome=outcome, rules=rules, neighbours_mib=500.0, confirmed=holds, confirmed_why=why,
    )  # fmt: skip
