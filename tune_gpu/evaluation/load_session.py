"""The load of one evaluation: warm-up, windows, solo windows and the capacity, each watched for services that fail or hang."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.evaluation.device_guard import DeviceGuard
from tune_gpu.evaluation.engine_metrics import block_sizes
from tune_gpu.evaluation.service_set import ServiceSet
from tune_gpu.evaluation.session_load import SessionLoad
from tune_gpu.evaluation.state import EvaluationState
from tune_gpu.services.base import Service
from tune_gpu.services.hang import HangWatch
from tune_gpu.services.pulse import ActivityTracker
from tune_gpu.services.start_failures import out_of_memory_lines
from tune_gpu.telemetry.sampler import DeviceSample, DeviceSampler, DeviceStats
from tune_gpu.telemetry.verdicts import Limits
from tune_gpu.workload.capacity import find_capacity
from tune_gpu.workload.inputs import Inputs
from tune_gpu.workload.sessions.values import SessionWindow
from tune_gpu.workload.summary import summarise
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn
from tune_gpu.workload.window import WindowResult, run_window, warm_up

Window = tuple[WindowResult, DeviceStats]
Transcripts = dict[str, list[Turn]]
"""Settings of a service -> every clip as it transcribes them; shared by the evaluations of one trial."""

_OF_NO_TRANSCRIPT = {"cpu_cores": None, "cpu_threads": 1, "num_workers": 1, "start_timeout_s": 0.0}
"""Settings that change no transcript, with a value for all of them."""
_SOLO_WINDOW = 10_000
_EXIT_REPORTED_S = 1.0
_NOT_OPENAIS = ("short_answer", "http_400", "http_422")
"""Errors of a request with a field that its server does not know: ignored, or refused."""
_CUT_OFF = ("connection", "truncated_stream")
"""Errors of a request whose server may have died: before it answered, or in the middle of its answer."""


class LoadSession:
    """Drives the services of one evaluation and writes what it sees into the evaluation's state.

    Args:
        services: what is driven.
        guard: the device that is sampled meanwhile.
        state: of this evaluation.
        transcripts: of the evaluations before, extended by this one.
        observe: receives one device sample a second, from the sampler's thread.
        note: receives what the device does not report.
        sessions: drives the windows, if the traffic is sessions.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        services: ServiceSet,
        guard: DeviceGuard,
        state: EvaluationState,
        inputs: Inputs,
        transcripts: Transcripts,
        *,
        observe: Callable[[DeviceSample], None],
        note: Callable[[str], None],
        sessions: SessionLoad | None = None,
    ) -> None:
        self._config, self._services, self._guard, self._state = config, services, guard, state
        self._inputs, self._transcripts, self._observe, self._note = inputs, transcripts, observe, note
        self._sessions = sessions
        self.activity = ActivityTracker()
        self._printed_before = {name: len(service.log()) for name, service in services.running.items()}
        self._vector_sizes: dict[str, int] = {}
        self._watch: HangWatch | None = None
        self._plan: SessionWindow | None = None
        """Of the last window."""

    def warm(self, service: Service, every_clip: bool) -> None:
        """Warm a service up with its largest input. Raise ServiceError if a service failed, hung or answered nothing."""
        traffic = self._traffic()
        if not traffic.drives(service.name):
            return
        if traffic.stage(service.name).protocol is Protocol.TRANSCRIPTION:
            self._transcribe_clips(service, every_clip)
            return
        started = time.monotonic()
        self._warm(service.name)
        self._state.warm_s += time.monotonic() - started

    def _transcribe_clips(self, service: Service, every_clip: bool) -> None:
        """Warm a service up with the longest utterance, or with every clip if none of these settings has transcribed them yet.

        A transcript depends on the model, its precision and its beam, not on cores or load. So every clip is transcribed once for such
        settings and counts in the word error rate of all candidates that have them: with the turns of a window alone it would be chance
        which clips a candidate is judged by.
        """
        settings = service.settings
        without = {name: value for name, value in _OF_NO_TRANSCRIPT.items() if hasattr(settings, name)}
        key = f"{service.name} {replace(settings, **without)}"
        turns = 1 if key in self._transcripts or not every_clip else len(self._inputs.clips)
        state, started = self._state, time.monotonic()
        answered = self._warm(service.name, turns=turns, workers=getattr(settings, "num_workers", 1))
        if turns > 1:
            state.load_s += time.monotonic() - started  # the measurement of its word error rate
        else:
            state.warm_s += time.monotonic() - started
        state.transcripts = [*state.transcripts, *(self._transcripts.setdefault(key, answered) if every_clip else self._transcripts.get(key, []))]

    def _warm(self, service: str, **load: Any) -> list[Turn]:
        with self._watched(Phase.WARM):
            answered = warm_up(self._traffic(), self._config.workload, self._inputs, only=service, abort=self.lost, **load)
        self._expect_answers(answered, service)
        return answered

    def window(self) -> Window:
        """Measure one window of load on all services; the first also measures solo windows and the capacity. Raise ServiceError."""
        state, workload = self._state, self._config.workload
        first = not state.windows
        if first:
            self.activity.most = state.at_once  # the warm-up does not count
        result, device = self._undisturbed(state.first_window + len(state.windows))
        device = self._with_logged_oom(device)
        for unknown in device.unchecked:
            self._note(unknown)
        self._expect_answers([*result.turns, *result.censored], "services")
        state.windows.append(result)
        state.device.append(device)
        if self._sessions is not None and self._plan is not None:
            state.ideals.append(self._sessions.ideals(self._plan, result, self._traffic(), block_sizes(self._services.facts())))
        if first and workload.solo_window_s > 0:
            for stage in self._traffic().stages:
                alone = self._undisturbed(_SOLO_WINDOW, stage.service, workload.solo_window_s)[0]
                state.solo[stage.label] = summarise([alone], catalogue_for(self._config))
        if first and workload.capacity_step_s > 0:
            self._find_capacity()
        return result, device

    def _find_capacity(self) -> None:
        state, config, started = self._state, self._config, time.monotonic()
        sessions, traffic = self._sessions, self._traffic()
        with self._watched(Phase.LOAD):
            state.capacity = find_capacity(
                traffic,
                config.workload,
                config.objective,
                self._inputs,
                catalogue_for(config),
                seed=config.search.seed + state.first_window,
                abort=self.lost,
                hold=None if sessions is None else lambda n, attempt: sessions.hold(traffic, state.first_window, n, attempt, self.lost),
            )
        state.load_s += time.monotonic() - started
        raise_if_lost(self.failure)

    def failure(self) -> Failure | None:
        """Return why the services can no longer be measured: one has ended, or hangs. None while all is well."""
        return self._services.failure() or (self._watch.failure() if self._watch else None)

    def lost(self) -> str | None:
        """Return the failure's message, or None."""
        failure = self.failure()
        return failure.message if failure else None

    def _undisturbed(self, index: int, only: str | None = None, seconds: float | None = None) -> Window:
        return undisturbed(lambda: self._measure(index, only, seconds), self._state, self._config.telemetry.max_invalid_windows)

    def _measure(self, index: int, only: str | None, seconds: float | None) -> Window:
        started, sampler = time.monotonic(), self._sampler()
        with self._watched(Phase.LOAD):
            drive = self._driver(index, only, seconds)
            with sampler:
                result = drive()
        self._state.load_s += time.monotonic() - started
        raise_if_lost(self.failure, [*(turn.error for turn in result.turns), *(sample.error for sample in result.background)])
        return result, sampler.window()

    def _driver(self, index: int, only: str | None, seconds: float | None) -> Callable[[], WindowResult]:
        """Return what drives a window. The caches for sessions are filled before this returns."""
        traffic, config, sessions = self._traffic(), self._config, self._sessions
        if sessions is not None:
            plan = sessions.fill(traffic, index, only, seconds, self.lost)
            self._state.fillings, self._plan = sessions.fillings, plan
            raise_if_lost(self.failure)
            return lambda: sessions.drive(plan, traffic, only, seconds, self.lost)
        return lambda: run_window(
            traffic, config.workload, self._inputs, seed=config.search.seed, window_index=index, only=only, seconds=seconds, abort=self.lost
        )

    def _sampler(self) -> DeviceSampler:
        rules = self._config.telemetry
        return DeviceSampler(
            self._guard.probe,
            self._services.processes_on_the_device(),
            gauges={name: service.gauges for name, service in self._services.running.items()},
            observe=self._observe,
            neighbours=self._state.neighbours.pids,
            limits=Limits(
                rules.max_throttled_share,
                rules.power_cap_invalidates,
                rules.max_clock_fall_share,
                foreigners_invalidate=self._config.ray.trials_per_card == 1,
            ),
            reference_mhz=max((w.busy_clock_mhz for w in self._state.device if w.busy_clock_mhz is not None), default=None),
        )

    def _with_logged_oom(self, device: DeviceStats) -> DeviceStats:
        """Add the requests that a service had no memory for. It survives them and no kernel counts them, so its log is counted."""
        before, self._state.n_out_of_memory = self._state.n_out_of_memory, len(self._logged_oom())
        return replace(device, oom_events=device.oom_events + self._state.n_out_of_memory - before)

    def _logged_oom(self) -> list[tuple[str, str]]:
        """Return the lines of requests without memory, each with its service. A service that has reserved its memory needs no more of it."""
        growing = [(name, service) for name, service in self._services.running.items() if name not in self._services.reserving()]
        return [(name, line) for name, service in growing for line in out_of_memory_lines(service.log()[self._printed_before.get(name, 0) :])]

    def _traffic(self) -> Traffic:
        """Return the traffic on the services that run by now."""
        endpoints = {name: service.endpoint for name, service in self._services.running.items()}
        return replace(Traffic.of(self._config, endpoints, self.activity), vector_sizes=self._vector_sizes)

    @contextlib.contextmanager
    def _watched(self, phase: Phase) -> Iterator[None]:
        """Watch the services for a hang while they are under load; in a warm-up by health checks only, because a first answer may compile."""
        activity = self.activity if phase is Phase.LOAD else None
        self._watch = HangWatch(self._services.running, activity, self._config.run.hang_timeout_s, phase)
        with self._watch:
            yield

    def _expect_answers(self, turns: Sequence[Turn], service: str) -> None:
        """Raise ServiceError if no turn was answered: the service runs and does not serve."""
        errors = [turn.error or "" for turn in turns]
        raise_if_lost(self.failure, errors)
        if errors and all(errors):
            if lines := self._logged_oom():
                message = "out of memory under load, for every request: a smaller model, fewer workers, or smaller shares of the services that reserve theirs"
                raise ServiceError(Failure(FailureKind.OOM, lines[-1][0], Phase.LOAD, message, lines[-1][1]))
            kind = FailureKind.SERVICE_HUNG if all("timeout" in error for error in errors) else FailureKind.REQUESTS_FAILED
            raise ServiceError(Failure(kind, service, Phase.LOAD, f"none of {len(errors)} turns was answered ({errors[0]}){self._advice(errors[0])}"))

    def _advice(self, error: str) -> str:
        """Return what to do if a service has rejected, or not obeyed, the field that only some servers know."""
        for name, settings in self._config.services.items():
            if getattr(settings, "ignore_eos", False) and error in [f"{name}_{refusal}" for refusal in _NOT_OPENAIS]:
                return f". If {name} does not know the field ignore_eos, set services.{name}.ignore_eos=false."
        return ""


