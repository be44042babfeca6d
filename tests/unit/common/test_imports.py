"""Imports are made without the garbage collector, and only they."""

from __future__ import annotations

import gc

import pytest

from tune_gpu.common.imports import uncollected


def test_the_collector_rests_within_the_block_and_works_after_it() -> None:
    before = collections()
    with uncollected():
        kept: list[list[None]] = [[] for _ in range(100_000)]
        assert collections() == before
    kept += [[] for _ in range(100_000)]
    assert collections() > before


def collections() -> int:
    return sum(int(generation["collections"]) for generation in gc.get_stats())


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
