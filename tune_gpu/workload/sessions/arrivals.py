"""When sessions begin: before a window and in it.

Arrivals are numbered from the window's beginning: 0, 1, 2, … are those in it, -1, -2, … those before it, going back. So more of the past, or a
longer window, shifts none of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tune_gpu.config.session_settings import ArrivalSettings
from tune_gpu.workload.sessions.draws import Purpose, uniform

BLOCK = 2048
"""Arrivals that are made at once."""
Block = tuple[np.ndarray, np.ndarray]
"""Numbers of arrivals, and when each is, in seconds after the window's beginning."""


@dataclass(frozen=True)
class Renewal:
    """Independent gaps: exponential (Poisson) or gamma. The process began long before the window."""

    rate_per_s: float
    shape: float
    """Of the gaps' gamma distribution; 1 is exponential."""
    seed: int
    window: int

    def after(self) -> Iterator[Block]:
        """Yield the arrivals from the window's beginning on, without end."""
        now, number = self._straddling()[1], 0
        while True:
            numbers = np.arange(number, number + BLOCK)
            at_s = now + np.concatenate(([0.0], np.cumsum(self._gaps(numbers[1:]))))
            yield numbers, at_s
            number += BLOCK
            now = float(at_s[-1] + self._gaps(np.array([number]))[0])

    def before(self) -> Iterator[Block]:
        """Yield the arrivals before the window's beginning, going back, without end."""
        now, number = -self._straddling()[0], -1
        while True:
            numbers = np.arange(number, number - BLOCK, -1)
            at_s = now - np.concatenate(([0.0], np.cumsum(self._gaps(numbers[1:]))))
            yield numbers, at_s
            number -= BLOCK
            now = float(at_s[-1] - self._gaps(np.array([number]))[0])

    def _gaps(self, numbers: np.ndarray) -> np.ndarray:
        return self._of_shape(self.shape, uniform(self.seed, self.window, numbers, 0, Purpose.GAP))

    def _of_shape(self, shape: float, u: np.ndarray) -> np.ndarray:
        return np.asarray(special.gammaincinv(shape, u) / (self.shape * self.rate_per_s))

    def _straddling(self) -> tuple[float, float]:
        """Return the time since the last arrival and until the first one. A gap holds the window's beginning with a probability in proportion to its
        length, which makes its distribution gamma with the shape plus 1; the beginning lies anywhere in it."""
        length = float(self._of_shape(self.shape + 1.0, uniform(self.seed, self.window, 0, 0, Purpose.STRADDLE))[0])
        share = float(uniform(self.seed, self.window, 0, 1, Purpose.STRADDLE)[0])
        return share * length, (1.0 - share) * length


@dataclass(frozen=True)
class Times:
    """Given times, repeated when they end. A window takes the stretch that begins where the window before it ended."""

    given: Sequence[float]
    begins_s: float
    """Of the window, after the first window's beginning."""

    def after(self) -> Iterator[Block]:
        """Yield the arrivals from the window's beginning on, without end."""
        yield from self._blocks(0, 1)

    def before(self) -> Iterator[Block]:
        """Yield the arrivals before the window's beginning, going back, without end."""
        yield from self._blocks(-1, -1)

    def _blocks(self, number: int, step: int) -> Iterator[Block]:
        times = np.asarray(self.given, dtype=np.float64)
        period = float(times[-1]) + (float(times[-1]) / (len(times) - 1) if len(times) > 1 else 0.0) or 1.0
        begins = self.begins_s % period
        first = int(np.searchsorted(times, begins))
        while True:
            numbers = number + step * np.arange(BLOCK)
            rounds, at = np.divmod(numbers + first, len(times))
            yield numbers, times[at] + rounds * period - begins
            number += step * BLOCK


def arrivals_of(settings: ArrivalSettings, times: Sequence[float], *, seed: int, index: int, seconds: float) -> Renewal | Times:
    """Return the arrivals of a window.

    Args:
        settings: of the arrivals.
        times: of the settings' file, in seconds and in order.
        seed: of the run.
        index: number of the window.
        seconds: its length.
    """
    if settings.process == "times":
        return Times(times, index * seconds if math.isfinite(seconds) else 0.0)
    shape = settings.burstiness if settings.process == "gamma" else 1.0
    return Renewal(settings.sessions_per_min / 60.0, shape, seed, index)
