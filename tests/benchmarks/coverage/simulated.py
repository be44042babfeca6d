"""Simulated runs: tournaments of configurations whose true values are known, with start-to-start noise, drift and heavy tails."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tune_gpu.search.evidence import Deployment, Evidence

_FREEDOM = 2.0
"""An error of three windows has two degrees of freedom."""
_STEPS = 24
"""Deployments in the longest run; a run that ends earlier sees a part of the drift."""
_BASELINE = 1
_Z = 1.959964


@dataclass(frozen=True)
class Setting:
    """One kind of run."""

    between: float
    """Standard deviation between deployments, in typical errors within one."""
    drift: str
    """`none`, `line` or `walk` (random steps); over the run as large as the standard deviation of one deployment."""
    tails: str
    """`normal`, `t4` (Student with 4 degrees of freedom) or `mixed` (one deployment in ten is three times as far off)."""
    design: str
    """`run` (a tournament with a closing anchor), `anchored` (with four anchors) or `soak` (4 configurations x 6 in random order)."""
    truth: str
    """`spread` (values differ at random), `equal` (all are the same) or `ahead` (one is three standard deviations above the rest)."""

    @property
    def name(self) -> str:
        """Return how it is printed."""
        return f"between {self.between:g}, drift {self.drift}, tails {self.tails}, {self.design}, {self.truth}"


SETTINGS = [
    Setting(*each)
    for each in product(
        (1.0, 2.0, 4.0), ("none", "line", "walk"), ("normal", "t4", "mixed"), ("run", "anchored", "soak"), ("spread", "equal", "ahead")
    )
]


@dataclass(frozen=True)
class Outcome:
    """The results of one simulated run."""

    setting: Setting
    covered: tuple[bool, ...]
    """One entry a configuration: True if one more deployment fell into its prediction interval."""
    widths: tuple[float, ...]
    """Width of each of these intervals, over that of an oracle who knows the variances."""
    called_different: bool | None
    """True if two equal configurations, chosen beforehand, were shown to differ; None if none are equal."""
    different_from_first: tuple[bool, ...] | None
    """One entry for each other configuration: True if it was shown to differ from the first of the ranking. None unless all are equal."""
    named: bool | None
    """True if the true best is the first of the ranking; None if none is ahead."""
    told_apart: bool | None
    """True if the true best was also shown to differ from all others."""


class _World:
    """The truth of one run, from which deployments are drawn."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self._setting, self._rng = setting, rng
        self.n = 4 if setting.design == "soak" else 11
        self.sd = math.hypot(setting.between, 1.0)
        """The standard deviation of one deployment, in units of the typical error within a deployment."""
        self.values = rng.normal(0.0, 2.0 * self.sd, self.n) if setting.truth == "spread" else np.zeros(self.n)
        if setting.truth == "ahead":
            self.values[int(rng.integers(self.n))] = 3.0 * self.sd
        steps = np.linspace(0.0, 1.0, _STEPS)
        walk = np.cumsum(rng.normal(0.0, self.sd / math.sqrt(_STEPS), _STEPS))
        self._drift = {"none": 0.0 * steps, "line": rng.choice([-1.0, 1.0]) * self.sd * steps, "walk": walk}[setting.drift]
        removed = np.polyval(np.polyfit(steps, self._drift, 1), steps) if setting.design == "anchored" else 0.0
        self._drift_variance = float(np.var(self._drift - removed))
        self.errors: list[list[float]] = [[] for _ in range(self.n)]
        """True errors within the deployments of each configuration."""
        self.deployments: list[Deployment] = []

    def draw(self, c: int, at: int, *, anchor: bool = False) -> tuple[Deployment, float]:
        """Return one deployment, and the true error within it."""
        rng = self._rng
        start = {
            "normal": rng.normal(),
            "t4": rng.standard_t(4) / math.sqrt(2.0),
            "mixed": rng.normal() * (3.0 if rng.random() < 0.1 else 1.0) / math.sqrt(1.8),
        }[self._setting.tails]
        within = float(np.exp(rng.normal(0.0, 0.4)))
        stated = within * math.sqrt(rng.chisquare(_FREEDOM) / _FREEDOM)
        value = self.values[c] + self._drift[at] + self._setting.between * start + within * rng.normal()
        return Deployment(c, float(value), stated, _FREEDOM, float(at), anchor), within

    def deploy(self, c: int, *, anchor: bool = False) -> None:
        """Measure a configuration."""
        found, within = self.draw(c, len(self.deployments), anchor=anchor)
        self.deployments.append(found)
        self.errors[c].append(within)

    def oracle(self, c: int, within: float) -> float:
        """Return the width of the prediction interval of an oracle who knows every variance."""
        between = self._setting.between**2 + self._drift_variance
        of_mean = 1.0 / sum(1.0 / (between + error**2) for error in self.errors[c])
        return 2.0 * _Z * math.sqrt(of_mean + between + within**2)


def _soak(world: _World, rng: np.random.Generator) -> None:
    for c in rng.permutation(np.repeat(np.arange(world.n), 6)):
        world.deploy(int(c))


def _tournament(world: _World, *, anchors: bool) -> None:
    """2 + 4 + 4 + 4 configurations with one elite, a recheck of a winner measured once, and the baseline (1) again in the end."""
    observed: list[int] = []

    def measure(c: int) -> None:
        observed.append(len(world.deployments))
        world.deploy(c, anchor=c == _BASELINE and len(observed) <= 2)

    def best() -> int:
        return int(str(Evidence([world.deployments[i] for i in observed]).ranked()[0]))

    measure(0)
    measure(_BASELINE)
    for new in range(2, world.n, 3):
        if anchors and new > 2:
            world.deploy(_BASELINE, anchor=True)
        measure(best())
        for c in range(new, new + 3):
            measure(c)
    for _ in range(2):
        if len(world.errors[best()]) == 1:
            measure(best())
    world.deploy(_BASELINE, anchor=True)


def simulate(setting: Setting, seed: int) -> Outcome:
    """Return what one run shows."""
    rng = np.random.default_rng([seed, *setting.name.encode()])
    world = _World(setting, rng)
    if setting.design == "soak":
        _soak(world, rng)
    else:
        _tournament(world, anchors=setting.design == "anchored")
    evidence = Evidence(world.deployments)
    covered, widths = [], []
    for c in range(world.n):
        again, within = world.draw(c, int(rng.integers(len(world.deployments))))
        low, high = evidence.prediction(c, again.at).interval()
        covered.append(bool(low <= again.value <= high))
        widths.append((high - low) / world.oracle(c, within))
    best, first = int(np.argmax(world.values)), evidence.ranked()[0]
    tied = set(evidence.tied_with(first))
    one, other = (int(c) for c in rng.permutation(np.flatnonzero(np.arange(world.n) != (best if setting.truth == "ahead" else -1)))[:2])
    ahead, equal = setting.truth == "ahead", setting.truth == "equal"
    return Outcome(
        setting, tuple(covered), tuple(widths),
        called_different=None if setting.truth == "spread" else evidence.differ(one, other),
        different_from_first=tuple(key not in tied for key in evidence.keys if key != first) if equal else None,
        named=first == best if ahead else None,
        told_apart=first == best and not tied if ahead else None,
    )  # fmt: skip


def simulate_many(runs: int, settings: Sequence[Setting] = SETTINGS) -> Iterator[Outcome]:
    """Yield so many runs, spread evenly over the settings."""
    for run in range(runs):
        yield simulate(settings[run % len(settings)], run // len(settings))
