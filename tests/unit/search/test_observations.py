"""What was measured in one space, by configuration, whatever the order of the results."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.search.observations import Observations


def keys(count: int) -> list[bytes]:
    return [np.array([float(i)]).tobytes() for i in range(count)]


def observed(values: list[float], order: list[int] | None = None) -> Observations:
    """So many configurations, taken in order and measured once each."""
    known = Observations()
    for key in keys(len(values)):
        known.mark_pending(key)
    for i in order or range(len(values)):
        known.observe(keys(len(values))[i], values[i])
    return known


def test_progress_is_what_the_latest_half_added_to_the_best_measurement() -> None:
    assert observed([1.0, 5.0, 2.0, 3.0, 7.0, 6.0]).progress() == pytest.approx(2.0)
    assert observed([1.0, 5.0, 2.0, 3.0, 4.0, 4.5]).progress() == pytest.approx(-0.5)


def test_a_single_configuration_has_no_latest_half_so_all_is_progress() -> None:
    assert observed([1.0]).progress() == math.inf


def test_a_repetition_that_is_lower_does_not_make_what_follows_a_progress() -> None:
    known = observed([1.0, 5.0, 2.0, 3.0, 4.0, 4.5])
    known.mark_pending(keys(2)[1])
    known.observe(keys(2)[1], 1.0)
    assert known.progress() == pytest.approx(-0.5)


def test_what_failed_or_awaits_its_result_is_no_part_of_the_progress() -> None:
    known = observed([1.0, 5.0, 2.0, 3.0, 7.0, 6.0])
    failed, awaited = keys(8)[6:]
    for key in (failed, awaited):
        known.mark_pending(key)
    known.observe(failed, None)
    assert known.progress() == pytest.approx(2.0)
    known.unmark(awaited)
    assert known.progress() == pytest.approx(2.0)


@given(st.permutations(range(12)))
def test_the_order_of_the_results_does_not_count(order: list[int]) -> None:
    values = [float((7 * i) % 12) for i in range(12)]
    assert observed(values, list(order)).progress() == observed(values).progress()
