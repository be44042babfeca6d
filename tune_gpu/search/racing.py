"""Who is better, told from windows of noisy measurements: the statistics of a race.

A race (Maron and Moore 1994, "Hoeffding Races"; Birattari et al. 2002, F-Race, as in irace) measures its candidates window by window and
drops one as soon as the evidence says that it cannot be among the survivors. The evidence here is Welch's unequal-variances t-test on
the means so far, with the level divided by the number of rivals (Bonferroni), so that a long list of rivals drops nobody by chance.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.special import stdtr, stdtrit  # scipy.stats takes half a second to import


class RaceVerdict(StrEnum):
    """Of one estimate against another; higher means are better."""

    BETTER = "better"
    WORSE = "worse"
    TIE = "tie"


@dataclass(frozen=True)
class Estimate:
    """A mean over windows.

    Raises:
        ValueError: not finite, a negative standard error, or no window.
    """

    mean: float
    stderr: float | None
    """Standard error of the mean; null where one window (or nobody) told it."""
    n_windows: int = 1

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"mean={self.mean}: allowed is a finite number")
        if self.stderr is not None and not (math.isfinite(self.stderr) and self.stderr >= 0.0):
            raise ValueError(f"stderr={self.stderr}: allowed is a finite number of 0 or more, or null")
        if self.n_windows < 1:
            raise ValueError(f"n_windows={self.n_windows}: allowed is 1 or more")

    @property
    def known(self) -> bool:
        """Return whether its uncertainty is: two windows at least, and a standard error."""
        return self.stderr is not None and self.n_windows >= 2

    def bound(self, confidence: float) -> float:
        """The lower end of the one-sided confidence interval of the mean (Student's t); minus infinity while the uncertainty is not known."""
        if not self.known or self.stderr is None:
            return -math.inf
        return self.mean - float(stdtrit(self.n_windows - 1, confidence)) * self.stderr


def compare(a: Estimate, b: Estimate, alpha: float = 0.05) -> RaceVerdict:
    """Welch's t-test, each side at `alpha`; a tie as long as either uncertainty is unknown."""
    if not (a.known and b.known) or a.stderr is None or b.stderr is None or a.mean == b.mean:
        return RaceVerdict.TIE
    scale = max(a.stderr, b.stderr)
    if scale > 0.0:  # in units of the larger one: squares of the very small vanish, and of the very large there are none
        variance_a, variance_b = (a.stderr / scale) ** 2, (b.stderr / scale) ** 2
        total = variance_a + variance_b
        # Welch-Satterthwaite degrees of freedom, in shares: the squares of tiny variances would vanish.
        share_a, share_b = variance_a / total, variance_b / total
        freedom = 1.0 / (share_a**2 / (a.n_windows - 1) + share_b**2 / (b.n_windows - 1))
        if float(stdtr(freedom, -abs(a.mean - b.mean) / scale / math.sqrt(total))) > alpha:
            return RaceVerdict.TIE
    return RaceVerdict.BETTER if a.mean > b.mean else RaceVerdict.WORSE


def has_lost(candidate: Estimate, rivals: Sequence[Estimate], places: int, alpha: float = 0.05) -> bool:
    """Return whether at least `places` rivals are shown to be better, so that none of the places is left for it."""
    if len(rivals) < places:
        return False
    level = alpha / len(rivals)
    return sum(compare(candidate, rival, level) is RaceVerdict.WORSE for rival in rivals) >= places


def winner(estimates: Mapping[Hashable, Estimate], confidence: float = 0.95) -> Hashable | None:
    """The one with the highest lower confidence bound, never the luckiest single window; by the mean where no uncertainty is known."""
    if not estimates:
        return None
    return max(estimates, key=lambda key: (estimates[key].bound(confidence), estimates[key].mean))


def tied_with(best: Hashable, estimates: Mapping[Hashable, Estimate], alpha: float = 0.05) -> list[Hashable]:
    """All others that are not shown to differ from `best`: a tie is called a tie."""
    return [key for key, other in estimates.items() if key != best and compare(estimates[best], other, alpha) is RaceVerdict.TIE]
