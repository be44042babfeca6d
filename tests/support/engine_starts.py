"""Real starts of vLLM on this machine's CPU, beside the node as it was, for the memory check to be held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tune_gpu.common.failures import ServiceError
from tune_gpu.evaluation.memory_check.cards import this_node
from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.vllm.info import EngineInfo
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.calibration import Calibration, CalibrationStore
from tune_gpu.services.vllm.memory.learning import learn_from_start, read_start_log
from tune_gpu.services.vllm.server import VllmServer
from tune_gpu.services.vllm.settings import VllmSettings


@dataclass(frozen=True)
class Start:
    """One real start: the node just before, what vLLM said, or why it did not start."""

    settings: VllmSettings
    node: DeviceMemory
    info: EngineInfo | None
    log: str
    failure: ServiceError | None = None

    @property
    def node_that_vllm_saw(self) -> DeviceMemory:
        """The node's total may grow while memory is touched: the one of vLLM's log, where it differs."""
        total = read_start_log(self.log).total_mib
        if total is None or abs(total - self.node.total_mib) <= 6.0:
            return self.node
        return replace(self.node, total_mib=total, used_mib=min(self.node.used_mib, total))


def start(host: ForkServer, settings: VllmSettings, meanwhile: Callable[[], None] = lambda: None) -> Start:
    """Start an engine, do something while it runs, and end it."""
    node = this_node()
    server = VllmServer(settings, device="cpu", port_range=[23100, 23199], fork_server=host)
    try:
        info = server.start()
        log = server.log()
        meanwhile()
        return Start(settings, node, info, log)
    except ServiceError as error:
        return Start(settings, node, None, error.failure.evidence or "", error)
    finally:
        server.stop()


def learn(host: ForkServer, settings: VllmSettings, model: ModelArchitecture, path: Path) -> Calibration:
    """Return the calibration from one start, kept on disk and read back."""
    start(host, settings)  # the host's first child copies pages that its later ones find copied
    first = start(host, settings)
    assert first.info is not None, first.failure
    assert first.info.version is not None
    measured = learn_from_start(
        settings, first.node, model, first.log, num_gpu_blocks=first.info.kv_cache_blocks, block_size=first.info.block_size, vllm_version=first.info.version
    )  # fmt: skip
    assert measured is not None
    CalibrationStore(path).learn(settings, "cpu", measured, "warm")
    known = CalibrationStore(path).get(settings, first.info.version, "cpu", "warm")
    assert known == measured
    return known
