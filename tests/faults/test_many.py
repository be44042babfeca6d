"""Many in a row: no port, file, thread, process or folder is used up, whatever the trials come to."""

from __future__ import annotations

import random

import pytest

from tests.faults.conftest import Traces
from tests.faults.tiny import PARAMS, TinyEvaluator
from tune_gpu.evaluation.measurement import Status

BEHAVIOURS = [("well", "well"), ("http_500", "well"), ("well", "llm_half_stream"), ("empty_transcript", "well")]


def many(monkeypatch: pytest.MonkeyPatch, rng: random.Random, count: int) -> None:
    """A narrow range of ports (two services, four ports), each trial drawn to succeed or to fail, each engine new."""
    low = rng.randrange(30000, 32000)
    settings = ["workload.window_s=0.05", f"run.port_range=[{low},{low + 3}]"]
    statuses = set()
    with TinyEvaluator(monkeypatch, *settings) as tiny:
        early: Traces | None = None
        for number in range(count):
            tiny.behave(*rng.choice(BEHAVIOURS))
            found = tiny.evaluate(PARAMS)
            statuses.add(found.status)
            assert found.failure is None or found.failure.kind.value == "requests_failed", found.failure
            tiny.stop_services()
            if number == count // 4:
                early = Traces.now()
        assert early is not None
        assert not Traces.now().left_behind(early)
    assert statuses == {Status.OK, Status.FAILED}


def test_a_dozen_trials_in_a_row(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> None:
    many(monkeypatch, rng, 12)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_thousand_trials_in_a_row(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> None:
    many(monkeypatch, rng, 1000)
