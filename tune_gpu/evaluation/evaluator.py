"""One evaluation: deploy a candidate for real, drive it with the traffic it will see, measure, take it down. Knows no Ray.

The order matters (DESIGN.md, "An evaluation, step by step"): Whisper first and warmed with the longest utterance, because its peak depends
on its input; memory stable, because vLLM charges what moves while it profiles to its KV cache; vLLM second; then load on both.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.config.deployment import deployment, engine_key
from tune_gpu.config.languages import spoken_language
from tune_gpu.config.schema import ExperimentConfig, Services, VllmSettings, WhisperSettings
from tune_gpu.evaluation.deployers import LlmService, LocalDeployer, ServiceDeployer
from tune_gpu.evaluation.measurement import Measurement, Status, Timings
from tune_gpu.evaluation.preflight_check import PreflightCheck
from tune_gpu.evaluation.scoring import metrics_of
from tune_gpu.evaluation.state import EvaluationState
from tune_gpu.services.hang import Checked, HangWatch
from tune_gpu.services.mps import MpsDaemon
from tune_gpu.services.mps_policy import asks_for_mps, forbidden
from tune_gpu.services.start_failures import out_of_memory_lines
from tune_gpu.services.vllm.launch import EngineHost
from tune_gpu.services.vllm.parallelism import cards_of
from tune_gpu.services.vllm.setup import engine_environment
from tune_gpu.telemetry.neighbours import neighbours_on
from tune_gpu.telemetry.open import open_probe
from tune_gpu.telemetry.probe import Probe, total
from tune_gpu.telemetry.sampler import DeviceSample, DeviceSampler, DeviceStats, wait_until_returned, wait_until_stable
from tune_gpu.telemetry.several import SeveralCards
from tune_gpu.telemetry.verdicts import NOT_PROVEN, Limits
from tune_gpu.workload.audio import load_utterances
from tune_gpu.workload.capacity import find_capacity
from tune_gpu.workload.clients import Endpoints
from tune_gpu.workload.summary import summarise
from tune_gpu.workload.voice_turn import TurnSample
from tune_gpu.workload.window import WindowResult, run_window, warm_up

_RETURNED_TOLERANCE_MIB = 256.0
_END_TOLD_S = 1.0
_CUT_OFF = ("connection", "truncated_stream")
"""Errors of a request whose server may have died: before it answered, or in the middle of its answer."""


class Evaluator:
    """Evaluates candidates one after another, and keeps an engine running while its flags do not change.

    `begin`, `window` as often as wanted, `finish`; or `evaluate` for all of it. `close` in the end: it leaves nothing running.
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
        self._cards: dict[str, Probe] = {}
        self._idle_mib: dict[str, float | None] = {}
        self._n_cards = 1
        self._host: EngineHost | None = None
        self._engine: LlmService | None = None
        self._engine_key = ""
        self._running: EvaluationState | None = None
        self._gate: PreflightCheck | None = None
        self._mps: MpsDaemon | None = None
        self._utterances = load_utterances(config.workload.audio, spoken_language(config))
        self._heard: dict[str, list[TurnSample]] = {}
        self._said_unchecked: set[str] = set()

    @property
    def probe(self) -> Probe:
        """The device that the services get: all cards of an engine that spans several."""
        return _as_one(self._open_cards())

    def _open_cards(self) -> list[Probe]:
        """Each card of the candidate; what is on it when it is first looked at is not ours."""
        for card in self._card_names():
            if card not in self._cards:
                self._cards[card] = open_probe(self.device, card)
                self._idle_mib[card] = self._cards[card].read().used_mib
        return [self._cards[card] for card in self._card_names()]

    def _card_names(self) -> list[str]:
        """The first of CUDA_VISIBLE_DEVICES, as they stand there; by number where nobody has assigned any."""
        visible = self._deploy.visible_devices() if self.device == "cuda" else ""
        return visible.split(",")[: self._n_cards] if visible else [str(number) for number in range(self._n_cards)]

    def _card(self) -> str:
        """The one that both services are on."""
        return self._card_names()[0]

    def evaluate(self, params: Mapping[str, Any]) -> Measurement:
        """All of one evaluation."""
        try:
            self.begin(params)
            for _ in range(self.config.workload.windows):
                self.window()
            return self.finish()
        except ServiceError as error:
            return self.fail(error.failure)

    def begin(self, params: Mapping[str, Any], *, first_window: int = 0, every_clip: bool = True) -> None:
        """Deploy and warm up; ends the evaluation before, if it was left in the middle. Raises ServiceError.

        Args:
            params: of the candidate.
            first_window: windows of the same number have the same traffic; the first of this evaluation has this number.
            every_clip: hear every clip once for the word error rate (see `_hear`).
        """
        self._stop_whisper()  # of an evaluation that a race ended between two windows
        if self.config.run.preflight:
            self._gate = self._gate or PreflightCheck(self.config, self.device, self._log, self._card())
            self._gate.check(params)
        services = deployment(self.config, params)
        key = engine_key(services.vllm)
        stopping: dict[str, float] = {}
        if self._engine is not None and (self._engine_key != key or self._engine.failure() is not None):
            began = time.monotonic()
            self._stop_engine()
            stopping["engine_stop"] = time.monotonic() - began
        self._n_cards = cards_of(self.config, params) if self.device == "cuda" else 1
        self._share_card(services)
        whisper = self._deploy.whisper(services)
        self._running = running = EvaluationState(dict(params), whisper, first_window)
        ours = [*(self._engine.pids() if self._engine else []), *(self._mps.pids() if self._mps else [])]
        running.neighbours = neighbours_on(self.probe, ours)  # before anything of this candidate is there
        if self._engine is None and self._forks:
            self._warm_host(services.vllm).prepare()
        with self._taking_time("whisper"):
            whisper.start()
        running.start_s |= {"whisper": whisper.start_s or 0.0} | stopping
        self._hear(services.whisper, every_clip)
        running.engine_reused = self._engine is not None
        if self._engine is None:
            self._start_engine(services, key)
        running.start_s["vllm"] = (
            0.0 if running.engine_reused else (self._engine.info.start_s if self._engine and self._engine.info else 0.0)
        )
        self._prove_device()
        started = time.monotonic()
        with self._watched(Phase.WARM):  # Whisper has been warmed: hearing the longest utterance again would teach it nothing
            answered = warm_up(self._endpoints(), self.config.workload, self._utterances, mode="llm", abort=self._lost)
        self._expect_answers(answered, "vllm")
        running.warm_s += time.monotonic() - started

    def _hear(self, settings: WhisperSettings, every_clip: bool) -> None:
        """Warm Whisper up with the longest utterance; the first time that it has these settings it hears every clip.

        What decides a transcript is the model, its precision, its beam: not the cores, not the load. So every clip is heard once per such
        settings, and counts in the word error rate of all candidates that have them: a few turns of a window would leave it to chance
        which clips a candidate is judged by.
        """
        key = replace(settings, cpu_cores=None, cpu_threads=1, num_workers=1, start_timeout_s=0.0)
        turns = 1 if str(key) in self._heard or not every_clip else len(self._utterances)
        running, started = self._now(), time.monotonic()
        with self._watched(Phase.WARM):
            heard = warm_up(
                self._endpoints(),
                self.config.workload,
                self._utterances,
                turns=turns,
                mode="stt",
                workers=settings.num_workers,
                abort=self._lost,
            )
        self._expect_answers(heard, "whisper")
        if turns > 1:
            running.load_s += time.monotonic() - started  # the measurement of its word error rate
        else:
            running.warm_s += time.monotonic() - started
        running.heard = self._heard.setdefault(str(key), heard) if every_clip else self._heard.get(str(key), [])

    @property
    def _forks(self) -> bool:
        """Return whether engines come from the warm host: on the CPU only, as the preflight counts on; in a Ray actor with a card it would be of no use."""
        return self.config.run.warm_engine and self.device == "cpu"

    def _warm_host(self, settings: VllmSettings) -> EngineHost:
        if self._host is None:
            self._host = EngineHost(engine_environment(settings, "", self.device, tempfile.gettempdir()))
        return self._host

    def _share_card(self, services: Services) -> None:
        """Keep both services on the trial's card; where one is held to a part of it, both become clients of the trial's own MPS daemon. Raises ServiceError."""
        for service in (services.vllm, services.whisper):
            service.env.pop("CUDA_VISIBLE_DEVICES", None)  # measured on the trial's own card; the user's value is for the deployment
        if not asks_for_mps(services):
            return
        if why := forbidden(self.config, self.device):
            raise ServiceError(Failure(FailureKind.INFEASIBLE, "tune_gpu", Phase.PREFLIGHT, why))
        if self._mps is None:
            daemon = MpsDaemon(self.probe.info.uuid or self._card())
            daemon.start()
            self._mps = daemon
        for service in (services.vllm, services.whisper):
            service.env.update(self._mps.environment(service.mps_active_thread_pct))

    def _start_engine(self, services: Services, key: str) -> None:
        assert self._running is not None
        run, settings = self.config.run, services.vllm
        host = self._warm_host(settings) if self._forks else None
        started = time.monotonic()
        if host is not None:
            host.open()
            self._running.start_s["imports"] = time.monotonic() - started
        started = time.monotonic()
        stable = wait_until_stable(
            self.probe, samples=run.memory_stable_samples, tolerance_mib=run.memory_stable_mib, timeout_s=run.memory_timeout_s
        )
        if stable is None:
            self._note_unchecked("the card does not report its memory: whether it was stable before vLLM started, and has come back after, is not known")
        self._running.start_s["memory_stable"] = time.monotonic() - started
        engine = self._deploy.vllm(services, host)
        if self._gate:
            self._gate.about_to_start()
        with self._taking_time("vllm"):
            engine.start(abort=self._whisper_lost)
        if self._gate:
            self._gate.learn(engine)
        self._engine, self._engine_key = engine, key

    @contextlib.contextmanager
    def _taking_time(self, service: str) -> Iterator[None]:
        """A start that fails has taken its time as well; one that succeeds says itself how long it took."""
        started = time.monotonic()
        try:
            yield
        except ServiceError:
            self._now().start_s[service] = time.monotonic() - started
            raise

    def window(self) -> tuple[WindowResult, DeviceStats]:
        """One window of load on both services, raw; the first also finds the capacity. Raises ServiceError."""
        running, workload = self._now(), self.config.workload
        first = not running.windows
        result, device = self._undisturbed(running.first_window + len(running.windows), "mixed")
        device = self._with_own_words(device)
        for said in device.unchecked:
            self._note_unchecked(said)
        self._expect_answers(result.turns, "services")
        running.windows.append(result)
        running.device.append(device)
        if first and workload.solo_window_s > 0:
            for mode in ("stt", "llm"):
                running.solo[mode] = summarise([self._undisturbed(10_000, mode, workload.solo_window_s)[0]])
        if first and workload.capacity_step_s > 0:
            started = time.monotonic()
            with self._watched(Phase.LOAD):
                running.capacity = find_capacity(
                    self._endpoints(),
                    workload,
                    self.config.objective,
                    self._utterances,
                    seed=self.config.search.seed + running.first_window,
                    abort=self._lost,
                )
            running.load_s += time.monotonic() - started
            self._raise_if_lost()
        return result, device

    def so_far(self) -> Measurement:
        """The measurement that the windows until now make; more may follow."""
        running = self._now()
        engine = self._engine.info.as_dict() if self._engine and self._engine.info else {}
        return Measurement(
            Status.OK,
            self.device,
            metrics=metrics_of(
                running,
                self._engine.info if self._engine else None,
                self.config.objective,
                self.config.ray.trials_per_card if self.device == "cuda" else None,
            ),
            n_windows=len(running.windows),
            engine_reused=running.engine_reused,
            engine=engine,
            timings=Timings(dict(running.start_s), running.warm_s, running.load_s),
            measured_on=self._measured_on(),
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
        reused = bool(running and running.engine_reused)
        return Measurement.failed(failure, self.device, timings=timings, engine_reused=reused, measured_on=self._measured_on())

    def close(self) -> None:
        """Leave nothing running."""
        self._stop_whisper()
        self._stop_engine()
        if self._host is not None:
            self._host.close()
            self._host = None
        if self._mps is not None:
            self._mps.stop()
            self._mps = None
        for card in self._cards.values():
            card.close()
        self._cards = {}
        self._deploy.close()

    def _measured_on(self) -> dict[str, Any]:
        opened = [self._cards[card] for card in self._card_names() if card in self._cards]  # one that cannot be is what failed
        return {"host": socket.gethostname(), **_as_one(opened).info.as_dict()} if opened else {}

    def _now(self) -> EvaluationState:
        assert self._running is not None, "no evaluation is under way"
        return self._running

    def _undisturbed(self, index: int, mode: str, seconds: float | None = None) -> tuple[WindowResult, DeviceStats]:
        """A window that counts: one that was disturbed is measured again, a bounded number of times in an evaluation."""
        running, allowed = self._now(), self.config.telemetry.max_invalid_windows
        while True:
            result, device = self._measured(index, mode, seconds)
            if device.wrong_device:
                raise ServiceError(Failure(FailureKind.WRONG_DEVICE, "tune_gpu", Phase.LOAD, device.wrong_device))
            invalid = result.invalid or device.invalid
            if invalid is None:
                return result, device
            running.n_invalid += 1
            if running.n_invalid > allowed:
                message = f"{running.n_invalid} windows were disturbed (allowed {allowed}); the last: {invalid}"
                raise ServiceError(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, message))

    def _measured(self, index: int, mode: str, seconds: float | None = None) -> tuple[WindowResult, DeviceStats]:
        running = self._now()
        services = {"whisper": running.whisper.pids, "vllm": self._engine.pids if self._engine else list}
        services |= {"mps": self._mps.pids} if self._mps else {}
        started = time.monotonic()
        kv_cache = self._engine.kv_cache_pct if self._engine else lambda: None
        watched = self.config.telemetry
        sampler = DeviceSampler(
            self.probe,
            services,
            kv_cache=kv_cache,
            observe=self._observe,
            neighbours=running.neighbours.pids,
            limits=Limits(
                watched.max_throttled_share,
                watched.power_cap_invalidates,
                watched.max_clock_fall_share,
                foreigners_invalidate=self.config.ray.trials_per_card == 1,
            ),
            reference_mhz=max((w.busy_clock_mhz for w in running.device if w.busy_clock_mhz is not None), default=None),
        )
        with self._watched(Phase.LOAD), sampler:
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
        self._raise_if_lost([*(turn.error for turn in result.turns), *(sample.error for sample in result.background)])
        return result, sampler.window()

    def _with_own_words(self, device: DeviceStats) -> DeviceStats:
        """Whisper stays up when the card has no memory for a request, and no kernel counts it: its log does."""
        running = self._now()
        before, running.n_out_of_memory = running.n_out_of_memory, len(out_of_memory_lines(running.whisper.log()))
        return replace(device, oom_events=device.oom_events + running.n_out_of_memory - before)

    def _endpoints(self) -> Endpoints:
        whisper, engine = self._now().whisper, self._engine
        return Endpoints(
            engine.base_url if engine else "",
            engine.served_model_name if engine else "",
            engine.api_key if engine else "",
            whisper.base_url,
            whisper.api_key,
            self._now().pulse,
        )

    @contextlib.contextmanager
    def _watched(self, phase: Phase) -> Iterator[None]:
        """While there is load on the services: a hang is noticed. In a warm-up only by the health checks: a first answer may compile."""
        running = self._now()
        services: dict[str, Checked] = {"whisper": running.whisper}
        services |= {"vllm": self._engine} if self._engine else {}
        pulse = running.pulse if phase is Phase.LOAD else None
        running.watch = HangWatch(services, pulse, self.config.run.hang_timeout_s, phase)
        with running.watch:
            yield

    def _whisper_lost(self) -> str | None:
        failure = self._now().whisper.failure()
        return failure.message if failure else None

    def _failure(self) -> Failure | None:
        running = self._now()
        lost = running.whisper.failure() or (self._engine.failure() if self._engine else None)
        return lost or (running.watch.failure() if running.watch else None)

    def _lost(self) -> str | None:
        failure = self._failure()
        return failure.message if failure else None

    def _raise_if_lost(self, errors: Sequence[str | None] = ()) -> None:
        """A service that was killed closes its connections some milliseconds before its guard has told its end: where some broke, that is awaited."""
        broken = any(error and any(sign in error for sign in _CUT_OFF) for error in errors)
        deadline = time.monotonic() + (_END_TOLD_S if broken else 0.0)
        while not (failure := self._failure()) and time.monotonic() < deadline:
            time.sleep(0.02)
        if failure:
            raise ServiceError(failure)

    def _expect_answers(self, turns: Sequence[TurnSample], service: str) -> None:
        """Not one answer of many is no measurement: the service is there and does not serve."""
        errors = [turn.error for turn in turns]
        self._raise_if_lost(errors)
        if errors and all(errors):
            if said := out_of_memory_lines(self._now().whisper.log()):
                message = "out of memory under load, for every request: a smaller model, fewer workers or a smaller share of vLLM"
                raise ServiceError(Failure(FailureKind.OOM, "whisper", Phase.LOAD, message, said[-1]))
            kind = FailureKind.SERVICE_HUNG if all("timeout" in (error or "") for error in errors) else FailureKind.REQUESTS_FAILED
            raise ServiceError(Failure(kind, service, Phase.LOAD, f"none of {len(errors)} voice turns was answered ({errors[0]})"))

    def _prove_device(self) -> None:
        """On a card, each service's processes must be there (law 2): Whisper's on the first, the engine's on all that it spans.

        A card that does not list its processes proves nothing, neither for nor against: the measurement says so.
        """
        if self.device != "cuda" or self._engine is None:
            return
        cards = self._open_cards()
        for name, pids, on in (("whisper", self._now().whisper.pids(), cards[:1]), ("vllm", self._engine.pids(), cards)):
            for card in on:
                there = card.memory_by_pid_mib(pids)
                if there is None:
                    self._note_unchecked(f"{NOT_PROVEN} {name} is on {card.info.name}: {card.whereabouts(pids)}")
                elif not there:
                    message = f"none of its processes holds memory on {card.info.name} ({card.info.uuid}); {card.whereabouts(pids)}"
                    raise ServiceError(Failure(FailureKind.WRONG_DEVICE, name, Phase.START, message))

    def _note_unchecked(self, said: str) -> None:
        """What the card does not report is in the metrics of each candidate, and once in the log."""
        self._now().unchecked.setdefault(said)
        if said not in self._said_unchecked:
            self._said_unchecked.add(said)
            self._log(said)

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
        if self.device == "cuda" and self.config.ray.trials_per_card == 1:  # on the CPU a process that has gone has given its memory back; a driver may take its time
            try:
                idle_mib = total(self._idle_mib[card] for card in self._card_names())
                missing = wait_until_returned(
                    self.probe, idle_mib, tolerance_mib=_RETURNED_TOLERANCE_MIB, timeout_s=self.config.run.memory_timeout_s
                )
            except ServiceError as error:
                self._log(f"whether the card's memory has come back is not known: {error}")
                return
            if missing is None:
                self._log("whether the card's memory has come back is not known: the card does not report it")
            elif missing:
                self._log(f"{missing:.0f} MiB of the card have not come back after the engine ended")


def _as_one(cards: Sequence[Probe]) -> Probe:
    return cards[0] if len(cards) == 1 else SeveralCards(cards)
