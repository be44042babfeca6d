"""The artifacts of a small run that has ended, written as a run writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.manifest import manifest
from tune_gpu.artifacts.records.comparison import ConfirmationSummary
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.clock import now
from tune_gpu.config.loader import as_yaml, load_config
from tune_gpu.config.schema import SearchSettings
from tune_gpu.experiment.summary import summarise_run, winner_of
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Result, Tournament

RUN_ID = "20260131-120000"
EXPERIMENT = "spica_gpu_allocation"
SLOW: dict[str, Any] = {"vllm_memory_util": 0.1, "vllm_cores": "0", "whisper_model_size": "base", "whisper_cores": "1"}
FAST = SLOW | {"whisper_model_size": "tiny.en"}
DEVICE: dict[str, Any] = {"kind": "cpu", "name": "a processor", "uuid": None, "total_mib": 16000.0, "driver": None, "cores": 2}
QUICK = [
    "device=cpu",
    "workload.windows=1",
    "workload.window_s=1",
    "workload.turn_rate_per_s=1",
    "workload.audio.noise_snr_db=[null]",
    "workload.warmup_turns=1",
    "workload.capacity_step_s=0",
    "objective.weights.capacity=0",
    "parameters.vllm_memory_util.values=[0.1]",
    "parameters.vllm_cores.values=['0']",
    "baseline.vllm_memory_util=0.1",
    "services.vllm.max_num_seqs=4",
    "ray.dashboard=false",
    "search.recheck=0",
]


def line(candidate_id: str, params: dict[str, Any], fitness: float | None, **change: Any) -> EvaluationRecord:
    """One evaluation; `change` replaces keys of its line."""
    turn = {"p50": 900.0, "p90": 1000.0, "p95": 1100.0, "p99": 1200.0, "mean": 900.0, "n": 5}
    failure = None if fitness is not None else {"kind": "startup_oom", "message": "no room", "retryable": False}
    content = {
        "candidate_id": candidate_id, "generation": 0, "origin": "initial", "params": params,
        "status": "failed" if failure else "ok", "failure": failure, "fitness": fitness, "fitness_stderr": None, "objectives": {},
        "violations": {}, "violation": 0.0, "transient": False, "n_windows": 1, "device": "cpu", "started_at": now(), "wall_s": 5.0,
        "metrics": {} if failure else {"voice_turn_ms": turn, "oom_events": 0, "fitness_windows": [fitness], "service_memory_mib": {}},
        "duration_s": {"start": 1.0, "load": 3.0, "stop": 1.0}, "engine_reused": False, "engine": {},
    }  # fmt: skip
    return EvaluationRecord.parse(content | change, candidate_id)


def made_run(root: Path, *, run_id: str = RUN_ID, overrides: list[str] = QUICK, feasible: bool = True, confirmation: Any = None) -> RunFolder:
    """A run of two evaluations whose winner is FAST; with `feasible=False` without a winner."""
    config = load_config(EXPERIMENT, [*overrides, f"run.artifacts_dir={root}"], "cpu")
    folder = RunFolder(root, config.name, run_id)
    folder.create(as_yaml(config))
    lines = [line("g0-c0", SLOW, 0.4 if feasible else None), line("g0-c1", FAST, 0.6 if feasible else None)]
    tournament = Tournament(SearchSpace.from_specs(config.parameters), SearchSettings(generations=1), baseline=SLOW, points=[FAST])
    for made in lines:
        folder.append_candidate(made)
        candidate = tournament.ask()
        assert candidate is not None
        result = Result("ok", made.fitness, n_windows=1) if feasible else Result("failed", violation=1000.0)
        tournament.tell(candidate.candidate_id, result)
    summary = summarise_run(
        tournament, lines, run_id=run_id, experiment=config.name, device="cpu", wall_s=10.0, baseline=SLOW, ended=RunEnd.GENERATIONS
    )
    folder.write_json("summary.json", summary)
    folder.write_json("manifest.json", replace(manifest(run_id, 0, DeviceRecord.parse(DEVICE, "a made device")), ended_at=now()))
    if feasible:
        unconfirmed = ConfirmationSummary(confirmed=False, confirmed_why="nothing was compared")
        folder.write_winner(winner_of(summary, lines, DeviceRecord.parse(DEVICE, "a made device"), 500.0, unconfirmed))
    if confirmation is not None:
        folder.write_json("comparison.json", confirmation)
    return folder
