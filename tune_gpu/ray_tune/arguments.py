"""Arguments of `RZeroSearch` that are no such thing, said in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import bounds_of
from tune_gpu.config.schema import SearchSettings
from tune_gpu.search.tournament import Tournament


def check_kinds(seed: Any, settings: Any, tournament: Any) -> None:
    """Raises UserError for arguments of another kind than is meant."""
    if isinstance(seed, bool) or not (seed is None or (isinstance(seed, (int, np.integer)) and bounds_of(SearchSettings, "seed").holds(int(seed)))):
        raise UserError(f"seed={seed!r}: allowed is a whole number from 0, or None for one at random")
    if settings is not None and not isinstance(settings, SearchSettings):
        raise UserError(f"settings={settings!r}: allowed is a tune_gpu.config.schema.SearchSettings")
    if tournament is not None and not isinstance(tournament, Tournament):
        raise UserError(f"tournament={tournament!r}: allowed is a tune_gpu.search.tournament.Tournament")


def check_rewards(rewards: Any, n_points: int) -> None:
    """Raises UserError for what is not one number (or null: it failed) for each point."""
    if not isinstance(rewards, (Sequence, np.ndarray)) or isinstance(rewards, str):
        raise UserError(f"evaluated_rewards={rewards!r}: allowed is a list of numbers, one for each of points_to_evaluate")
    if len(rewards) != n_points:
        raise UserError(f"evaluated_rewards: {len(rewards)} for {n_points} points_to_evaluate; give one for each")
    if wrong := [reward for reward in rewards if not (reward is None or isinstance(reward, (int, float, np.number)))]:
        raise UserError(f"evaluated_rewards: {wrong[0]!r} is no number")


def checked_points(given: Any) -> Sequence[Mapping[str, Any]]:
    """Raises UserError for what is no list of configurations."""
    if given is None:
        return ()
    if not isinstance(given, Sequence) or not all(isinstance(point, Mapping) for point in given):
        raise UserError(f"points_to_evaluate={given!r}: allowed is a list of configurations, such as [{{'x': 1}}]")
    return given
