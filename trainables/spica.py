"""The SPICA evaluator as a Ray Tune Trainable: one trial is one evaluation, one `step` is one window of load."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from ray import tune

from tune_gpu.artifacts.records.evaluation import EvaluationRecord, FailedAttempt
from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.config.loader import config_of
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Measurement
from tune_gpu.evaluation.record import record_of
from tune_gpu.evaluation.retries import attempt_of, may_retry
from tune_gpu.ray_tune.live_metrics import TrialMetrics
from tune_gpu.ray_tune.placement import TrialResources, trial_resources
from tune_gpu.ray_tune.service_actors import PlacementGroupDeployer
from tune_gpu.search.evaluations import Candidate
from tune_gpu.services.deployment import resolve
from tune_gpu.telemetry.sampler import DeviceSample

Resources = Callable[[dict[str, Any]], TrialResources]
"""A candidate's parameters -> the resources of its trial."""


def spica_trainable(
    experiment: dict[str, Any], device: str, resources: Resources, base: type[SpicaTrainable] | None = None
) -> type[tune.Trainable]:
    """Return the Trainable of one experiment. It makes its own resource request, so that Ray's dashboard shows its actors by their class
    name.

    Args:
        experiment: the resolved configuration.
        device: `cuda` or `cpu`.
        resources: function that returns the resources of a candidate's trial, for example two cards for a candidate on two cards.
        base: subclass of `SpicaTrainable` to use instead of it.
    """

    class Sized(base or SpicaTrainable):  # type: ignore[misc]
        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory(resources(config["candidate"]["params"]).bundles, strategy="STRICT_PACK")

    made = tune.with_parameters(Sized, experiment=experiment, device=device)
    made.__name__ = made.__qualname__ = SpicaTrainable.__name__  # otherwise the dashboard shows every trial as `with_parameters.<locals>._Inner`
    return cast(type[tune.Trainable], made)


@dataclass(frozen=True)
class Idle:
    """The candidate's evaluation has not begun."""


@dataclass(frozen=True)
class Measuring:
    """The services are up. The next step measures one more window, unless a race ends the trial first."""

    n_windows: int
    record: EvaluationRecord | None
    """The record that was last reported to Tune and is not published yet; None before the first window."""


@dataclass(frozen=True)
class Retrying:
    """The attempt failed, and its cause was reported. The next step raises, so that Ray starts another attempt in a new actor."""

    why: str
    record: EvaluationRecord


@dataclass(frozen=True)
class Done:
    """The evaluation has ended, and its record was published."""


State = Idle | Measuring | Retrying | Done


