"""Check the arguments of `RZeroSearch`. Each error is one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import bounds_of
from tune_gpu.config.schema import SearchSettings
from tune_gpu.search.tournament import Tournament


def check_kinds(seed: Any, settings: Any, tournament: Any) -> None:
    """Raise UserError for an argument of the wrong type."""
    if isinstance(seed, bool) or not (seed is None or (isinstance(seed, (int, np.integer)) and bounds_of(SearchSettings, "seed").holds(int(seed)))):
        raise UserError(f"seed={seed!r}: not a seed. Give a whole number of at least 0, or None for a random one.")
    if settings is not None and not isinstance(settings, SearchSettings):
        raise UserError(f"settings={settings!r}: not settings of a search. Give a tune_gpu.config.schema.SearchSettings.")
    if tournament is not None and not isinstance(tournament, Tournament):
        raise UserError(f"tournament={tournament!r}: not a tournament. Give a tune_gpu.search.tournament.Tournament.")


def check_rewards(rewards: Any, n_points: int) -> None:
    """Raise UserError unless there is one number for each point, or None for a point that failed."""
    if not isinstance(rewards, (Sequence, np.ndarray)) or isinstance(rewards, str):
        raise UserError(f"evaluated_rewards={rewards!r}: not a list. Give a list of numbers, one for each of points_to_evaluate.")
    if len(rewards) != n_points:
        raise UserError(f"evaluated_rewards: {len(rewards)} for {n_points} points_to_evaluate. Give one for each.")
    if wrong := [reward for reward in rewards if not (reward is None or isinstance(reward, (int, float, np.number)))]:
        raise UserError(f"evaluated_rewards: {wrong[0]!r} is not a number. Give a number for each point, or None for one that failed.")


def checked_points(given: Any) -> Sequence[Mapping[str, Any]]:
    """Return the points. Raise UserError if they are not a list of configurations."""
    if given is None:
        return ()
    if not isinstance(given, Sequence) or not all(isinstance(point, Mapping) for point in given):
        raise UserError(f"points_to_evaluate={given!r}: not a list. Give a list of configurations, such as [{{'x': 1}}].")
    return given
