"""What a device must prove without any service: which cards are meant, and that the CPU proves nothing at no cost."""

from __future__ import annotations

from typing import Any

import pytest

from tune_gpu.config.schema import RunSettings
from tune_gpu.evaluation.device_guard import DeviceGuard


class Unlisted:
    """A service whose processes must not be listed: that reads all of /proc."""

    def pids(self) -> list[int]:
        raise AssertionError("its processes were listed")


def test_on_the_cpu_nothing_is_proven_and_no_process_is_listed() -> None:
    services: Any = {"whisper": Unlisted(), "vllm": Unlisted()}
    assert DeviceGuard("cpu", RunSettings(), str).prove(services, spanning={"vllm"}) == []


@pytest.mark.parametrize(("visible", "n_cards", "first"), [("GPU-a,GPU-b", 2, "GPU-a"), ("3", 1, "3"), ("MIG-x,MIG-y", 1, "MIG-x"), ("", 2, "0")])
def test_the_first_visible_card_holds_all_services(visible: str, n_cards: int, first: str) -> None:
    guard = DeviceGuard("cuda", RunSettings(), lambda: visible)
    guard.use(n_cards)
    assert guard.first_card == first


def test_a_device_that_was_never_opened_is_measured_on_nothing() -> None:
    guard = DeviceGuard("cuda", RunSettings(), lambda: "GPU-a")
    assert guard.measured_on() == {}
    guard.close()
