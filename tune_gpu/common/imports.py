"""Import slow modules without garbage collection."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Disable Python's garbage collector within the block. Use it for imports only, which produce no garbage.

    Modules only ever add to the heap, and each collection walks all of it. Collections take a quarter of the import time of Tune, and a
    seventh of vLLM's.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
