"""Look at a growing comparison repeatedly without more false claims, and decide the order of arms.

Each look spends a part of the allowed error: look k before the last spends alpha / (2 k (k + 1)), which sums to less than alpha / 2
for any number of looks; the last one spends the rest. By the union bound the chance of any false claim about a metric is at most alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interim_alpha(look: int, alpha: float) -> float:
    """Return the alpha of look number `look` (from 1) if more may follow."""
    return alpha / (2.0 * look * (look + 1))


def final_alpha(looks_before: int, alpha: float) -> float:
    """Return the alpha of the last look after so many."""
    return alpha - sum(interim_alpha(look, alpha) for look in range(1, looks_before + 1))


def order_of_round(arms: Sequence[str], number: int, seed: int) -> list[str]:
    """Return the arms of one round in order.

    Every second round reverses the one before (A B, B A), so that a drift affects all arms alike. The order of each such pair comes from
    the seed. Equal neighbours at the seam (B, B) share an engine.
    """
    rng = np.random.default_rng([seed, 77, number // 2])
    shuffled = [arms[index] for index in rng.permutation(len(arms))]
    return shuffled if number % 2 == 0 else shuffled[::-1]
