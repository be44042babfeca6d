"""What a trial asks Ray for, how many run at once, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.config.loader import config_of, load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.retries import attempt_of, may_retry
from tune_gpu.experiment.checks import check_config
from tune_gpu.ray_tune.placement import (
    TrialResources,
    check_cards,
    check_cores,
    check_resources,
    concurrency,
    measurement_resources,
    trial_resources,
)
from tune_gpu.services.deployment import resolve

PARALLEL = "parameters.tp={target: vllm.tensor_parallel_size, values: [1, 2]}"


def config(*overrides: str) -> ExperimentConfig:
    return load_config("spica_gpu_allocation", list(overrides), "cuda")


def asked(config: ExperimentConfig, params: dict[str, Any], kind: str) -> TrialResources:
    """What the trial of these parameters asks for."""
    return trial_resources(config, resolve(config, params, kind), kind)


def test_a_trial_has_a_bundle_for_its_load_and_one_with_the_card() -> None:
    found = asked(config(), {"vllm_memory_util": 0.6}, "cuda")
    assert found.bundles == [{"CPU": 1.0}, {"GPU": 1.0, "CPU": 1.0}]
    assert (found.gpus["vllm"], found.gpus["whisper"]) == (0.6, 0.4)


def test_on_the_cpu_the_services_are_the_trials_own_processes() -> None:
    found = asked(load_config("spica_gpu_allocation", [], "cpu"), {"vllm_memory_util": 0.1}, "cpu")
    assert found.bundles == [{"CPU": 1.0}]


def test_an_engine_on_two_cards_asks_for_two_and_holds_them_whole() -> None:
    found = asked(config(PARALLEL), {"vllm_memory_util": 0.5, "tp": 2}, "cuda")
    assert found.bundles[1]["GPU"] == 2.0
    assert (found.gpus["vllm"], found.gpus["whisper"]) == (2.0, 0.0)


@pytest.mark.parametrize(("extra", "cards"), [
    # vllm.config.ParallelConfig(tensor_parallel_size=2, …).world_size_across_dp of vLLM 0.32
    ({"data_parallel_size": 2}, 4), ({"data-parallel-size": 2, "pipeline_parallel_size": 2}, 8), ({"prefill_context_parallel_size": 2}, 4),
    ({"decode_context_parallel_size": 2}, 2), ({"data_parallel_size": None}, 2),
])
def test_every_size_that_multiplies_the_workers_multiplies_the_cards(extra: dict[str, object], cards: int) -> None:
    given = config(PARALLEL)
    given.services.vllm.extra_args = extra
    assert asked(given, {"vllm_memory_util": 0.5, "tp": 2}, "cuda").bundles[1]["GPU"] == cards
    assert measurement_resources(given, "cuda")["GPU"] == cards


def test_two_sizes_that_vary_at_once_are_counted_together() -> None:
    """Only where both exist."""
    both = config(PARALLEL, "parameters.dp={target: vllm.extra_args.data_parallel_size, values: [1, 2]}")
    assert measurement_resources(both, "cuda")["GPU"] == 4.0
    with pytest.raises(UserError, match=r"vllm.tensor_parallel_size=2 x vllm.extra_args.data_parallel_size=2: no node has so many cards\. Use at most 2"):
        check_cards(both, 2)
    apart = config(PARALLEL, "parameters.dp={target: vllm.extra_args.data-parallel-size, values: [1, 2], when: {tp: [1]}}")
    assert measurement_resources(apart, "cuda")["GPU"] == 2.0
    check_cards(apart, 2)
    assert concurrency(apart, "cuda", 4).trials == 4


BASE = config()


@settings(deadline=None)
@given(st.floats(0.001, 1.0), st.integers(1, 4))
def test_the_parts_of_a_card_are_never_more_than_it_and_never_nothing(share: float, per_card: int) -> None:
    BASE.ray.trials_per_card, BASE.services.vllm.gpu_memory_utilization = per_card, share
    found = asked(BASE, {}, "cuda")
    assert found.services is not None
    assert min(found.gpus["vllm"], found.gpus["whisper"]) >= 0.0001
    assert round(10_000 * found.gpus["vllm"]) + round(10_000 * found.gpus["whisper"]) <= round(10_000 * found.services["GPU"])
    assert per_card * found.services["GPU"] <= 1.0


@pytest.mark.parametrize(
    ("overrides", "cards", "trials", "message"),
    [
        ([], 1, 1, "up to 1 trial at once on 1 card, one to a card"),
        ([], 16, 16, "up to 16 trials at once on 16 cards"),
        (["ray.max_concurrent_trials=3"], 16, 3, "up to 3 trials"),
        (["ray.max_concurrent_trials=99"], 2, 2, "up to 2 trials"),
        (["services.vllm.tensor_parallel_size=4"], 9, 2, "4 cards to a trial"),
        (["ray.trials_per_card=2"], 3, 6, "coarse numbers, each marked so"),
    ],
)
def test_as_many_trials_as_cards_and_never_more(overrides: list[str], cards: int, trials: int, message: str) -> None:
    found = concurrency(config(*overrides), "cuda", cards)
    assert found.trials == trials
    assert message in found.why


def test_on_the_cpu_it_is_one_unless_asked_for() -> None:
    assert concurrency(load_config("spica_gpu_allocation", [], "cpu"), "cpu", 0).why == "one trial at a time"
    assert concurrency(load_config("spica_gpu_allocation", ["ray.max_concurrent_trials=2"], "cpu"), "cpu", 0).trials == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ray.trials_per_card=0", "ray.trials_per_card=0: out of range. Set a number of at least 1"),
        ("ray.trials_per_card=2", "the share of vllm, 0.5, leaves no room for the others. Set it below 0.5"),
        ("ray.max_retries=-1", "ray.max_retries=-1: out of range. Set a number of at least 0"),
        ("ray.max_concurrent_trials=0", "ray.max_concurrent_trials=0: out of range. Set a number of at least 1"),
        ("ray.cpus_per_trial=-1", "ray.cpus_per_trial=-1"),
        ("ray.runtime_env.env_vars.CUDA_VISIBLE_DEVICES='0'", "Ray assigns the cards"),
        ("services.vllm.extra_args.pipeline-parallel-size=many", "pipeline_parallel_size=many: not a whole number"),
        ("services.vllm.extra_args.data_parallel_size=0", "data_parallel_size=0: below 1"),
        ("services.vllm.tensor_parallel_size=0", "tensor_parallel_size=0: out of range. Set a number of at least 1"),
    ],
)
def test_bad_settings_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_resources(config(override), "cuda")


def test_a_candidate_on_more_cards_than_any_node_has_is_refused() -> None:
    """Before anything starts."""
    check_cards(config(PARALLEL), 2)
    with pytest.raises(UserError, match=r"tensor_parallel_size=2: no node has so many cards\. Use at most 1"):
        check_cards(config(PARALLEL), 1)


def test_on_a_cluster_models_clips_and_cores_are_looked_for_on_the_worker() -> None:
    elsewhere = ["services.vllm.model=/models/there", "services.vllm.cpu_cores=900", "workload.audio.source=/clips/there"]
    with pytest.raises(UserError):
        check_config(config(*elsewhere))
    check_config(config(*elsewhere, "ray.address=auto"))


def test_only_what_can_pass_is_tried_again_and_a_start_that_timed_out_once() -> None:
    def failed(kind: FailureKind) -> Failure:
        return Failure(kind, "vllm", Phase.START, "")

    passing = {kind for kind in FailureKind if may_retry(failed(kind), [], 2)}
    assert passing == {FailureKind.PORT_CONFLICT, FailureKind.STARTUP_TIMEOUT, FailureKind.SERVICE_LOST, FailureKind.MEASUREMENT_INVALID}
    lost, late = attempt_of(failed(FailureKind.SERVICE_LOST), 1.0), attempt_of(failed(FailureKind.STARTUP_TIMEOUT), 1.0)
    assert may_retry(failed(FailureKind.SERVICE_LOST), [lost], 2)
    assert not may_retry(failed(FailureKind.SERVICE_LOST), [lost, lost], 2)
    assert may_retry(failed(FailureKind.STARTUP_TIMEOUT), [lost], 2)
    assert not may_retry(failed(FailureKind.STARTUP_TIMEOUT), [late], 2)


def test_a_run_without_a_node_for_a_trials_cores_and_cards_is_refused() -> None:
    with_cards, without = {"CPU": 2.0, "GPU": 2.0}, {"CPU": 64.0}
    check_cores(config(), "cuda", [with_cards, without])
    with pytest.raises(UserError, match=r"ray.cpus_per_trial=3, .*: no node with the cards has 4 cores for a trial\. Ask for at most 2 in all"):
        check_cores(config("ray.cpus_per_trial=3"), "cuda", [with_cards, without])
    check_cores(config("ray.cpus_per_trial=64"), "cpu", [with_cards, without])
    with pytest.raises(UserError, match=r"ray.cpus_per_trial=65: no node has 65 cores for a trial\. Ask for at most 64 in all"):
        check_cores(config("ray.cpus_per_trial=65"), "cpu", [with_cards, without])


def test_a_service_without_a_card_has_its_cores_in_the_bundle() -> None:
    """Its actor is in the bundle of the services like the others."""
    server = {"kind": "command", "command": ["serve", "{port}"], "health": "/health"}
    config = config_of({"services": {"on": server, "off": server | {"gpus": 0}}, "ray": {"cpus_per_service": 0.5}})
    found = trial_resources(config, resolve(config, {}, "cuda"), "cuda")
    assert found.services == {"GPU": 1.0, "CPU": 1.0}
