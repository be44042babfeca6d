"""Signals end what may end, and are only noted by what must not be left halfway."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

import pytest

from tune_gpu.common.interrupt import Interrupts, terminated_as_interrupt

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_raises_an_interrupt_and_the_handler_is_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupt():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_hang_up_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminated_as_interrupt(), Interrupts().held():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ENDING)
def test_held_signals_are_noted_and_one_is_let_through(number: signal.Signals) -> None:
    interrupts = Interrupts()
    with interrupts.held():
        os.kill(os.getpid(), number)
        assert interrupts.noted
        interrupts.forget()
        with pytest.raises(KeyboardInterrupt), interrupts.let_through():
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert interrupts.noted


def test_a_signal_noted_before_is_raised_where_it_is_let_through() -> None:
    interrupts = Interrupts()
    with interrupts.held():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), interrupts.let_through():
            pytest.fail("not begun")


@pytest.mark.parametrize("then", [lambda interrupts: interrupts.check(), lambda _interrupts: None, lambda _interrupts: int("no number")])
def test_a_signal_that_python_swallowed_still_interrupts(then: Callable[[Interrupts], object]) -> None:
    """What a handler raises in a callback, at a fork say, Python prints and ignores."""
    interrupts = Interrupts()
    with interrupts.held():
        with pytest.raises(KeyboardInterrupt), interrupts.let_through():  # noqa: PT012 - the swallowed one is half of it
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            then(interrupts)
        interrupts.check()
