"""Within a generation as few services as possible start anew."""

from __future__ import annotations

from itertools import pairwise, permutations

from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.search.order import StartKey, fewest_starts, starts

KEYS = st.tuples(st.tuples(st.sampled_from("AB"), st.sampled_from("ab")), st.tuples(st.sampled_from("xyz")))


def spent(order: list[StartKey], last: StartKey | None) -> tuple[int, ...]:
    found = [starts(before, after) for before, after in zip([last, *order], order, strict=False)]
    return tuple(map(sum, zip(*found, strict=True))) if found else ()


@given(st.lists(KEYS, max_size=5), st.none() | KEYS)
def test_no_order_of_a_generation_has_fewer_starts(members: list[StartKey], last: StartKey | None) -> None:
    order = fewest_starts(members, lambda key: key, last)
    assert sorted(order) == sorted(members)
    assert spent(order, last) == min((spent(list(other), last) for other in permutations(members)), default=())


@given(st.lists(st.tuples(st.tuples(st.integers(0, 30)), st.tuples(st.integers(0, 30))), min_size=9, max_size=40), st.none())
def test_many_members_are_ordered_too_and_equal_ones_are_adjacent(members: list[StartKey], last: None) -> None:
    order = fewest_starts(members, lambda key: key, last)
    assert sorted(order) == sorted(members)
    assert sum(a != b for a, b in pairwise(order)) == len(set(members)) - 1


def test_a_shared_second_service_decides_between_equal_first_ones() -> None:
    """Sorted by their keys, y would be followed by x twice: three starts instead of two."""
    members = [(("A",), ("x",)), (("A",), ("y",)), (("B",), ("x",))]
    assert fewest_starts(members, lambda key: key, (("A",), ("y",))) == [(("A",), ("y",)), (("A",), ("x",)), (("B",), ("x",))]


def test_without_services_the_order_is_the_proposals() -> None:
    assert fewest_starts(["c", "a", "b"], lambda _member: (), None) == ["c", "a", "b"]
