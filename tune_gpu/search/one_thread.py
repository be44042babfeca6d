"""A few hundred rows are too few for BLAS to share among threads: they wait for each other, and take the cores from whoever measures."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks for the libraries once, when NumPy and SciPy have loaded them


def one_thread() -> AbstractContextManager[object]:
    """Run linear algebra on the calling thread alone within the block."""
    return _controller().limit(limits=1)
