"""Find the kinds of service: built-in ones and those of other packages are entry points of the same group."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import nearest

GROUP = "tune_gpu.services"
"""The group of entry points. Each names a kind, and refers to an object that is a `ServiceKind` (`services/base.py`)."""


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


@cache
def _found() -> dict[str, EntryPoint]:
    """Return the entry points by kind. This program's own come first: no package replaces them."""
    points = sorted(entry_points(group=GROUP), key=lambda point: getattr(point.dist, "name", "") != "tune-gpu")
    found: dict[str, EntryPoint] = {}
    for point in points:
        found.setdefault(point.name, point)
    return found
