"""The memory model against the real vLLM on this machine's CPU: one start teaches it, every other share follows.

The node's total may grow while memory is touched (virtual machines): it is read at the moment from where vLLM reads it, and where it has
moved until vLLM read it, the total that vLLM's own log names is what its prediction is made for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tune_gpu.common.failures import FailureKind, ServiceError
from tune_gpu.config.schema import VllmSettings
from tune_gpu.evaluation.memory_check import (
    Calibration,
    CalibrationStore,
    DeviceMemory,
    MemoryVerdict,
    predict,
    read_architecture,
    this_node,
)
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.vllm.info import EngineInfo
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.memory.learning import learn_from_start, read_start_log
from tune_gpu.services.vllm.server import VllmServer

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
pytest.importorskip("vllm")

ENGINE = VllmSettings(model="demo-llm", load_format="dummy", enforce_eager=True, max_model_len=2048, max_num_seqs=8, start_timeout_s=240)
MODEL = read_architecture(resolve_llm("demo-llm"))


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
        total = read_start_log(self.log).total_mib
        if total is None or abs(total - self.node.total_mib) <= 6.0:
            return self.node
        return replace(self.node, total_mib=total, used_mib=min(self.node.used_mib, total))


def start(host: ForkServer, share: float) -> Start:
    settings = replace(ENGINE, gpu_memory_utilization=share)
    node = this_node()
    server = VllmServer(settings, device="cpu", port_range=[23100, 23199], fork_server=host)
    log_copy = ""
    try:
        info = server.start()
        log_copy = server.log()
        return Start(settings, node, info, log_copy)
    except ServiceError as error:
        return Start(settings, node, None, error.failure.evidence or "", error)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def learned(host: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """By one start, kept on disk and read back."""
    start(host, 0.15)  # the host's first child copies pages that its later ones find copied
    first = start(host, 0.15)
    assert first.info is not None
    assert first.info.version is not None
    measured = learn_from_start(
        first.settings,
        first.node,
        MODEL,
        first.log,
        num_gpu_blocks=first.info.kv_cache_blocks,
        block_size=first.info.block_size,
        vllm_version=first.info.version,
    )
    assert measured is not None
    path = tmp_path_factory.mktemp("store") / "calibration.json"
    CalibrationStore(path).learn(first.settings, "cpu", measured, "warm")
    known = CalibrationStore(path).get(first.settings, first.info.version, "cpu", "warm")
    assert known == measured
    return known


def test_tokens_of_five_other_shares_within_one_percent(host: ForkServer, learned: Calibration) -> None:
    errors = {}
    for share in (0.12, 0.14, 0.17, 0.19, 0.21):
        real = start(host, share)
        assert real.info is not None, real.failure
        prediction = predict(real.settings, None, real.node_that_vllm_saw, MODEL, learned)
        assert prediction.kv_cache_tokens is not None
        assert prediction.verdict is MemoryVerdict.FITS
        errors[share] = prediction.kv_cache_tokens.value / (real.info.kv_cache_tokens or 1) - 1
        assert prediction.max_concurrency == pytest.approx(real.info.max_concurrency, rel=0.01)
    print("relative error of the KV tokens by share:", {share: f"{100 * error:+.2f} %" for share, error in errors.items()})
    assert max(map(abs, errors.values())) <= 0.01


def test_least_share_that_starts_is_found_within_one_step(host: ForkServer, learned: Calibration) -> None:
    node = this_node()
    prediction = predict(ENGINE, None, node, MODEL, learned)
    assert prediction.least_share is not None
    above, below = start(host, round(prediction.least_share + 0.01, 2)), start(host, round(prediction.least_share - 0.01, 2))
    print(
        f"predicted least share {prediction.least_share}: {prediction.least_share + 0.01:.2f} started {above.info is not None}, "
        f"{prediction.least_share - 0.01:.2f} started {below.info is not None} ({below.failure})"
    )
    assert above.info is not None
    assert below.failure is not None
    assert below.failure.failure.kind is FailureKind.STARTUP_NO_KV_MEMORY
    assert predict(below.settings, None, node, MODEL, learned).likely is False


def test_a_share_above_what_is_free_is_refused_as_vllm_refuses_it(host: ForkServer, learned: Calibration) -> None:
    node = this_node()
    too_much = min(1.0, round(node.free_mib / node.total_mib + 0.03, 2))
    prediction = predict(replace(ENGINE, gpu_memory_utilization=too_much), None, node, MODEL, learned)
    if node.free_mib / node.total_mib > 0.96:
        pytest.skip("everything is free on this node")
    assert prediction.verdict is MemoryVerdict.INFEASIBLE
    real = start(host, too_much)
    assert real.failure is not None
    assert real.failure.failure.kind in (FailureKind.STARTUP_OOM, FailureKind.STARTUP_NO_KV_MEMORY)


def test_the_node_is_read_as_vllm_reads_it() -> None:
    total = next(
        int(line.split()[3]) for line in Path("/sys/devices/system/node/node0/meminfo").read_text().splitlines() if "MemTotal" in line
    )
    assert this_node({min(os.sched_getaffinity(0))}).total_mib == pytest.approx(total / 1024, rel=0.05)
