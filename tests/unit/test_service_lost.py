"""A service that dies under load is lost, however the requests that it was answering noticed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import pytest

from trainables.evaluation import Evaluator
from tune_gpu.config_loader import load_config
from tune_gpu.measurement import Failure, FailureKind, Phase, ServiceError

LOST = Failure(FailureKind.SERVICE_LOST, "vllm", Phase.LOAD, "killed")


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    evaluator = Evaluator(load_config("spica_gpu_allocation", [], "cpu"), "cpu")
    yield evaluator
    evaluator.close()


@pytest.mark.parametrize("error", ["llm_connection", "stt_connection", "llm_truncated_stream"])
def test_an_answer_that_was_cut_off_is_of_a_service_that_died_though_its_end_is_told_a_moment_later(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    told = chain([None, None], repeat(LOST))
    monkeypatch.setattr(evaluator, "_failure", lambda: next(told))
    with pytest.raises(ServiceError) as raised:
        evaluator._raise_if_lost([None, error])
    assert raised.value.failure == LOST


def test_nothing_is_awaited_for_an_answer_that_came_to_its_end(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    told = chain([None], repeat(LOST))
    monkeypatch.setattr(evaluator, "_failure", lambda: next(told))
    evaluator._raise_if_lost([None, "llm_http_500", "llm_timeout"])