class SpicaTrainable(tune.Trainable):
    """Evaluates the candidate in `config["candidate"]`.

    It reports with every window `fitness` (NaN if there is none, because Tune requires the key), `stderr`, `status`, `violation`,
    `transient`, `n_windows`, and `line_json`, the candidate's line in the artifacts. Its actor is reused from trial to trial, so that the
    engine can stay.

    A failure to be retried is reported in one step and raised in the next. Tune retries only a trial that raises, and drops the result of
    the step that raises, so the cause must be reported before. `RetryTracker` reads it from the report (`retry_json`) and passes it to the
    next attempt, so that the artifacts name every attempt and `may_retry` can count them.

    States: Idle -> Measuring -> Done, and from Idle or Measuring to Done or Retrying on a failure. Each new trial of the actor begins Idle.
    """

    def setup(self, config: dict[str, Any], experiment: dict[str, Any] | None = None, device: str = "cpu") -> None:
        """Store the arguments, and start nothing: Tune also makes actors that never get a trial."""
        assert experiment is not None
        self._experiment = config_of(experiment)
        self._device = device
        self._redactor = Redactor(self._experiment)
        self._evaluator: Evaluator | None = None
        self._bundle: PlacementGroupDeployer | None = None
        self._metrics: TrialMetrics | None = None
        self._state: State = Idle()
        self._reset(config)

    def __repr__(self) -> str:
        """Return the text that Ray's dashboard shows beside the class. Ray reads it once, when the actor is up."""
        return f"{self._experiment.name} on {self._device}" if hasattr(self, "_experiment") else type(self).__name__

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept another trial in the same actor."""
        self._reset(new_config)
        return True

    def resources(self) -> TrialResources:
        """Return the resources of the current candidate's trial."""
        return trial_resources(self._experiment, self._deployment, self._device)

    def new_evaluator(self, observe: Callable[[DeviceSample], None]) -> Evaluator:
        """Return this actor's evaluator. Services are processes of this actor, or actors in the second bundle if the trial holds a card."""
        resources = self.resources()
        deploy = None
        if resources.services is not None:
            deploy = self._bundle = PlacementGroupDeployer(self._experiment, self._device, resources, lambda: self.trial_name)
        return Evaluator(self._experiment, self._device, observe=observe, deploy=deploy)

    def _reset(self, config: dict[str, Any]) -> None:
        self._publish_pending()
        self._candidate = config["candidate"]
        self._retries = [FailedAttempt.parse(each, "retries") for each in config.get("retries", [])]
        self._state = Idle()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._started = time.monotonic()

    def step(self) -> dict[str, Any]:
        """Measure one window, and return its report. The first step also starts the services; the last one also stops them.

        Raises:
            RuntimeError: the previous step reported a failure to be retried (see the class).
        """
        if isinstance(self._state, Retrying):
            raise RuntimeError(self._state.why)
        try:
            evaluator = self._deployed()
            evaluator.window()
            n_windows = 1 + (self._state.n_windows if isinstance(self._state, Measuring) else 0)
            if n_windows < self._experiment.workload.windows:
                record = self._record(evaluator.so_far())
                self._state = Measuring(n_windows, record)
                return record.report()
            return self._ended(evaluator.finish())
        except ServiceError as error:
            return self._failed(error.failure, again=may_retry(error.failure, self._retries, self._experiment.ray.max_retries))
        except UserError as error:
            # Only this node can detect that a model or clips are missing.
            return self._failed(Failure(FailureKind.STARTUP_CRASH, "tune_gpu", Phase.START, str(error)), again=False)
        except Exception as error:
            # This is a bug of ours, not the candidate's failure. It is recorded as such, and nothing is left running.
            return self._failed(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, f"{type(error).__name__}: {error}"), again=False)

    def _deployed(self) -> Evaluator:
        """Return the evaluator with the candidate's services running. The first step starts them."""
        if not isinstance(self._state, Idle):
            assert self._evaluator is not None
            return self._evaluator
        self._metrics = self._metrics or TrialMetrics(self._experiment.name, self._device, catalogue_for(self._experiment))
        self._metrics.begin(self._candidate)
        self._deployment = resolve(self._experiment, self._candidate["params"], self._device)
        self._evaluator = self._evaluator or self.new_evaluator(self._metrics.observe)
        self._log(f"{self._candidate['origin']}, {self._candidate['params']}: started")
        self._started = time.monotonic()
        if self._bundle is not None:
            self._bundle.resources = self.resources()
        self._evaluator.begin(self._deployment)
        self._state = Measuring(0, None)
        return self._evaluator

    def _failed(self, failure: Failure, *, again: bool) -> dict[str, Any]:
        """Record a failure. Report it as the result, or with its cause if the trial is to be retried."""
        measured = self._evaluator.fail(failure) if self._evaluator is not None else Measurement.failed(failure, self._device)
        if not again:
            return self._ended(measured)
        record = self._record(measured)
        why = self._redactor.text(f"{failure.kind} while in {failure.phase}: {failure.message}; retrying")
        self._state = Retrying(why, record)
        cause = self._redactor.value(attempt_of(failure, time.monotonic() - self._started).dump())
        return record.report() | {"retry_json": json.dumps({"attempt": len(self._retries), "cause": cause})}

    def _ended(self, measurement: Measurement) -> dict[str, Any]:
        record = self._record(measurement)
        self._publish(record)
        self._state = Done()
        return record.report() | {"done": True}

    def _record(self, measurement: Measurement) -> EvaluationRecord:
        """Return the record of all windows so far. A race may end the trial after any of them."""
        return record_of(
            Candidate(**self._candidate),
            measurement,
            objectives=self._experiment.search.objectives,
            started_at=self._started_at,
            wall_s=time.monotonic() - self._started + sum(attempt.wall_s or 0.0 for attempt in self._retries),
            retries=self._retries,
            redact=self._redactor.value,
        )

    def _log(self, text: str) -> None:
        """Print a line to the actor's log, which the dashboard shows. Trials share an actor, so the line names the candidate."""
        print(f"{datetime.now(UTC).isoformat(timespec='seconds')} {self._candidate['candidate_id']} {text}", flush=True)

    def _publish(self, record: EvaluationRecord) -> None:
        """Set Ray's metrics and write the actor's log, once per evaluation."""
        if self._metrics is not None:
            self._metrics.ended(record)
            failure = f": {record.failure.kind}, {record.failure.message}" if record.failure else ""
            self._log(f"{record.status}, fitness {record.fitness}{failure}")

    def _publish_pending(self) -> None:
        """Publish the record of a trial that Tune ended between two windows, or of an abandoned attempt. Only the next call shows that this
        happened."""
        if isinstance(self._state, (Measuring, Retrying)) and self._state.record is not None:
            self._publish(self._state.record)
        self._state = Done()

    def cleanup(self) -> None:
        """Leave nothing of a trial running."""
        self._publish_pending()
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self._evaluator is not None:
            self._evaluator.close()
            self._evaluator = None
