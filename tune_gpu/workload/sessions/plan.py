"""The plan of a window of sessions: a pure function of the seed, the window's number, the settings and the sources.

Sessions arrive in an open loop, whether or not earlier ones have ended. In the steady state they have arrived before the window too: whoever
would still be talking at its beginning, if every answer took a second, takes part from their next turn on, with the turns before as their
history. Such sessions are longer than usual ones, as they are in any system that is looked at in the middle of its day.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.sessions.arrivals import arrivals_of
from tune_gpu.workload.sessions.auxiliary import plan_auxiliary
from tune_gpu.workload.sessions.callers import Callers
from tune_gpu.workload.sessions.draws import Purpose, uniform
from tune_gpu.workload.sessions.made import MadeSessions
from tune_gpu.workload.sessions.values import PlannedSession, SessionWindow
from tune_gpu.workload.sources.loaded import SessionSources, profiles_of
from tune_gpu.workload.stages import Stage

RULE = 1
"""Version of the rules of planning. Raise it with every change after which the same settings plan something else."""
_MOST_BEFORE = 200_000
"""Sessions before a window that are looked at."""


def plan_sessions(
    workload: WorkloadSettings, stages: Sequence[Stage], sources: SessionSources, *, seed: int, index: int, seconds: float
) -> SessionWindow:
    """Return the plan of a window. It has at least one session.

    Args:
        workload: the settings of the traffic.
        stages: of a turn.
        sources: what is said.
        seed: of the run.
        index: number of the window.
        seconds: how long sessions arrive.
    """
    sessions = sorted(stream_sessions(workload, sources, seed=seed, index=index, seconds=seconds), key=lambda session: session.starts_s)
    if not sessions:
        sessions = [_the_one(workload, sources, seed, index, seconds)]
    return SessionWindow(tuple(sessions), plan_auxiliary(workload, stages, sessions, seed=seed, index=index, seconds=seconds))


def stream_sessions(workload: WorkloadSettings, sources: SessionSources, *, seed: int, index: int, seconds: float) -> Iterator[PlannedSession]:
    """Yield the sessions of a window: those under way at its beginning, then those that arrive, in order. The memory does not grow with
    their number, and `seconds` may be infinite."""
    plan = _Plan(workload, sources, seed, index)
    arrivals = arrivals_of(workload.arrivals, sources.times, seed=seed, index=index, seconds=seconds)
    if workload.steady_state:
        since_s = plan.longest_s()
        for block, (numbers, at_s) in enumerate(arrivals.before(), 1):
            yield from plan.made(numbers, at_s, seconds)
            if at_s[-1] < -since_s or block * len(numbers) >= _MOST_BEFORE:
                break
    for numbers, at_s in arrivals.after():
        within = at_s < seconds
        yield from plan.made(numbers[within], at_s[within], seconds)
        if not within.all():
            return


def _the_one(workload: WorkloadSettings, sources: SessionSources, seed: int, index: int, seconds: float) -> PlannedSession:
    """Return the first session, moved into the window: a window without one would measure nothing."""
    at_s = uniform(seed, index, 0, 2, Purpose.STRADDLE) * seconds
    return next(iter(_Plan(workload, sources, seed, index).made(np.array([0]), at_s, seconds)))


class _Plan:
    """The profiles of a window."""

    def __init__(self, workload: WorkloadSettings, sources: SessionSources, seed: int, index: int) -> None:
        profiles = profiles_of(workload)
        self._callers = [Callers(name, profile, sources.profiles[name], workload, seed, index) for name, profile in profiles.items()]
        shares = np.array([profile.share for profile in profiles.values()])
        self._bounds = np.cumsum(shares / shares.sum())[:-1]
        self._seed, self._index = seed, index

    def made(self, numbers: np.ndarray, at_s: np.ndarray, seconds: float) -> Iterator[PlannedSession]:
        """Yield those of these sessions that have a turn in the window, in the given order."""
        of = np.searchsorted(self._bounds, uniform(self._seed, self._index, numbers, 0, Purpose.PROFILE), side="right")
        made: list[Iterator[PlannedSession | None]] = []
        for position, callers in enumerate(self._callers):
            here = of == position
            made.append(MadeSessions(callers, numbers[here], at_s[here], seconds).each() if here.any() else itertools.repeat(None))
        for position in of.tolist():
            session = next(made[position])
            if session is not None:
                yield session

    def longest_s(self) -> float:
        """Return how long nearly no session lasts."""
        many = np.arange(1, 4097)
        found = 60.0
        for callers in self._callers:
            columns = callers.columns(-many)
            ends = np.maximum.reduceat(columns.due_s, np.searchsorted(columns.session, np.arange(len(many))))
            found = max(found, 1.5 * float(ends.max()))
        return found
