"""One evaluation: deploy a candidate for real, drive it with the traffic it will see, measure, take it down. Knows no Ray.

The order matters (DESIGN.md, "An evaluation, step by step"): Whisper first and warmed with the longest utterance, because its peak depends
on its input; memory stable, because vLLM charges what moves while it profiles to its KV cache; vLLM second; then load on both.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trainables.gate import Gate
from tune_gpu.candidate import deployment, engine_key
from tune_gpu.config import ExperimentConfig, VllmSettings
from tune_gpu.measurement import Failure, FailureKind, Measurement, Phase, ServiceError, Status, Timings
from tune_gpu.objective import evaluate
from tune_gpu.services.launchers import EngineHost
from tune_gpu.services.vllm_server import VllmServer, engine_environment
from tune_gpu.services.whisper import WhisperService
from tune_gpu.telemetry.probe import Probe, open_probe
from tune_gpu.telemetry.sampler import DeviceSampler, DeviceWindow, wait_until_returned, wait_until_stable
from tune_gpu.workload.audio import load_utterances
from tune_gpu.workload.capacity import Capacity, find_capacity
from tune_gpu.workload.clients import Endpoints
from tune_gpu.workload.summary import TrafficSummary, interference, summarise
from tune_gpu.workload.window import WindowResult, run_window, warm_up

MAX_INVALID_WINDOWS = 2
_RETURNED_TOLERANCE_MIB = 256.0


@dataclass
class Running:
    """The evaluation under way."""

    params: dict[str, Any]
    whisper: WhisperService
    engine_reused: bool = False
    windows: list[WindowResult] = field(default_factory=list)
    device: list[DeviceWindow] = field(default_factory=list)
    solo: dict[str, TrafficSummary] = field(default_factory=dict)
    capacity: Capacity | None = None
    start_s: dict[str, float] = field(default_factory=dict)
    warm_s: float = 0.0
    load_s: float = 0.0
    n_invalid: int = 0


class Evaluator:
    """Evaluates candidates one after another, and keeps an engine running while its flags do not change.

    `begin`, `window` as often as wanted, `finish`; or `evaluate` for all of it. `close` in the end: it leaves nothing running.
    """

    def __init__(self, config: ExperimentConfig, device: str, *, log: Callable[[str], None] = lambda _line: None) -> None:
        self.config, self.device, self._log = config, device, log
        self._probe: Probe | None = None
        self._host: EngineHost | None = None
        self._engine: VllmServer | None = None
        self._engine_key = ""
        self._idle_mib = 0.0
        self._running: Running | None = None
        self._gate: Gate | None = None
        self._utterances = load_utterances(config.workload.audio)

    @property
    def probe(self) -> Probe:
        """The device that this process was given (Ray's assignment: the first of CUDA_VISIBLE_DEVICES)."""
        if self._probe is None:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
            self._probe = open_probe(self.device, visible or "0")
            self._idle_mib = self._probe.read().used_mib
        return self._probe

    def evaluate(self, params: Mapping[str, Any]) -> Measurement:
        """All of one evaluation."""
        try:
            self.begin(params)
            for _ in range(self.config.workload.windows):
                self.window()
            return self.finish()
        except ServiceError as error:
            return self.fail(error.failure)

    def begin(self, params: Mapping[str, Any]) -> None:
        """Deploy and warm up; ends the evaluation before, if it was left in the middle. Raises ServiceError."""
        self._stop_whisper()  # of an evaluation that a race ended between two windows
        if self.config.run.preflight:
            self._gate = self._gate or Gate(self.config, self.device, self._log)
            self._gate.check(params)
        services = deployment(self.config, params)
        if self._engine is not None and (self._engine_key != engine_key(services.vllm) or self._engine.failure() is not None):
            self._stop_engine()
        whisper = WhisperService(services.whisper, device=self.device, port_range=self.config.run.port_range)
        self._running = running = Running(dict(params), whisper)
        self.probe  # noqa: B018 - reads what the device holds before anything of ours is on it
        if self._engine is None and self.config.run.warm_engine:
            self._warm_host(services.vllm).prepare()
        whisper.start()
        running.start_s["whisper"] = whisper.start_s or 0.0
        started = time.monotonic()
        self._expect_answers(
            warm_up(self._endpoints(), self.config.workload, self._utterances, turns=1, mode="stt", abort=self._lost), "whisper"
        )
        running.warm_s += time.monotonic() - started
        running.engine_reused = self._engine is not None
        if self._engine is None:
            self._start_engine(services.vllm)
        running.start_s["vllm"] = (
            0.0 if running.engine_reused else (self._engine.info.start_s if self._engine and self._engine.info else 0.0)
        )
        self._prove_device()
        started = time.monotonic()
        self._expect_answers(warm_up(self._endpoints(), self.config.workload, self._utterances, abort=self._lost), "vllm")
        running.warm_s += time.monotonic() - started

    def _warm_host(self, settings: VllmSettings) -> EngineHost:
        if self._host is None:
            self._host = EngineHost(engine_environment(settings, "", self.device, tempfile.gettempdir()))
        return self._host

    def _start_engine(self, settings: VllmSettings) -> None:
        assert self._running is not None
        run = self.config.run
        host = self._warm_host(settings) if run.warm_engine else None
        started = time.monotonic()
        if host is not None:
            host.open()
            self._running.start_s["imports"] = time.monotonic() - started
        started = time.monotonic()
        wait_until_stable(
            self.probe, samples=run.memory_stable_samples, tolerance_mib=run.memory_stable_mib, timeout_s=run.memory_timeout_s
        )
        self._running.start_s["memory_stable"] = time.monotonic() - started
        engine = VllmServer(settings, device=self.device, port_range=run.port_range, host=host)
        if self._gate:
            self._gate.about_to_start()
        engine.start(abort=self._whisper_lost)
        if self._gate:
            self._gate.learn(engine)
        self._engine, self._engine_key = engine, engine_key(settings)

    def window(self) -> None:
        """One window of load on both services; the first also finds the capacity. Raises ServiceError."""
        running, workload = self._now(), self.config.workload
        first = not running.windows
        while True:
            result, device = self._measured(len(running.windows), "mixed")
            if result.invalid is None:
                break
            running.n_invalid += 1
            if running.n_invalid > MAX_INVALID_WINDOWS:
                raise ServiceError(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, result.invalid))
        self._expect_answers(result.turns, "services")
        running.windows.append(result)
        running.device.append(device)
        if first and workload.solo_window_s > 0:
            for mode in ("stt", "llm"):
                running.solo[mode] = summarise([self._measured(10_000, mode, workload.solo_window_s)[0]])
        if first and workload.capacity_step_s > 0:
            started = time.monotonic()
            running.capacity = find_capacity(
                self._endpoints(), workload, self.config.objective, self._utterances, seed=self.config.search.seed, abort=self._lost
            )
            running.load_s += time.monotonic() - started
            self._raise_if_lost()

    def so_far(self) -> Measurement:
        """The measurement that the windows until now make; more may follow."""
        running = self._now()
        engine = self._engine.info.as_dict() if self._engine and self._engine.info else {}
        return Measurement(
            Status.OK,
            self.device,
            metrics=self._metrics(),
            n_windows=len(running.windows),
            engine_reused=running.engine_reused,
            engine=engine,
            timings=Timings(dict(running.start_s), running.warm_s, running.load_s),
        )

    def finish(self) -> Measurement:
        """Take Whisper down (the engine stays for the next candidate) and give the measurement."""
        measured = self.so_far()
        return replace(measured, timings=replace(measured.timings, stop_s={"whisper": self._stop_whisper()}))

    def fail(self, failure: Failure) -> Measurement:
        """Take everything down and give the failure as the measurement."""
        started = time.monotonic()
        running = self._running
        self._stop_whisper()
        self._stop_engine()
        timings = Timings(
            running.start_s if running else {},
            running.warm_s if running else 0.0,
            running.load_s if running else 0.0,
            {"all": time.monotonic() - started},
        )
        return Measurement.failed(failure, self.device, timings=timings, engine_reused=bool(running and running.engine_reused))

    def close(self) -> None:
        """Leave nothing running."""
        self._stop_whisper()
        self._stop_engine()
        if self._host is not None:
            self._host.close()
            self._host = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _now(self) -> Running:
        assert self._running is not None, "no evaluation is under way"
        return self._running

    def _measured(self, index: int, mode: str, seconds: float | None = None) -> tuple[WindowResult, DeviceWindow]:
        running = self._now()
        services = {"whisper": running.whisper.pids, "vllm": self._engine.pids if self._engine else list}
        started = time.monotonic()
        with DeviceSampler(self.probe, services) as sampler:
            result = run_window(
                self._endpoints(),
                self.config.workload,
                self._utterances,
                seed=self.config.search.seed,
                window_index=index,
                mode=mode,
                seconds=seconds,
                abort=self._lost,
            )
        running.load_s += time.monotonic() - started
        self._raise_if_lost()
        return result, sampler.window()

    def _endpoints(self) -> Endpoints:
        whisper, engine = self._now().whisper, self._engine
        return Endpoints(
            engine.base_url if engine else "",
            engine.served_model_name if engine else "",
            engine.api_key if engine else "",
            whisper.base_url,
            whisper.api_key,
        )

    def _whisper_lost(self) -> str | None:
        failure = self._now().whisper.failure()
        return failure.message if failure else None

    def _failure(self) -> Failure | None:
        failure = self._now().whisper.failure()
        return failure or (self._engine.failure() if self._engine else None)

    def _lost(self) -> str | None:
        failure = self._failure()
        return failure.message if failure else None

    def _raise_if_lost(self) -> None:
        if failure := self._failure():
            raise ServiceError(failure)

    def _expect_answers(self, turns: Any, service: str) -> None:
        """Not one answer of many is no measurement: the service is there and does not serve."""
        self._raise_if_lost()
        errors = [turn.error for turn in turns]
        if errors and all(errors):
            kind = FailureKind.SERVICE_HUNG if all("timeout" in error for error in errors) else FailureKind.REQUESTS_FAILED
            raise ServiceError(Failure(kind, service, Phase.LOAD, f"none of {len(errors)} voice turns was answered ({errors[0]})"))

    def _prove_device(self) -> None:
        """On a card, each service's processes must hold memory there (law 2)."""
        if self.device != "cuda" or self._engine is None:
            return
        for name, pids in (("whisper", self._now().whisper.pids()), ("vllm", self._engine.pids())):
            if not self.probe.memory_by_pid_mib(pids):
                message = f"none of its processes holds memory on {self.probe.info.name} ({self.probe.info.uuid})"
                raise ServiceError(Failure(FailureKind.WRONG_DEVICE, name, Phase.START, message))

    def _metrics(self) -> dict[str, Any]:
        running = self._now()
        pooled = summarise(running.windows)
        whole = self._with_device(pooled, running.device)
        score = evaluate(whole, self.config.objective)
        each = [
            evaluate(self._with_device(summarise([window]), [device]) | {"wer": pooled.wer}, self.config.objective).fitness
            for window, device in zip(running.windows, running.device, strict=True)
        ]
        known = [fitness for fitness in each if fitness is not None]
        stderr = statistics.stdev(known) / len(known) ** 0.5 if len(known) > 1 else None
        return whole | {
            "fitness": score.fitness,
            "fitness_stderr": stderr,
            "fitness_windows": each,
            "fitness_terms": score.terms,
            "violations": score.violations,
            "interference_ratio": interference(pooled, running.solo) if running.solo else None,
            "n_invalid_windows": running.n_invalid,
        }

    def _with_device(self, traffic: TrafficSummary, device: list[DeviceWindow]) -> dict[str, Any]:
        running = self._now()
        utilization = [window.utilization_pct for window in device if window.utilization_pct is not None]
        used = [window.peak_used_mib for window in device if window.peak_used_mib is not None]
        services = {name for window in device for name in window.peak_service_mib}
        capacity = running.capacity
        info = self._engine.info if self._engine else None
        return traffic.as_metrics() | {
            "gpu_utilization": round(statistics.fmean(utilization), 2) if utilization else None,
            "memory_used_mib": round(max(used), 1) if used else None,
            "service_memory_mib": {n: round(max(w.peak_service_mib.get(n, 0.0) for w in device), 1) for n in sorted(services)},
            "oom_events": sum(window.oom_events for window in device),
            "concurrent_capacity": capacity.sessions if capacity else None,
            "capacity_continuous": round(capacity.continuous, 4) if capacity else None,
            "capacity_at_ceiling": capacity.at_ceiling if capacity else None,
            "kv_cache_tokens": info.kv_cache_tokens if info else None,
            "kv_max_concurrency": info.max_concurrency if info else None,
        }

    def _stop_whisper(self) -> float:
        started = time.monotonic()
        if self._running is not None:
            self._running.whisper.stop()
            self._running = None
        return time.monotonic() - started

    def _stop_engine(self) -> None:
        if self._engine is None:
            return
        self._engine.stop()
        self._engine, self._engine_key = None, ""
        if self.device == "cuda":  # on the CPU a process that has gone has given its memory back; a driver may take its time
            missing = wait_until_returned(
                self.probe, self._idle_mib, tolerance_mib=_RETURNED_TOLERANCE_MIB, timeout_s=self.config.run.memory_timeout_s
            )
            if missing:
                self._log(f"{missing:.0f} MiB of the card have not come back after the engine ended")
