"""Find the kinds of service: built-in ones and those of other packages are entry points of the same group."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import nearest

GROUP = "tune_gpu.services"
"""The group of entry points. Each names a kind, and refers to an object that is a `ServiceKind` (`services/base.py`)."""


@runtime_checkable
class Packaged(Protocol):
    """A kind whose program is in packages of Python."""

    @property
    def packages(self) -> Collection[str]:
        """Return the packages whose versions a run records."""


@cache
def kind_names() -> tuple[str, ...]:
    """Return the names of all kinds that are installed."""
    return tuple(sorted(_found()))


@cache
def load_kind(name: str, key: str = "kind") -> Any:
    """Return the kind of this name (a `ServiceKind`).

    Args:
        name: of the kind.
        key: the setting that names it, for the message.

    Raises:
        UserError: no installed package has such a kind, or its package cannot be imported.
    """
    point = _found().get(name)
    if point is None:
        known = kind_names()
        raise UserError(f"{key}={name}: no such kind of service{nearest(name, known)}. Use one of {', '.join(known)}, or install the package that has it.")
    try:
        return point.load()
    except Exception as error:  # a plug-in may raise anything while it is imported
        raise UserError(f"{key}={name}: {point.value} cannot be loaded ({type(error).__name__}: {error}). Repair or reinstall its package.") from error


def kinds_with(protocol: Any) -> list[Any]:
    """Return the installed kinds that have the methods of a protocol. One that cannot be loaded is named where a space uses it."""
    found = []
    for name in kind_names():
        with contextlib.suppress(UserError):
            if isinstance(kind := load_kind(name), protocol):
                found.append(kind)
    return found


@cache
def _found() -> dict[str, EntryPoint]:
    """Return the entry points by kind. This program's own come first: no package replaces them."""
    points = sorted(entry_points(group=GROUP), key=lambda point: getattr(point.dist, "name", "") != "tune-gpu")
    found: dict[str, EntryPoint] = {}
    for point in points:
        found.setdefault(point.name, point)
    return found
