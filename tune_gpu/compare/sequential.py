"""Looking at a comparison while it grows, without being fooled by looking often; and who comes next.

Each look spends a part of the allowed error: look k of those before the last alpha / (2 k (k + 1)), which sums to less than alpha / 2
however many there are; the last one spends what is left. By the union bound the chance of any false claim about a metric is at most alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interim_alpha(look: int, alpha: float) -> float:
    """Return what look number `look` (from 1) may spend when more may follow."""
    return alpha / (2.0 * look * (look + 1))


def final_alpha(looks_before: int, alpha: float) -> float:
    """Return what is left for the last look after so many."""
    return alpha - sum(interim_alpha(look, alpha) for look in range(1, looks_before + 1))


def order_of_round(arms: Sequence[str], number: int, seed: int) -> list[str]:
    """The arms of one round: every second round is the one before in reverse (A B, B A), so that a drift hits all alike; the order of
    each such double round comes from the seed. Equal neighbours at the seam (B, B) share an engine."""
    rng = np.random.default_rng([seed, 77, number // 2])
    shuffled = [arms[index] for index in rng.permutation(len(arms))]
    return shuffled if number % 2 == 0 else shuffled[::-1]