def undisturbed(measure: Callable[[], Window], state: EvaluationState, allowed: int) -> Window:
    """Measure a window until it counts, and return it; disturbed ones are counted in `state.n_invalid`.

    Args:
        measure: measures the window, with the same traffic each time.
        allowed: how many disturbed windows one evaluation may have.

    Raises:
        ServiceError: `wrong_device`, at once, if a service is on another card; `measurement_invalid` after one disturbed window too many.
    """
    while True:
        result, device = measure()
        if device.wrong_device:
            raise ServiceError(Failure(FailureKind.WRONG_DEVICE, "tune_gpu", Phase.LOAD, device.wrong_device))
        invalid = result.invalid or device.invalid
        if invalid is None:
            return result, device
        state.n_invalid += 1
        if state.n_invalid > allowed:
            message = f"{state.n_invalid} windows were disturbed (allowed {allowed}); the last: {invalid}"
            raise ServiceError(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, message))


def raise_if_lost(failure: Callable[[], Failure | None], errors: Sequence[str | None] = ()) -> None:
    """Raise ServiceError if a service is lost.

    Connections break some milliseconds before the guard reports the exit. So if a request's connection broke, wait up to a second for it.
    """
    broken = any(error and any(sign in error for sign in _CUT_OFF) for error in errors)
    deadline = time.monotonic() + (_EXIT_REPORTED_S if broken else 0.0)
    while not (found := failure()) and time.monotonic() < deadline:
        time.sleep(0.02)
    if found:
        raise ServiceError(found)
