"""The SPICA evaluator as a Ray Tune Trainable: one trial is one evaluation, one `step` is one window of load."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from typing import Any, cast

from omegaconf import OmegaConf
from ray import tune

from trainables.evaluation import Evaluator
from tune_gpu.config import ExperimentConfig
from tune_gpu.measurement import Failure, FailureKind, Measurement, Phase, ServiceError, Status
from tune_gpu.objective import metric_at


def spica_trainable(experiment: dict[str, Any], device: str, resources: dict[str, float]) -> type[tune.Trainable]:
    """The Trainable of one experiment: what it asks Ray for is its own, so that Ray's dashboard shows its actors by their name.

    Args:
        experiment: the resolved configuration.
        device: `cuda` or `cpu`.
        resources: of one trial, as Ray names them (`CPU`, `GPU`).
    """

    class Sized(SpicaTrainable):
        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:  # noqa: ARG003 - Tune names it
            return tune.PlacementGroupFactory([resources])

    Sized.__name__ = Sized.__qualname__ = SpicaTrainable.__name__
    return cast(type[tune.Trainable], tune.with_parameters(Sized, experiment=experiment, device=device))


class SpicaTrainable(tune.Trainable):
    """Evaluates the candidate in `config["candidate"]`.

    Reports with every window `fitness` (NaN if there is none: Tune wants its key), `stderr`, `status`, `violation`, `transient`,
    `n_windows`, and `line_json`: the candidate's line of the artifacts. Its actor is re-used from trial to trial, so that the engine can stay.
    """

    def setup(self, config: dict[str, Any], experiment: dict[str, Any] | None = None, device: str = "cpu") -> None:
        """Starts nothing: Tune makes actors that never get a trial."""
        assert experiment is not None
        merged = OmegaConf.merge(OmegaConf.structured(ExperimentConfig), experiment)
        self._experiment: ExperimentConfig = OmegaConf.to_object(merged)  # type: ignore[assignment]
        self._device = device
        self._evaluator: Evaluator | None = None
        self._reset(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial for the same actor."""
        self._reset(new_config)
        return True

    def _reset(self, config: dict[str, Any]) -> None:
        self._candidate = config["candidate"]
        self._windows = 0
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._started = time.monotonic()

    def step(self) -> dict[str, Any]:
        """One window; the first also deploys, the last also takes down. A failure is a result, not an error."""
        try:
            if self._evaluator is None:
                self._evaluator = Evaluator(self._experiment, self._device)
            if self._windows == 0:
                self._started = time.monotonic()
                self._evaluator.begin(self._candidate["params"])
            self._evaluator.window()
            self._windows += 1
            if self._windows < self._experiment.workload.windows:
                return self._report(self._evaluator.so_far())
            return self._report(self._evaluator.finish(), done=True)
        except ServiceError as error:
            assert self._evaluator is not None
            return self._report(self._evaluator.fail(error.failure), done=True)
        except Exception as error:
            # Ours, not the candidate's; recorded as such, with nothing left running.
            failure = Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, f"{type(error).__name__}: {error}")
            if self._evaluator is None:
                raise
            return self._report(self._evaluator.fail(failure), done=True)

    def _report(self, measurement: Measurement, *, done: bool = False) -> dict[str, Any]:
        metrics = dict(measurement.metrics)
        fitness = metrics.pop("fitness", None)
        stderr = metrics.pop("fitness_stderr", None)
        violations = metrics.pop("violations", {})
        failure = measurement.failure
        said = {
            "status": str(measurement.status),
            "violation": _violation(measurement, violations),
            "transient": bool(failure and failure.retryable),
            "n_windows": measurement.n_windows,
        }
        wanted = self._experiment.search.objectives if fitness is not None else {}
        objectives = {path: value for path in wanted if (value := metric_at(metrics, path)) is not None}
        line = {
            **self._candidate,
            **said,
            "failure": failure.as_dict() if failure else None,
            "fitness": fitness,
            "fitness_stderr": stderr,
            "objectives": objectives,
            "violations": violations,
            "metrics": metrics,
            "device": measurement.device,
            "started_at": self._started_at,
            "wall_s": round(time.monotonic() - self._started, 3),
            "duration_s": measurement.timings.as_dict(),
            "engine_reused": measurement.engine_reused,
            "engine": dict(measurement.engine),
        }
        # As text: Tune would flatten it. With every window, because a race may end the trial after any of them.
        report = {
            **said,
            **objectives,
            "fitness": math.nan if fitness is None else fitness,
            "stderr": stderr,
            "line_json": json.dumps(line),
        }
        return report | ({"done": True} if done else {})

    def cleanup(self) -> None:
        """Nothing of a trial stays."""
        if self._evaluator is not None:
            self._evaluator.close()
            self._evaluator = None


def _violation(measurement: Measurement, violations: dict[str, float]) -> float:
    """By how much it missed: refused or failed ranks below whatever was measured and missed a constraint only."""
    if measurement.failure is None:
        return sum(violations.values())
    return (1000.0 if measurement.status is Status.FAILED else 500.0) + measurement.failure.shortfall
