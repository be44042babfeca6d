"""The kinds say which of their settings a traffic could not show, and say nothing where a measurement is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.services.exercise import KnowsExercise, Use, greatest, least
from tune_gpu.services.faster_whisper.kind import KIND as WHISPER
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.vllm.kind import KIND as VLLM
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.testing.fake_kind import KIND as THIRD_PARTY

SETTINGS = VllmSettings(max_model_len=4096, max_num_seqs=32, max_num_batched_tokens=2048)
SMALL = Use(
    SETTINGS, longest_context_tokens=41, requests_at_once=3, cache_tokens=311_296, cache_use_pct=0.16, prefix_hit_pct=0.0, preemptions=0,
)  # fmt: skip
"""Traffic as version 1 had it: short prompts, few at once, each with a cache of its own."""


def whys(*uses: Use) -> dict[str, str]:
    """Setting -> why the kind says that it could not matter."""
    return {name: found.why for found in VLLM.unexercised(uses) for name in found.settings if not found.on}


def test_short_prompts_exercise_neither_cache_nor_context_nor_batch() -> None:
    found = whys(SMALL, replace(SMALL, cache_use_pct=0.2, cache_tokens=925_696))
    assert found["gpu_memory_utilization"] == found["extra_args.kv_cache_memory_bytes"] == "working set 0.2 % of the KV cache (311,296 tokens or more)"
    assert found["max_model_len"] == "longest prompt with its answer 41 of 4,096 tokens"
    assert found["max_num_seqs"] == "at most 3 of 32 sequences at once"
    assert found["max_num_batched_tokens"] == found["enable_chunked_prefill"] == "at most 123 of 2,048 tokens in a step"
    assert found["enable_prefix_caching"] == "0 prefix hits"


def test_a_cache_type_could_not_matter_by_its_size_but_by_its_speed() -> None:
    [found] = [each for each in VLLM.unexercised([SMALL]) if "kv_cache_dtype" in each.settings]
    assert found.on == "the size of the cache"


@pytest.mark.parametrize(
    ("setting", "use"),
    [
        ("gpu_memory_utilization", replace(SMALL, cache_use_pct=88.0)),
        ("gpu_memory_utilization", replace(SMALL, preemptions=1)),
        ("gpu_memory_utilization", replace(SMALL, cache_use_pct=12.0, callers=5.0)),
        ("max_model_len", replace(SMALL, longest_context_tokens=4097)),
        ("max_num_seqs", replace(SMALL, requests_at_once=33)),
        ("max_num_seqs", replace(SMALL, settings=replace(SETTINGS, max_num_seqs=2))),
        ("max_num_batched_tokens", replace(SMALL, longest_context_tokens=700)),
        ("enable_prefix_caching", replace(SMALL, prefix_hit_pct=0.4)),
    ],
)
def test_one_evaluation_that_needed_a_setting_exercises_it(setting: str, use: Use) -> None:
    assert setting in whys(SMALL, SMALL)
    assert setting not in whys(SMALL, use)


@given(st.lists(st.sampled_from(["longest_context_tokens", "requests_at_once", "cache_use_pct"]), min_size=1, unique=True))
def test_what_was_not_measured_is_never_taken_for_little(missing: list[str]) -> None:
    needs = {
        "gpu_memory_utilization": {"cache_use_pct"}, "max_model_len": {"longest_context_tokens"}, "max_num_seqs": {"requests_at_once"},
        "max_num_batched_tokens": {"longest_context_tokens", "requests_at_once"},
    }  # fmt: skip
    unknown: dict[str, Any] = dict.fromkeys(missing)
    found = whys(SMALL, replace(SMALL, **unknown))
    assert {name for name in needs if name in found} == {name for name, needed in needs.items() if not needed & set(missing)}


def test_a_default_of_the_server_is_no_limit_that_is_known() -> None:
    found = whys(replace(SMALL, settings=VllmSettings(max_model_len="auto")))
    assert not {"max_model_len", "max_num_seqs", "max_num_batched_tokens"} & found.keys()
    assert (least([8, None]), least([]), greatest([1.0, None])) == (None, None, None)


def test_workers_of_whisper_need_two_utterances_at_once() -> None:
    one, two = Use(WhisperSettings(num_workers=1), requests_at_once=1), Use(WhisperSettings(num_workers=2), requests_at_once=1)
    [found] = WHISPER.unexercised([one, two])
    assert (found.settings, found.why) == (("num_workers",), "at most 1 of 1 transcriptions at once")
    assert WHISPER.unexercised([one, replace(two, requests_at_once=2)]) == ()


def test_a_kind_without_the_hook_says_nothing() -> None:
    assert isinstance(VLLM, KnowsExercise)
    assert isinstance(WHISPER, KnowsExercise)
    assert not isinstance(THIRD_PARTY, KnowsExercise)
