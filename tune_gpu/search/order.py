"""Order the candidates of a generation, so that as few services as possible start anew between them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")
StartKey = tuple[tuple[Hashable, ...], ...]
"""What a candidate starts: groups of services, the costliest group first, with one entry for each service. Equal entries share a service."""
_EXACT = 8
"""Greatest number of different keys for which every order is compared."""


def starts(before: StartKey | None, after: StartKey) -> tuple[int, ...]:
    """Return how many services of each group start anew from one candidate to the next. `before` is None if nothing runs."""
    if before is None:
        return tuple(0 for _ in after)  # all of them start, whichever candidate is the first
    return tuple(sum(one != other for one, other in zip_longest(*group)) for group in zip(before, after, strict=True))


def fewest_starts(members: Sequence[T], key: Callable[[T], StartKey], last: StartKey | None) -> list[T]:
    """Return the members in the order with the fewest starts: of the first group of services, and among such orders of the next group.

    The order depends on nothing but the keys; members with the same key keep theirs. With more than eight different keys, each next
    one is the nearest.

    Args:
        members: the candidates of a generation.
        key: returns what one of them starts.
        last: what runs before the first of them; None for nothing.
    """
    of_key: dict[StartKey, list[T]] = {}
    for member in sorted(members, key=lambda one: str(key(one))):
        of_key.setdefault(key(member), []).append(member)
    keys = list(of_key)
    order = _best_path(keys, last) if len(keys) <= _EXACT else _nearest_path(keys, last)
    return [member for at in order for member in of_key[keys[at]]]


Path = tuple[tuple[int, ...], tuple[int, ...]]
"""Starts by group, and the places of the keys in order. The smaller is the better; an order decides between equal starts."""


def _best_path(keys: Sequence[StartKey], last: StartKey | None) -> tuple[int, ...]:
    """Return the best of all orders (Held and Karp's dynamic programme over the sets of keys)."""
    paths: dict[tuple[frozenset[int], int], Path] = {(frozenset((at,)), at): (starts(last, key), (at,)) for at, key in enumerate(keys)}
    for _ in range(len(keys) - 1):
        longer: dict[tuple[frozenset[int], int], Path] = {}
        for (seen, end), (spent, order) in paths.items():
            for at in range(len(keys)):
                if at not in seen:
                    more = starts(keys[end], keys[at])
                    path = (tuple(a + b for a, b in zip(spent, more, strict=True)), (*order, at))
                    state = (seen | {at}, at)
                    longer[state] = min(path, longer.get(state, path))
        paths = longer
    return min(paths.values(), default=((), ()))[1]


def _nearest_path(keys: Sequence[StartKey], last: StartKey | None) -> list[int]:
    order: list[int] = []
    left = set(range(len(keys)))
    while left:
        before = keys[order[-1]] if order else last
        order.append(min(left, key=lambda at: (starts(before, keys[at]), at)))
        left.remove(order[-1])
    return order
