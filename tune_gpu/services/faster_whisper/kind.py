"""The kind `faster-whisper`: one transcription server of ours around faster-whisper."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.common.installed import is_installed
from tune_gpu.common.metric import Protocol
from tune_gpu.config.run_settings import RunSettings
from tune_gpu.services.base import Gpus, InUse, LaunchSite
from tune_gpu.services.deployable import Deployable
from tune_gpu.services.exercise import Unexercised, Use
from tune_gpu.services.faster_whisper.examine import INSTALL, examine, examine_model
from tune_gpu.services.faster_whisper.exercise import unexercised
from tune_gpu.services.faster_whisper.memory import whisper_mib
from tune_gpu.services.faster_whisper.observed import observed, other_device
from tune_gpu.services.faster_whisper.service import HELD, SERVER_MODULE, WhisperService, whisper_environment, whisper_settings
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.faster_whisper.trust import needs_trust
from tune_gpu.services.findings import DoctorFinding, Machine
from tune_gpu.services.memory_values import DeviceMemory, Footprint
from tune_gpu.services.models import resolve_whisper
from tune_gpu.services.observation import Asked, Observed


class FasterWhisper:
    """One Whisper, whose memory grows with its input. It starts anew for every candidate, so that each is measured from the same state."""

    name = "faster-whisper"
    Settings = WhisperSettings
    held = HELD
    packages = ("faster-whisper", "ctranslate2")
    card_settings: tuple[str, ...] = ()

    def protocol(self, _settings: WhisperSettings) -> Protocol:
        """Return transcription."""
        return Protocol.TRANSCRIPTION

    def reserves(self, _settings: WhisperSettings) -> bool:
        """Return False: its memory grows with its input."""
        return False

    def reuse_key(self, _settings: WhisperSettings) -> None:
        """Return None: it is not kept."""

    def gpus(self, _settings: WhisperSettings) -> Gpus:
        """Return one card."""
        return Gpus()

    def missing(self, _device: str) -> str | None:
        """Return the command that installs faster-whisper, or None if it is there."""
        return None if is_installed("faster-whisper") else f"faster-whisper is not installed. Run {INSTALL}."

    def examine(self, machine: Machine) -> Iterator[DoctorFinding]:
        """Yield what is here of what every faster-whisper needs."""
        yield from examine(machine)

    def examine_service(self, name: str, settings: WhisperSettings) -> Iterator[DoctorFinding]:
        """Yield whether its model is here."""
        yield examine_model(name, settings.model)

    def footprint(self, settings: WhisperSettings, device: DeviceMemory) -> Footprint:
        """Return its memory by the shapes of its size."""
        return Footprint(*whisper_mib(settings, device.kind))

    def memory(self, _store: Any, _version: str | None, *, warm: bool) -> None:
        """Return None: it reserves nothing."""

    def check_entry(self, key: str, setting: str, entry: str, value: Any) -> None:
        """Do nothing: every variable is allowed."""

    def needs_trust(self, setting: str, entry: str | None, value: Any) -> str | None:
        """Return why a setting or a variable of a space of somebody else needs the user's trust, or None."""
        return needs_trust(setting, entry, value)

    def check_together(self, name: str, in_use: InUse) -> None:
        """Raise UserError for an English-only model beside another language: faster-whisper would continue in English, with a warning."""
        models, languages = in_use("model"), in_use("language")
        english = next((model for model in models or () if model.endswith(".en")), None)
        other = next((language for language in languages or () if language != "en"), None)
        if english and other:
            raise UserError(f"{name}.model={english}: it knows English only, not {name}.language={other}. Use a model whose name does not end in .en.")

    def check(self, _name: str, settings: WhisperSettings, *, local: bool) -> None:
        """Raise UserError for a model that is not on this machine."""
        if local:
            resolve_whisper(settings.model)

    def launch(self, name: str, settings: WhisperSettings, site: LaunchSite) -> WhisperService:
        """Return the server, not yet started."""
        return WhisperService(settings, name=name, device=site.device, port_range=site.port_range)

    def deployable(self, _name: str, settings: WhisperSettings, device: str, *, host: str, port: int, model: str = "") -> Deployable:
        """Return our server with the flags of the settings. `/health` reports its name, which is by the model unless another is given."""
        ours = {"name": model or f"whisper-{settings.model}", "host": host, "port": port}
        command = (sys.executable, "-P", "-m", SERVER_MODULE)
        flags = {**ours, **whisper_settings(settings, device)}
        return Deployable(command, whisper_environment(settings, device), "/health", flags, ("TUNE_GPU_API_KEY",), model=model)

    def observed(self, config: Mapping[str, Any], service: Asked) -> Observed:
        """Return the settings of a deployed configuration, and what the running server reports."""
        return observed(config, service)

    def other(self, _config: Mapping[str, Any], device: str, page: Callable[[str], str]) -> str | None:
        """Return on which other device it runs, or None."""
        return other_device(device, page)

    def unexercised(self, uses: Sequence[Use]) -> tuple[Unexercised, ...]:
        """Return the settings that could not matter under this traffic."""
        return unexercised(uses)

    def host(self, _run: RunSettings, _device: str) -> None:
        """Return None: its servers share nothing."""


KIND = FasterWhisper()
