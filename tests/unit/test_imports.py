"""Imports are made without the garbage collector, and only they."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tune_gpu.imports import uncollected


@pytest.fixture(autouse=True)
def collected_as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_the_collector_rests_within_the_block_and_leaves_what_was_made_there_alone_afterwards() -> None:
    collections = sum(generation["collections"] for generation in gc.get_stats())
    frozen = gc.get_freeze_count()
    with uncollected():
        kept = [[] for _ in range(100_000)]
        assert sum(generation["collections"] for generation in gc.get_stats()) == collections
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ModuleNotFoundError), uncollected():
        import there_is_no_such_module  # noqa: F401
    assert gc.isenabled()


def test_within_another_block_it_goes_on_resting() -> None:
    with uncollected():
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
