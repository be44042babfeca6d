"""Decide which candidates have lost a race, by the evidence so far.

A race (Maron and Moore 1994, "Hoeffding Races"; Birattari et al. 2002, F-Race, as in irace) measures its candidates window by window and
drops one as soon as the evidence shows that it cannot be among the survivors. The evidence is that of `evidence.py`: the difference that
one deployment's windows show must exceed the differences between deployments. The level is divided by the number of rivals (Bonferroni), so
that a long list of rivals does not drop a candidate by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable

from tune_gpu.search.evidence import Evidence


def has_lost(evidence: Evidence, key: Hashable, rivals: Collection[Hashable], places: int, alpha: float = 0.05) -> bool:
    """Return whether at least `places` rivals are shown to be better, so that no place is left. Each test is one-sided at `alpha` divided
    by their number.

    Raises:
        KeyError: a configuration was not measured.
    """
    if len(rivals) < places:
        return False
    return len(evidence.better_than(key, rivals, alpha / len(rivals))) >= places
