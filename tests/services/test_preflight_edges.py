"""The edge between starting and not starting, as the memory check predicts it: a model with real weights, an encoder, two engines on one node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.engine_starts import learn, start
from tune_gpu.common.failures import FailureKind
from tune_gpu.evaluation.memory_check.cards import this_node
from tune_gpu.services.memory_values import ALONE, DeviceMemory, Prediction
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.vllm.launch import ForkServer
from tune_gpu.services.vllm.memory.architecture import read_architecture
from tune_gpu.services.vllm.memory.calibration import Calibration
from tune_gpu.services.vllm.memory.predict import predict
from tune_gpu.services.vllm.named_models import MINILM, SMOLLM2
from tune_gpu.services.vllm.settings import VllmSettings

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
pytest.importorskip("vllm")

WRITER = VllmSettings(model=SMOLLM2, enforce_eager=True, max_model_len=2048, max_num_seqs=8, start_timeout_s=240)
ENCODER = VllmSettings(model=MINILM, enforce_eager=True, max_num_seqs=8, extra_args={"runner": "pooling"}, start_timeout_s=240)
WRITER_BLOCKS = 2048 // 32 + 1
"""Blocks of 32 tokens for the writer's context, and the one that vLLM sets aside."""
STEP = 0.01
"""Step in which people set a share. It is 24 standard deviations of a start's own memory on a node of 24 GiB."""


def with_share(settings: VllmSettings, share: float) -> VllmSettings:
    return replace(settings, gpu_memory_utilization=round(share, 3))


@pytest.fixture(scope="module")
def learned(host: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    model = read_architecture(resolve_llm(SMOLLM2))
    return learn(host, with_share(WRITER, 0.15), model, tmp_path_factory.mktemp("store") / "calibration.json")


def of_the_writer(settings: VllmSettings, node: DeviceMemory, learned: Calibration | None) -> Prediction:
    return predict(settings, ALONE, node, read_architecture(resolve_llm(SMOLLM2)), learned, warm=True)


def of_the_encoder(settings: VllmSettings, node: DeviceMemory) -> Prediction:
    return predict(settings, ALONE, node, read_architecture(resolve_llm(MINILM)), warm=True)


def check_least_share(host: ForkServer, learned: Calibration) -> None:
    """Start above and below the least share that is predicted."""
    node = this_node()
    least = of_the_writer(WRITER, node, learned).least_share
    assert least is not None
    above, below = start(host, with_share(WRITER, least + STEP)), start(host, with_share(WRITER, least - STEP))
    print(f"least share {least} predicted: {least + STEP:.2f} started: {above.info is not None}; {least - STEP:.2f}: {below.failure}")
    assert above.info is not None, above.failure
    assert of_the_writer(above.settings, node, learned).likely
    assert below.failure is not None
    assert below.failure.failure.kind is FailureKind.STARTUP_NO_KV_MEMORY
    assert of_the_writer(below.settings, node, learned).likely is False


def check_most_that_is_free(host: ForkServer) -> None:
    """Start an encoder, which takes no more for a larger share, on both sides of what is free now."""
    failure = None
    for steps in (-2, 2):
        node = this_node()
        share = node.free_mib / node.total_mib + steps * STEP
        real = start(host, with_share(ENCODER, min(share, 1.0)))
        said = of_the_encoder(real.settings, real.node)
        print(f"{steps} steps from what is free, a share of {share:.3f}: started {real.info is not None}, predicted {said.likely} ({said.reason})")
        assert (real.info is not None) is (steps < 0), real.failure
        assert said.likely is (steps < 0)
        failure = real.failure
    assert failure is not None
    assert failure.failure.kind is FailureKind.STARTUP_OOM


def test_the_least_share_of_real_weights_is_found_within_one_step(host: ForkServer, learned: Calibration) -> None:
    check_least_share(host, learned)


def test_the_tokens_of_another_share_are_those_predicted(host: ForkServer, learned: Calibration) -> None:
    real = start(host, with_share(WRITER, 0.2))
    assert real.info is not None, real.failure
    said, blind = (of_the_writer(real.settings, real.node_that_vllm_saw, known) for known in (learned, None))
    assert said.kv_cache_tokens is not None
    assert blind.kv_cache_tokens is not None
    print(f"{real.info.kv_cache_tokens} tokens; predicted {said.kv_cache_tokens.value}, blind {blind.kv_cache_tokens}")
    assert said.kv_cache_tokens.value == pytest.approx(real.info.kv_cache_tokens, rel=0.03)  # starts of one engine differed by up to 80 MiB here
    assert real.info.kv_cache_tokens is not None
    assert blind.kv_cache_tokens.low <= real.info.kv_cache_tokens <= blind.kv_cache_tokens.high


@pytest.mark.soak
def test_the_least_cache_that_can_be_set_is_found_to_the_block(host: ForkServer) -> None:
    """One block of 32 tokens less than the check wants, and vLLM refuses the context."""
    model = read_architecture(resolve_llm(SMOLLM2))
    block = 32 * 2 * model.layers * model.kv_heads * model.head_dim * 2
    settings = replace(WRITER, block_size=32, kv_cache_memory_bytes=WRITER_BLOCKS * block)
    for blocks, starts in ((0, True), (-1, False)):
        one = replace(settings, kv_cache_memory_bytes=(WRITER_BLOCKS + blocks) * block)
        real = start(host, one)
        said = of_the_writer(one, real.node, None)
        print(f"{WRITER_BLOCKS + blocks} blocks: started {real.info is not None}, predicted {said.likely} ({said.reason})")
        assert (real.info is not None) is starts, real.failure
        assert said.likely is starts
        if real.info is not None:
            assert said.kv_cache_tokens is not None
            assert said.kv_cache_tokens.value == real.info.kv_cache_tokens


@pytest.mark.soak
def test_an_encoder_starts_with_any_share_that_is_free(host: ForkServer) -> None:
    smallest = start(host, with_share(ENCODER, STEP))
    assert smallest.info is not None, smallest.failure
    assert of_the_encoder(smallest.settings, smallest.node).likely
    if this_node().free_mib / this_node().total_mib > 1 - 2 * STEP:
        pytest.skip("everything is free on this node")
    check_most_that_is_free(host)


@pytest.mark.soak
def test_the_second_of_two_engines_has_what_the_first_has_left(host: ForkServer, learned: Calibration) -> None:
    """The least share of an engine is the same beside another. The most is what the other has left: its share, and its other processes."""
    settings, before = with_share(WRITER, 0.25), this_node()
    left = before.free_mib - settings.gpu_memory_utilization * before.total_mib

    def beside_the_first() -> None:
        now = this_node()
        print(f"{before.free_mib:.0f} MiB were free, {left:.0f} MiB predicted beside the first engine, {now.free_mib:.0f} MiB are")
        assert now.free_mib == pytest.approx(left, abs=2 * STEP * before.total_mib)
        check_most_that_is_free(host)
        check_least_share(host, learned)

    first = start(host, settings, beside_the_first)
    assert first.info is not None, first.failure
