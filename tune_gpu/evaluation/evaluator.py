"""One evaluation: deploy a candidate for real, drive it with the traffic it will see, measure, take it down. Knows no Ray.

The order matters (DESIGN.md, "An evaluation, step by step"): Whisper starts first and is warmed with the longest utterance, because its peak
depends on its input; then the memory must be stable, because vLLM charges what moves while it profiles to its KV cache; vLLM starts second;
then both are put under load.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tune_gpu.common.failures import Failure, ServiceError
from tune_gpu.config.languages import spoken_language
from tune_gpu.config.schema import ExperimentConfig, Services
from tune_gpu.evaluation.deployers import LocalDeployer, ServiceDeployer
from tune_gpu.evaluation.device_guard import DeviceGuard
from tune_gpu.evaluation.load_session import LoadSession, Transcripts
from tune_gpu.evaluation.measurement import Measurement, Status, Timings
from tune_gpu.evaluation.preflight_check import PreflightCheck
from tune_gpu.evaluation.scoring import score_metrics
from tune_gpu.evaluation.service_set import ServiceSet
from tune_gpu.evaluation.state import EvaluationState
from tune_gpu.services.deployment import Deployment, resolve
from tune_gpu.services.running import RunningService
from tune_gpu.telemetry.probe import Probe
from tune_gpu.telemetry.sampler import DeviceSample, DeviceStats
from tune_gpu.workload.audio import load_utterances
from tune_gpu.workload.window import WindowResult


class Evaluator:
    """Evaluates candidates one after another, and keeps an engine running while its flags do not change.

    Call `begin`, `window` as often as wanted, then `finish`; or `evaluate` for all of it. `close` in the end leaves nothing running.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        device: str,
        *,
        log: Callable[[str], None] = lambda _line: None,
        observe: Callable[[DeviceSample], None] = lambda _moment: None,
        deploy: ServiceDeployer | None = None,
    ) -> None:
        self.config, self.device, self._log, self._observe = config, device, log, observe
        self._deploy = deploy or LocalDeployer(config, device)
        self._guard = DeviceGuard(device, config.run, self._deploy.visible_devices, shared=config.ray.trials_per_card > 1)
        self._services = ServiceSet(config, device, self._deploy, self._guard)
        self._utterances = load_utterances(config.workload.audio, spoken_language(config))
        self._transcripts: Transcripts = {}
        self._preflight: PreflightCheck | None = None
        self._state: EvaluationState | None = None
        self._load: LoadSession | None = None
        self._logged_unchecked: set[str] = set()

    @property
    def probe(self) -> Probe:
        """Return the device that the services get: all cards of an engine that spans several."""
        return self._guard.probe

    @property
    def running(self) -> Mapping[str, RunningService[Any]]:
        """Return the services that run now, by name, in the order of starting."""
        return self._services.running

    def requests_under_way(self, service: str) -> int:
        """Return how many requests of the evaluation under way this service has not answered yet."""
        return self._load.activity.waiting.get(service, 0) if self._load else 0

    def evaluate(self, params: Mapping[str, Any]) -> Measurement:
        """Carry out a whole evaluation of these parameters and return its measurement; a failure is one as well."""
        try:
            self.begin(resolve(self.config, params, self.device))
            for _ in range(self.config.workload.windows):
                self.window()
            return self.finish()
        except ServiceError as error:
            return self.fail(error.failure)

    def begin(self, deployment: Deployment, *, first_window: int = 0, every_clip: bool = True) -> None:
        """Deploy and warm up; an evaluation that was left in the middle is ended first.

        Args:
            deployment: of the candidate; it is not changed.
            first_window: number of this evaluation's first window; windows of the same number have the same traffic.
            every_clip: transcribe every clip once for the word error rate (see `LoadSession.warm_whisper`).

        Raises:
            ServiceError: the candidate cannot be deployed.
        """
        self._end_evaluation()  # a race may have ended one between two windows
        if self.config.run.preflight:
            self._preflight = self._preflight or PreflightCheck(self.config, self.device, self._log, self._guard.first_card)
            self._preflight.check(deployment.services)
        stopping = {} if self._services.may_keep_engine(deployment.engine_key) else self._stop_engine()
        self._guard.use(deployment.n_cards)
        services = self._services.on_this_card(deployment.services)
        self._state = state = EvaluationState(dict(deployment.params), first_window)
        self._load = load = LoadSession(
            self.config, self._services, self._guard, state, self._utterances, self._transcripts,
            observe=self._observe, note=self._note_unchecked,
        )  # fmt: skip
        ours = [pid for pids in self._services.processes().values() for pid in pids()]
        state.neighbours = self._guard.neighbours(ours)  # before anything of this candidate runs
        reuses = "vllm" in self.running
        if not reuses:
            self._deploy.prepare(services)
        with self._timed_if_it_fails("whisper"):
            state.start_s["whisper"] = self._services.start_whisper(services)
        state.start_s |= stopping
        load.warm_whisper(services.whisper, every_clip)
        state.engine_reused = reuses
        if not reuses:
            self._start_engine(services, deployment.engine_key)
        state.start_s["vllm"] = 0.0 if reuses else self.running["vllm"].start_s or 0.0
        for unproven in self._guard.prove(self.running, spanning={"vllm"}):
            self._note_unchecked(unproven)
        load.warm_engine()

    def _start_engine(self, services: Services, key: str) -> None:
        state = self._now()
        if (waited_s := self._deploy.wait_prepared()) is not None:
            state.start_s["imports"] = waited_s
        started = time.monotonic()
        if unknown := self._guard.wait_until_stable():
            self._note_unchecked(unknown)
        state.start_s["memory_stable"] = time.monotonic() - started
        if self._preflight:
            self._preflight.about_to_start()
        with self._timed_if_it_fails("vllm"):
            engine = self._services.start_engine(services, key)
        if self._preflight:
            self._preflight.learn(engine, services.vllm)

    @contextlib.contextmanager
    def _timed_if_it_fails(self, service: str) -> Iterator[None]:
        """Record how long a failed start took; a start that succeeds reports its own time."""
        started = time.monotonic()
        try:
            yield
        except ServiceError:
            self._now().start_s[service] = time.monotonic() - started
            raise

    def window(self) -> tuple[WindowResult, DeviceStats]:
        """Measure one window of load and return it raw; the first also finds the capacity. Raise ServiceError."""
        assert self._load is not None, "no evaluation is under way"
        return self._load.window()

    def so_far(self) -> Measurement:
        """Return the measurement of the windows until now; more may follow."""
        state, engine = self._now(), self._services.engine_info
        metrics, score = score_metrics(state, engine, self.config.objective, self.config.ray.trials_per_card if self.device == "cuda" else None)
        return Measurement(
            Status.OK,
            self.device,
            metrics=metrics,
            score=score,
            n_windows=len(state.windows),
            engine_reused=state.engine_reused,
            engine=engine.as_dict() if engine else {},
            timings=Timings(dict(state.start_s), state.warm_s, state.load_s),
            measured_on=self._guard.measured_on(),
        )

    def finish(self) -> Measurement:
        """Stop Whisper (the engine stays for the next candidate) and return the measurement."""
        measured = self.so_far()
        return replace(measured, timings=replace(measured.timings, stop_s={"whisper": self._end_evaluation()}))

    def fail(self, failure: Failure) -> Measurement:
        """Stop all services and return the failure as the measurement."""
        started = time.monotonic()
        state = self._state or EvaluationState({})
        self.stop_services()
        timings = Timings(state.start_s, state.warm_s, state.load_s, {"all": time.monotonic() - started})
        return Measurement.failed(
            failure, self.device, timings=timings, engine_reused=state.engine_reused, measured_on=self._guard.measured_on()
        )

    def stop_services(self) -> None:
        """Stop every service, which ends the evaluation under way."""
        self._end_evaluation()
        self._stop_engine()

    def close(self) -> None:
        """Leave nothing running."""
        self.stop_services()
        self._services.close()
        self._guard.close()

    def _now(self) -> EvaluationState:
        assert self._state is not None, "no evaluation is under way"
        return self._state

    def _note_unchecked(self, unknown: str) -> None:
        """Keep what the device does not report in the candidate's metrics, and log it once."""
        self._now().unchecked.setdefault(unknown)
        if unknown not in self._logged_unchecked:
            self._logged_unchecked.add(unknown)
            self._log(unknown)

    def _end_evaluation(self) -> float:
        """Stop Whisper, which every evaluation starts anew, and return the seconds that took."""
        self._state = self._load = None
        return self._services.stop("whisper")

    def _stop_engine(self) -> dict[str, float]:
        """Stop the engine, if one runs, wait for the card's memory, and return the seconds that took by part."""
        if "vllm" not in self.running:
            return {}
        started = time.monotonic()
        self._services.stop("vllm")
        if problem := self._guard.check_returned():
            self._log(problem)
        return {"engine_stop": time.monotonic() - started}
