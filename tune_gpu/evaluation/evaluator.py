"""One evaluation: deploy a candidate for real, drive it with the traffic it will see, measure, take it down. Knows no Ray.

The order matters (DESIGN.md, "An evaluation, step by step"): Whisper starts first and is warmed with the longest utterance, because its peak
depends on its input; then the memory must be stable, because vLLM charges what moves while it profiles to its KV cache; vLLM starts second;
then both are put under load.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tune_gpu.common.failures import Failure, ServiceError
from tune_gpu.config.languages import spoken_language
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.evaluation.deployers import LocalDeployer, ServiceDeployer
from tune_gpu.evaluation.device_guard import DeviceGuard
from tune_gpu.evaluation.load_session import LoadSession, Transcripts
from tune_gpu.evaluation.measurement import Measurement, Status, Timings
from tune_gpu.evaluation.preflight_check import PreflightCheck
from tune_gpu.evaluation.scoring import score_metrics
from tune_gpu.evaluation.service_set import ServiceSet
from tune_gpu.evaluation.session_load import Planner, SessionLoad, planned_sessions
from tune_gpu.evaluation.state import EvaluationState
from tune_gpu.evaluation.taken_memory import TakenMemory
from tune_gpu.services.base import Service, start_order
from tune_gpu.services.deployment import Deployment, resolve
from tune_gpu.services.running import RunningService
from tune_gpu.telemetry.probe import Probe
from tune_gpu.telemetry.sampler import DeviceSample, DeviceStats
from tune_gpu.workload.inputs import load_inputs
from tune_gpu.workload.stages import background_of, stages_of
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
        self._plan: Planner | None = None
        if config.workload.has_sessions:
            self._plan, self._inputs = planned_sessions(config)
        else:
            self._inputs = load_inputs(config.workload, (*stages_of(config), *background_of(config)), spoken_language(config))
        self._transcripts: Transcripts = {}
        self._preflight: PreflightCheck | None = None
        self._taken: TakenMemory | None = None
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
            every_clip: transcribe every clip once for the word error rate (see `LoadSession.warm`).

        Raises:
            ServiceError: the candidate cannot be deployed.
        """
        self._end_evaluation()  # a race may have ended one between two windows
        self._check_memory(deployment)
        services = self._services.on_this_card(deployment.services)
        stopping = self._stop(self._services.not_kept(services))
        self._guard.use(deployment.n_cards)
        self._state = state = EvaluationState(dict(deployment.params), first_window)
        self._load = load = LoadSession(
            self.config, self._services, self._guard, state, self._inputs, self._transcripts,
            observe=self._observe, note=self._note_unchecked, sessions=SessionLoad(self.config.workload, self._plan) if self._plan else None,
        )  # fmt: skip
        ours = [pid for pids in self._services.processes().values() for pid in pids()]
        state.neighbours = self._guard.neighbours(ours)  # before anything of this candidate runs
        state.reused = tuple(self.running)
        state.start_s |= stopping
        missing = [service for service in start_order(services) if service.name not in self.running]
        self._deploy.prepare(missing)
        for service in missing:
            if service.reserves:
                self._start_reserving(service)
            else:
                self._start(service)
                load.warm(service, every_clip)
                self._note_taken(service)
        state.start_s |= dict.fromkeys(state.reused, 0.0)
        reserving = self._services.reserving()
        state.engine_reused = bool(reserving) and set(reserving) <= set(state.reused)
        on_cards = {service.name: self.running[service.name] for service in start_order(services) if service.gpus.cards}
        for unproven in self._guard.prove(on_cards, spanning={service.name for service in services if service.gpus.cards > 1}):
            self._note_unchecked(unproven)
        for service in start_order(services):
            if service.reserves or service.name in state.reused:
                load.warm(service, every_clip)
                self._note_taken(service)

    def _check_memory(self, deployment: Deployment) -> None:
        """Raise ServiceError (`infeasible`) for services that cannot fit."""
        if not self.config.run.preflight:
            return
        if self._preflight is None:
            self._preflight = PreflightCheck(self.config, self.device, self._log, self._guard.first_card)
            self._taken = TakenMemory(self._preflight, self._services, self._guard)
        self._preflight.check(deployment)

    def _note_taken(self, service: Service) -> None:
        if self._taken is not None:
            self._taken.warmed(service)

    def _start(self, service: Service) -> RunningService[Any]:
        with self._timed_if_it_fails(service.name):
            made = self._services.start(service)
        self._now().start_s[service.name] = made.start_s or 0.0
        return made

    def _start_reserving(self, service: Service) -> None:
        """Start a service that profiles what is free: the memory must be stable, because it charges what moves meanwhile to its own share."""
        start_s = self._now().start_s
        if (waited_s := self._deploy.wait_prepared()) is not None:
            start_s["imports"] = start_s.get("imports", 0.0) + waited_s
        started = time.monotonic()
        if unknown := self._guard.wait_until_stable():
            self._note_unchecked(unknown)
        start_s["memory_stable"] = start_s.get("memory_stable", 0.0) + time.monotonic() - started
        if self._preflight:
            self._preflight.about_to_start()
        made = self._start(service)
        if self._preflight:
            self._preflight.learn(made, service)

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
        state, facts = self._now(), self._services.facts()
        trials_per_card = self.config.ray.trials_per_card if self.device == "cuda" else None
        metrics, score = score_metrics(state, facts, self.config.objective, trials_per_card, catalogue_for(self.config))
        return Measurement(
            Status.OK,
            self.device,
            metrics=metrics,
            score=score,
            n_windows=len(state.windows),
            engine_reused=state.engine_reused,
            engine=next(iter(facts.values()), {}),
            timings=Timings(dict(state.start_s), state.warm_s, state.load_s),
            measured_on=self._guard.measured_on(),
        )

    def finish(self) -> Measurement:
        """Stop the services that no other candidate may use, and return the measurement."""
        measured = self.so_far()
        return replace(measured, timings=replace(measured.timings, stop_s=self._end_evaluation()))

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
        self._stop(list(reversed(list(self.running))))

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

    def _end_evaluation(self) -> dict[str, float]:
        """Stop the services that every evaluation starts anew, and return the seconds that each took."""
        if self._taken is not None and self._state is not None:
            self._taken.loaded(self._state.device)
        self._state = self._load = None
        return {name: self._services.stop(name) for name in self._services.not_reusable()}

    def _stop(self, names: Sequence[str]) -> dict[str, float]:
        """Stop these services, wait for the memory of those that reserved it, and return the seconds that took by part."""
        if not names:
            return {}
        reserved = set(names) & set(self._services.reserving())
        started = time.monotonic()
        for name in names:
            self._services.stop(name)
        if reserved and (problem := self._guard.check_returned()):
            self._log(problem)
        return {"engine_stop" if reserved else "stop": time.monotonic() - started}
