"""A run whose trials all wait for their place says so, once each time: Tune is silent."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from tune_gpu.ray_tune import callbacks as tune_callbacks
from tune_gpu.ray_tune import client as ray_client
from tune_gpu.ray_tune import session as ray_session
from tune_gpu.ray_tune.callbacks import StartReporter
from tune_gpu.ray_tune.client import ResultForwarder
from tune_gpu.ray_tune.session import PATIENCE_S, waiting_notice


def trials(*statuses: str) -> list[Any]:
    return [SimpleNamespace(status=status, is_finished=lambda status=status: status in (Trial.TERMINATED, Trial.ERROR)) for status in statuses]


WAITING = trials(Trial.TERMINATED, Trial.PENDING, Trial.PENDING)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(tune_callbacks, "time", SimpleNamespace(monotonic=lambda: now.s))
    for module in (tune_callbacks, ray_client):
        monkeypatch.setattr(module, "waiting_notice", lambda: "all is taken")
    return now


def test_a_person_is_told_once_each_time_and_not_before_it_has_lasted(clock: SimpleNamespace) -> None:
    messages: list[str] = []
    announcer = StartReporter(lambda _candidate: None, messages.append)

    def after(seconds: float, seen: list[Any]) -> int:
        clock.s += seconds
        announcer.on_step_end(1, seen)
        return len(messages)

    assert after(0.0, WAITING) == after(PATIENCE_S - 1, WAITING) == 0, "an actor's start takes its time"
    assert after(1.0, WAITING) == after(10 * PATIENCE_S, WAITING) == 1
    assert after(1.0, trials(Trial.RUNNING, Trial.PENDING)) == after(PATIENCE_S, WAITING) == 1, "one ran meanwhile"
    assert after(PATIENCE_S, WAITING) == 2
    assert after(1.0, trials(Trial.TERMINATED, Trial.ERROR)) == after(PATIENCE_S, trials()) == 2, "nobody waits"
    assert messages == ["all is taken"] * 2
    pickle.loads(pickle.dumps(announcer)).on_step_end(1, WAITING)


def test_through_a_client_it_is_sent_home(clock: SimpleNamespace) -> None:
    sent: list[Any] = []
    forwarder = ResultForwarder(SimpleNamespace(put=sent.append))  # type: ignore[arg-type]
    forwarder.on_step_end(1, WAITING)
    clock.s += PATIENCE_S
    forwarder.on_step_end(2, WAITING)
    assert [message.notice for message in sent] == ["all is taken"]


def test_a_slow_start_is_not_said_to_be_without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a runtime environment is still installed, say, the place is there, and is why the cores are not free."""
    there = SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0}, available_resources=lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray_session, "ray", there)
    waits = "Ray has no free resources yet, or a process is still starting"
    assert waiting_notice() == f"nothing has run for 30 s: {waits} (free now: 0 of 0 cards, 1 of 2 cores)"
