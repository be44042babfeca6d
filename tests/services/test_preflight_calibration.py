"""The memory model against the real vLLM on this machine's CPU: one start teaches it, every other share follows.

The node's total may grow while memory is touched (virtual machines): it is read at the moment from where vLLM reads it, and where it has
moved until vLLM read it, the total that vLLM's own log names is what its prediction is made for.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engine_starts import learn, start
from tune_gpu.common.failures import FailureKind
from tune_gpu.evaluation.memory_check.cards import this_node
from tune_gpu.services.memory_values import ALONE, MemoryVerdict
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.memory.architecture import read_architecture
from tune_gpu.services.vllm.memory.calibration import Calibration
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.settings import VllmSettings

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
pytest.importorskip("vllm")

ENGINE = VllmSettings(model="demo-llm", load_format="dummy", enforce_eager=True, max_model_len=2048, max_num_seqs=8, start_timeout_s=240)
MODEL = read_architecture(resolve_llm("demo-llm"))


@pytest.fixture(scope="module")
def learned(host: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """By one start, kept on disk and read back."""
    return learn(host, with_share(0.15), MODEL, tmp_path_factory.mktemp("store") / "calibration.json")


def with_share(share: float) -> VllmSettings:
    return replace(ENGINE, gpu_memory_utilization=share)


def test_tokens_of_five_other_shares_within_one_percent(host: ForkServer, learned: Calibration) -> None:
    errors = {}
    for share in (0.12, 0.14, 0.17, 0.19, 0.21):
        real = start(host, with_share(share))
        assert real.info is not None, real.failure
        prediction = predict(real.settings, ALONE, real.node_that_vllm_saw, MODEL, learned)
        assert prediction.kv_cache_tokens is not None
        assert prediction.verdict is MemoryVerdict.FITS
        errors[share] = prediction.kv_cache_tokens.value / (real.info.kv_cache_tokens or 1) - 1
        assert prediction.max_concurrency == pytest.approx(real.info.max_concurrency, rel=0.01)
    print("relative error of the KV tokens by share:", {share: f"{100 * error:+.2f} %" for share, error in errors.items()})
    assert max(map(abs, errors.values())) <= 0.01


def test_least_share_that_starts_is_found_within_one_step(host: ForkServer, learned: Calibration) -> None:
    node = this_node()
    prediction = predict(ENGINE, ALONE, node, MODEL, learned)
    assert prediction.least_share is not None
    above, below = start(host, with_share(round(prediction.least_share + 0.01, 2))), start(host, with_share(round(prediction.least_share - 0.01, 2)))
    print(
        f"predicted least share {prediction.least_share}: {prediction.least_share + 0.01:.2f} started {above.info is not None}, "
        f"{prediction.least_share - 0.01:.2f} started {below.info is not None} ({below.failure})"
    )
    assert above.info is not None
    assert below.failure is not None
    assert below.failure.failure.kind is FailureKind.STARTUP_NO_KV_MEMORY
    assert predict(below.settings, ALONE, node, MODEL, learned).likely is False


def test_a_share_above_what_is_free_is_refused_as_vllm_refuses_it(host: ForkServer, learned: Calibration) -> None:
    node = this_node()
    too_much = min(1.0, round(node.free_mib / node.total_mib + 0.03, 2))
    prediction = predict(replace(ENGINE, gpu_memory_utilization=too_much), ALONE, node, MODEL, learned)
    if node.free_mib / node.total_mib > 0.96:
        pytest.skip("everything is free on this node")
    assert prediction.verdict is MemoryVerdict.INFEASIBLE
    real = start(host, with_share(too_much))
    assert real.failure is not None
    assert real.failure.failure.kind in (FailureKind.STARTUP_OOM, FailureKind.STARTUP_NO_KV_MEMORY)


def test_the_node_is_read_as_vllm_reads_it() -> None:
    total = next(
        int(line.split()[3]) for line in Path("/sys/devices/system/node/node0/meminfo").read_text().splitlines() if "MemTotal" in line
    )
    assert this_node({min(os.sched_getaffinity(0))}).total_mib == pytest.approx(total / 1024, rel=0.05)
