"""Where a candidate's services are started: as processes of this process (the CPU, a card that it holds), or in Ray actors that hold the card.

The evaluation knows only what both have in common.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any, Protocol

from tune_gpu.config.schema import ExperimentConfig, Services
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.services.running import RunningService
from tune_gpu.services.vllm.info import EngineInfo
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.services.vllm.setup import engine_environment


class ServiceDeployer(Protocol):
    """Makes the services of one trial, all on one device."""

    def visible_devices(self) -> str:
        """Return CUDA_VISIBLE_DEVICES as the services get it: index, UUID or MIG string, unchanged; empty if nobody has assigned any."""

    def prepare(self, services: Services) -> None:
        """Begin what an engine's start can do beforehand, without waiting for it."""

    def wait_prepared(self) -> float | None:
        """Wait until that is done and return the seconds waited, or None if nothing is prepared."""

    def whisper(self, services: Services) -> RunningService[Any]:
        """Return a Whisper that is not yet started."""

    def vllm(self, services: Services) -> RunningService[EngineInfo]:
        """Return an engine that is not yet started."""

    def close(self) -> None:
        """Leave nothing running that it made."""


class LocalDeployer:
    """Starts services as processes of this process, on the device that it was given itself.

    Args:
        fork_server: forks the engines; by default its own, made at the first use. Whoever passes one closes it.
    """

    def __init__(self, config: ExperimentConfig, device: str, fork_server: ForkServer | None = None) -> None:
        self._ports, self._device = config.run.port_range, device
        # As the preflight counts on: on the CPU only. In a Ray actor with a card a fork server would be of no use.
        self._forks = config.run.warm_engine and device == "cpu"
        self._fork_server, self._owns_fork_server = fork_server, fork_server is None

    def visible_devices(self) -> str:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def prepare(self, services: Services) -> None:
        if not self._forks:
            return
        if self._fork_server is None:
            self._fork_server = ForkServer(engine_environment(services.vllm, "", self._device, tempfile.gettempdir()))
        self._fork_server.prepare()

    def wait_prepared(self) -> float | None:
        if self._fork_server is None:
            return None
        started = time.monotonic()
        self._fork_server.open()
        return time.monotonic() - started

    def whisper(self, services: Services) -> WhisperService:
        return WhisperService(services.whisper, device=self._device, port_range=self._ports)

    def vllm(self, services: Services) -> VllmServer:
        return VllmServer(services.vllm, device=self._device, port_range=self._ports, fork_server=self._fork_server)

    def close(self) -> None:
        """End the fork server; services are ended by whoever started them."""
        if self._fork_server is not None and self._owns_fork_server:
            self._fork_server.close()
            self._fork_server = None
