"""Limit BLAS to one thread. With a few hundred rows its threads mostly wait for each other, and take cores from the measurements."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # finds the libraries, once NumPy and SciPy have loaded them


def one_thread() -> AbstractContextManager[object]:
    """Run linear algebra on the calling thread alone within the block."""
    return _controller().limit(limits=1)
