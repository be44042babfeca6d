"""Imports that take seconds, made without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Within the block Python collects no garbage; for imports alone, of which nothing is garbage.

    Modules only ever add to the heap, and each collection walks what is there: a quarter of the time that Tune's imports take, a seventh of
    vLLM's.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
