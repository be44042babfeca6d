"""Who has lost a race, by the evidence so far.

A race (Maron and Moore 1994, "Hoeffding Races"; Birattari et al. 2002, F-Race, as in irace) measures its candidates window by window and
drops one as soon as the evidence says that it cannot be among the survivors. The evidence is that of `evidence.py`: what one deployment's windows
show must be more than what differs from one deployment to the next. The level is divided by the number of rivals (Bonferroni), so that a long list
of rivals drops nobody by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable

from tune_gpu.search.evidence import Evidence


def has_lost(evidence: Evidence, key: Hashable, rivals: Collection[Hashable], places: int, alpha: float = 0.05) -> bool:
    """Return whether at least `places` rivals are shown to be better, each one-sided at `alpha` over their number, so that no place is left.

    Raises:
        KeyError: one of them was not measured.
    """
    if len(rivals) < places:
        return False
    return len(evidence.better_than(key, rivals, alpha / len(rivals))) >= places
