"""End a run as cleanly on SIGTERM and SIGHUP as on Ctrl-C."""

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
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP (a closed terminal) within the block. An ignored SIGHUP stays ignored, for nohup(1)."""

    def raise_interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM, signal.SIGHUP), raise_interrupt):
        yield


class Interrupts:
    """Record signals instead of ending a step that must not be left half done.

    Attributes:
        noted: whether a signal has arrived since the last `forget`.
    """

    def __init__(self) -> None:
        self.noted = False
        self._letting = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Only record SIGINT, SIGTERM and SIGHUP within the block. Do nothing outside the main thread, because only that one gets
        signals."""
        with _handled(_ENDING, self._note):
            yield

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """Raise KeyboardInterrupt on the first signal within this block, which lies in a `held` one. Later signals are only recorded."""
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
        """Raise KeyboardInterrupt if a signal arrived within `let_through`. In some callbacks (at a fork, for example) Python ignores
        what a handler raises."""
        if self._letting and self.noted:
            raise KeyboardInterrupt

    def forget(self) -> None:
        """Forget recorded signals: only later ones count."""
        self.noted = False

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        first, self.noted = not self.noted, True
        if first:
            self.check()


@contextlib.contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Any) -> Iterator[None]:
    """Install the handler for these signals within the block, unless they are ignored. Restore the previous handlers afterwards."""
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
def preserve_handler(number: signal.Signals) -> Iterator[None]:
    """Restore a signal's handler after the block, because `ray.init` replaces it (main thread only).

    Ray's handler ends the program at once with SystemExit. Turn it into KeyboardInterrupt, as a signal outside the block does.
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
