"""What earlier starts took: kept by service and device, without secrets, by many writers at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.config.kinds import load_kind
from tune_gpu.services.base import Service
from tune_gpu.services.earlier_starts import EarlierStarts, Start, footprint_of, service_key
from tune_gpu.services.memory_values import DeviceMemory

CARD = DeviceMemory("RTX 3090", "cuda", 24146.0)
MIB = st.floats(1.0, 1e5)


def command(**changes: Any) -> Service:
    kind = load_kind("command")
    return Service("tts", kind, kind.Settings(command=["serve", "--port", "{port}"], health="/health", **changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "starts.json"


def test_a_service_that_never_started_is_not_known(path: Path) -> None:
    store = EarlierStarts(path)
    store.learn(command(), CARD, "a", 800.0, under_load=True)
    assert store.footprint(command(), replace(CARD, name="L4")) is None
    assert store.footprint(command(settings={"voice": "heart"}), CARD) is None
    assert EarlierStarts(path).footprint(command(), CARD) is not None


def test_a_name_a_time_out_and_a_card_s_number_are_the_same_service(path: Path) -> None:
    store = EarlierStarts(path)
    store.learn(command(env={"CUDA_VISIBLE_DEVICES": "3"}), CARD, "a", 800.0, under_load=True)
    found = store.footprint(replace(command(start_timeout_s=7.0), name="voice"), CARD)
    assert found is not None
    assert (found.mean_mib, found.starts) == (800.0, 1)


def test_a_start_counts_once_with_its_highest_peak(path: Path) -> None:
    store = EarlierStarts(path)
    store.learn(command(), CARD, "a", 600.0, under_load=False)
    store.learn(command(), CARD, "a", 800.0, under_load=True)
    store.learn(command(), CARD, "a", 700.0, under_load=True)
    found = store.footprint(command(), CARD)
    assert found is not None
    assert (found.mean_mib, found.starts) == (800.0, 1)


def test_starts_that_were_only_warmed_do_not_count_beside_loaded_ones() -> None:
    warmed, loaded = Start(500.0, under_load=False), Start(800.0, under_load=True)
    assert footprint_of({"a": warmed, "b": loaded}).mean_mib == 800.0
    assert footprint_of({"a": warmed}).sigma_mib > footprint_of({"a": replace(warmed, under_load=True)}).sigma_mib


@given(st.lists(MIB, min_size=1, max_size=20), st.floats(1.0, 1000.0))
def test_the_doubt_grows_with_the_spread_and_is_never_none(peaks: list[float], apart: float) -> None:
    found = footprint_of({str(number): Start(peak, under_load=True) for number, peak in enumerate(peaks)})
    assert min(peaks) <= found.mean_mib * (1 + 1e-9)
    assert found.mean_mib <= max(peaks) * (1 + 1e-9)
    assert found.sigma_mib > 0
    alike, unlike = ({"a": Start(1000.0 - by, under_load=True), "b": Start(1000.0 + by, under_load=True)} for by in (0.0, apart / 2))
    assert footprint_of(alike).sigma_mib < footprint_of(unlike).sigma_mib


def test_a_fourth_start_is_surer_than_a_first() -> None:
    first, fourth = (footprint_of({str(number): Start(900.0, under_load=True) for number in range(count)}) for count in (1, 4))
    assert fourth.sigma_mib < first.sigma_mib


def test_secrets_are_neither_kept_nor_part_of_the_key(path: Path) -> None:
    with_key = command(env={"HF_TOKEN": "hf_secret123", "VOICE": "heart"})
    EarlierStarts(path).learn(with_key, CARD, "a", 800.0, under_load=True)
    assert "hf_secret123" not in path.read_text()
    assert service_key(with_key, CARD) == service_key(command(env={"HF_TOKEN": "another", "VOICE": "heart"}), CARD)
    assert service_key(with_key, CARD) != service_key(command(env={"VOICE": "heart"}), CARD)
    assert service_key(with_key, CARD) != service_key(command(env={"HF_TOKEN": "hf_secret123", "VOICE": "sky"}), CARD)


def test_trials_that_write_at_once_lose_nothing(path: Path) -> None:
    stores = [EarlierStarts(path) for _ in range(8)]

    def write(number: int) -> None:
        for turn in range(5):
            stores[number].learn(command(), CARD, f"{number}-{turn}", 500.0 + number, under_load=True)

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(write, range(len(stores))))
    (starts,) = json.loads(path.read_text())["services"].values()
    assert len(starts) == 32, "the most that are kept of one service"
    assert [name for name in path.parent.iterdir() if name.suffix == ".json"] == [path], "no half-written file is left"


def test_a_broken_store_is_one_clear_line(path: Path) -> None:
    EarlierStarts(path).learn(command(), CARD, "a", 800.0, under_load=True)
    whole = path.read_text()
    for broken in ("[]", whole.replace("800.0", "NaN"), whole.replace("800.0", "-1"), whole.replace('"mib"', '"other"')):
        path.write_text(broken)
        with pytest.raises(UserError, match="not a file of earlier starts"):
            EarlierStarts(path)
    (path.parent / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        EarlierStarts(path.parent / "file" / "starts.json").learn(command(), CARD, "a", 1.0, under_load=True)
