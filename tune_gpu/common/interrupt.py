"""SIGTERM and SIGHUP end a run as Ctrl-C does: cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP (a terminal that has gone) raise KeyboardInterrupt. An ignored SIGHUP stays ignored: nohup(1)."""

    def raise_interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM, signal.SIGHUP), raise_interrupt):
        yield


class Interrupts:
    """Signals that are noted in place of ending what must not be left halfway.

    Args:
        noted: whether one has come since the last `forget`.
    """

    def __init__(self) -> None:
        self.noted = False
        self._letting = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block SIGINT, SIGTERM and SIGHUP are only noted. Outside the main thread, which alone gets signals, this does nothing."""
        with _handled(_ENDING, self._note):
            yield

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """Within this block inside a `held` one the first signal raises KeyboardInterrupt; those that follow are noted."""
        self._letting = True
        try:
            self.check()
            yield
            self.check()
        except Exception as error:
            if self.noted:
                raise KeyboardInterrupt from error
            raise
        finally:
            self._letting = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came within `let_through`: Python ignores what a handler raises in some callbacks, at a fork say."""
        if self._letting and self.noted:
            raise KeyboardInterrupt

    def forget(self) -> None:
        """Only a signal that comes from now on counts."""
        self.noted = False

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        first, self.noted = not self.noted, True
        if first:
            self.check()


@contextlib.contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Any) -> Iterator[None]:
    """Within the block these signals have the handler, unless they are ignored; afterwards the one that they had."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: known for number in numbers if (known := signal.getsignal(number)) not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


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
