"""Builds the Tuner, runs or resumes it, and hands results to the artifacts."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ray import tune

from trainables.spica import spica_trainable
from tune_gpu.artifacts import RunFolder, as_result, manifest, now
from tune_gpu.candidate import deployment, engine_key
from tune_gpu.config import ExperimentConfig, RaySettings
from tune_gpu.devices import DeviceChoice
from tune_gpu.errors import UserError
from tune_gpu.live import Progress
from tune_gpu.refusals import Refusals
from tune_gpu.rzero import RZeroScheduler, RZeroSearch, replay
from tune_gpu.space import SearchSpace
from tune_gpu.summary import summarise_run, winner_of
from tune_gpu.telemetry.probe import open_probe
from tune_gpu.tournament import Candidate, Result, Tournament

_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a model's path may be relative to where the user stands
    "TUNE_GLOBAL_CHECKPOINT_S": "0",  # nothing measured is lost
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextlib.contextmanager
def local_or_joined_ray(settings: RaySettings) -> Iterator[None]:
    """Join the cluster of `ray.address`, or start a local Ray that ends with the block. Raises UserError if none answers."""
    import ray

    os.environ.update({key: os.environ.get(key, value) for key, value in _TUNE_ENVIRONMENT.items()})
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if settings.address is None:
        os.environ.pop("RAY_ADDRESS", None)
        ray.init(include_dashboard=settings.dashboard, **options)
    else:
        _check_answers(settings)
        try:
            ray.init(address=settings.address, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(f"ray.address={settings.address}: no Ray cluster answers there ({first.strip()[:200]})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(settings: RaySettings) -> None:
    """Ray waits for minutes and prints pages for an address that nobody listens at; a socket tells in a moment."""
    import socket

    address = str(settings.address)
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=settings.connect_timeout_s).close()
    except (OSError, ValueError) as error:
        raise UserError(f"ray.address={address}: nothing answers there ({error}); allowed: auto, host:port, ray://host:port") from error


class Experiment:
    """One run of one experiment.

    Args:
        config: checked.
        choice: the device.
        folder: where it is kept; its lines, if there are any, are replayed first (a resumed run).
        progress: who is told.
        refusals: what the preflight refuses.
    """

    def __init__(self, config: ExperimentConfig, choice: DeviceChoice, folder: RunFolder, progress: Progress, refusals: Refusals) -> None:
        self.config, self.choice, self.folder, self.progress = config, choice, folder, progress
        self.lines: list[dict[str, Any]] = list(folder.candidates())
        self.tournament = new_tournament(config, refusals)
        self._device = _describe(choice)
        self._started = time.monotonic()
        self._before_s = sum(float(line.get("wall_s") or 0.0) for line in self.lines)

    def run(self) -> dict[str, Any]:
        """Run it to its end (or from where it was to its end) and return the summary. Ray must be up."""
        search = RZeroSearch(metric="fitness", mode="max", tournament=self.tournament, wrap=True, on_result=self._record)
        told = {line["candidate_id"]: (line["params"], as_result(line)) for line in self.lines}
        try:
            search.give_back(replay(self.tournament, told))
        except ValueError as error:
            raise UserError(f"{self.folder.run_id} cannot be resumed with this program: {error}") from error
        for line in self.lines:
            self.progress.ended(line, replayed=True)
        record = manifest(self.folder.run_id, self.config.search.seed, self._device[0])
        self.folder.write_json("manifest.json", record)
        ended = "interrupted"
        try:
            if not self.tournament.finished:
                self._tuner(search).fit()
            ended = self._why_ended()
        finally:
            summary = self._conclude(ended)
            self.folder.write_json("manifest.json", record | {"ended_at": now()})
        return summary

    def _why_ended(self) -> str:
        if self.tournament.finished:
            return self.tournament.ended_because or "generations"
        budget_s = self.config.run.time_budget_s
        # Tune takes a Ctrl-C for itself and returns as if all were well.
        return "time budget" if budget_s and time.monotonic() - self._started >= budget_s else "interrupted"

    def _tuner(self, search: RZeroSearch) -> tune.Tuner:
        resources = {"CPU": self.config.ray.cpus_per_trial}
        if self.choice.kind == "cuda":
            resources["GPU"] = self.config.ray.gpus_per_trial
        parallel = 1 if self.choice.kind == "cpu" else max(1, min(self.choice.n_cards, self.config.ray.max_concurrent_trials))
        settings = self.config.search
        attempt = 1 + len(list(self.folder.path.glob("ray/*")))
        return tune.Tuner(
            spica_trainable(asdict(self.config), self.choice.kind, resources),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=RZeroScheduler(search, window_budget=settings.window_budget) if settings.racing else None,
                num_samples=-1,
                max_concurrent_trials=parallel,
                reuse_actors=True,
                time_budget_s=self.config.run.time_budget_s,
                trial_name_creator=lambda trial: f"{trial.config['candidate']['candidate_id']}-{trial.trial_id}",
                trial_dirname_creator=lambda trial: f"{trial.config['candidate']['candidate_id']}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{attempt}",
                storage_path=str(self.folder.path / "ray"),
                verbose=0,
                callbacks=[_Announcer(self.progress)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )

    def _record(self, candidate: Candidate, outcome: Result, result: Mapping[str, Any] | None) -> None:
        line = _unflatten(result) if result else None
        if line is None:
            line = _lost_line(candidate, outcome, self.choice.kind)
        self.folder.append_candidate(line)
        self.lines.append(line)
        self.progress.ended(line)

    def _conclude(self, ended: str) -> dict[str, Any]:
        wall_s = self._before_s + time.monotonic() - self._started
        summary = summarise_run(
            self.tournament,
            self.lines,
            run_id=self.folder.run_id,
            experiment=self.config.name,
            device=self.choice.kind,
            wall_s=wall_s,
            baseline=self.config.baseline,
            ended=ended,
        )
        self.folder.write_json("summary.json", summary)
        if summary["best"] and ended != "interrupted":
            self.folder.write_winner(winner_of(summary, self.lines, *self._device))
        return summary


class _Announcer(tune.Callback):
    """Tells the progress which candidate has begun."""

    def __init__(self, progress: Progress) -> None:
        self._progress: Progress | None = progress

    def __getstate__(self) -> dict[str, Any]:
        return {"_progress": None}  # Tune pickles its callbacks; a terminal cannot be

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002 - Tune names them
        if self._progress is not None:
            self._progress.began(Candidate(**trial.config["candidate"]))


def new_tournament(config: ExperimentConfig, refusals: Refusals) -> Tournament:
    """The search of a configuration, before its first proposal; candidates that share an engine stand together."""
    space = SearchSpace.from_specs(config.parameters)
    return Tournament(
        SearchSpace.from_specs(config.parameters, allowed=refusals.allowed(space)),
        config.search,
        baseline=config.baseline or None,
        order_key=lambda params: engine_key(deployment(config, params).vllm),
    )


def _describe(choice: DeviceChoice) -> tuple[dict[str, Any], float]:
    if choice.kind == "cuda" and not _nvml_here():
        return {"kind": "cuda", "name": f"{choice.n_cards} GPUs of the Ray cluster"}, 0.0
    probe = open_probe(choice.kind)
    try:
        return probe.info.as_dict(), probe.read().used_mib
    finally:
        probe.close()


def _nvml_here() -> bool:
    from tune_gpu.telemetry.probe import nvidia_cards

    return nvidia_cards() > 0


def _unflatten(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Tune hands a searcher flat results (`line/status`), dictionaries and all; the line travels as JSON for that reason."""
    import json

    text = result.get("line_json")
    return dict(json.loads(text)) if text else None


def _lost_line(candidate: Candidate, outcome: Result, device: str) -> dict[str, Any]:
    return {
        **asdict(candidate),
        "status": "failed",
        "failure": {
            "kind": "service_lost",
            "service": "tune_gpu",
            "phase": "load",
            "message": "the trial's own process ended without a result",
            "evidence": "",
            "shortfall": 0.0,
            "retryable": True,
        },
        "fitness": None,
        "fitness_stderr": None,
        "violations": {},
        "violation": outcome.violation,
        "transient": True,
        "metrics": {},
        "n_windows": 0,
        "device": device,
        "started_at": now(),
        "wall_s": 0.0,
        "duration_s": {"start": 0.0, "load": 0.0, "stop": 0.0},
        "engine_reused": False,
        "engine": {},
    }
