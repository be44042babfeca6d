"""SIGTERM ends a run as Ctrl-C does: cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt."""

    def raise_interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, raise_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def handler_kept(number: signal.Signals) -> Iterator[None]:
    """After the block a signal has the handler that it had before: `ray.init` puts its own in the place of it (main thread only).

    Ray's leaves the program at once, as `SystemExit`: a signal within the block is an interrupt as one outside of it.
    """
    before = signal.getsignal(number)
    try:
        yield
    except SystemExit as left:
        raise KeyboardInterrupt from left
    finally:
        _put_back(number, before)


def _put_back(number: signal.Signals, before: Any) -> None:
    if threading.current_thread() is threading.main_thread() and before is not None:
        signal.signal(number, before)
