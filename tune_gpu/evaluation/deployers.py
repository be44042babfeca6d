"""Where a candidate's services are started: in this process (the CPU, a card that this process holds), or in Ray actors that hold the card.

The evaluation knows only what both have in common.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from tune_gpu.common.failures import Failure
from tune_gpu.config.schema import ExperimentConfig, Services, VllmSettings
from tune_gpu.services.faster_whisper.service import WhisperService
from tune_gpu.services.vllm.launch import EngineHost
from tune_gpu.services.vllm.server import EngineInfo, VllmServer


class RunningService(Protocol):
    """A service of one candidate. `start` raises ServiceError, with nothing left running."""

    @property
    def base_url(self) -> str:
        """Return where it answers."""

    @property
    def api_key(self) -> str:
        """Return what a request must carry."""

    def failure(self) -> Failure | None:
        """Return why it can no longer be measured; null while it runs. Answers at once."""

    def pids(self) -> list[int]:
        """All of its processes."""

    def log(self) -> str:
        """Return what it has printed."""

    def healthy(self, timeout_s: float) -> bool:
        """Return whether it answers its health check in this time."""

    def stop(self) -> None:
        """End it; returns when its processes have gone. Calling it twice does nothing."""


class SttService(RunningService, Protocol):
    """Whisper."""

    @property
    def start_s(self) -> float | None:
        """Return what its start took."""

    def start(self) -> dict[str, Any]:
        """Start it and wait until it is ready; returns what it says of itself."""


class LlmService(RunningService, Protocol):
    """vLLM."""

    @property
    def settings(self) -> VllmSettings:
        """The flags that it runs with."""

    @property
    def served_model_name(self) -> str:
        """Return what only this one calls its model."""

    @property
    def info(self) -> EngineInfo | None:
        """Return what it said of itself when it was ready."""

    def start(self, abort: Callable[[], str | None]) -> EngineInfo:
        """Start it and wait until it is ready and proven to be this one; gives up when `abort` gives a reason."""

    def kv_cache_pct(self) -> float | None:
        """Share of its KV cache in use."""


class ServiceDeployer(Protocol):
    """Makes services of one trial, all on one device."""

    def visible_devices(self) -> str:
        """CUDA_VISIBLE_DEVICES as the services get it: index, UUID or MIG string, kept as it is; empty where nobody has assigned any."""

    def whisper(self, services: Services) -> SttService:
        """Not yet started."""

    def vllm(self, services: Services, host: EngineHost | None) -> LlmService:
        """Not yet started; `host` is the warm engine host of this process."""

    def close(self) -> None:
        """Nothing that it made stays."""


class LocalDeployer:
    """Services are processes of this process, on the device that it was given itself."""

    def __init__(self, config: ExperimentConfig, device: str) -> None:
        self._ports, self._device = config.run.port_range, device

    def visible_devices(self) -> str:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def whisper(self, services: Services) -> WhisperService:
        return WhisperService(services.whisper, device=self._device, port_range=self._ports)

    def vllm(self, services: Services, host: EngineHost | None) -> VllmServer:
        return VllmServer(services.vllm, device=self._device, port_range=self._ports, host=host)

    def close(self) -> None:
        """Services are ended by who started them."""
