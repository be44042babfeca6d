"""Build the tournament of an `RZeroSearch` once its space is known. Tune may set the space, the metric and the length after the searcher
was made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ray.tune.search.sample import Domain

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.ray_tune.compat import flattened, is_placeholder
from tune_gpu.ray_tune.domains import flat, grids_in, holds_domain, refuse_grids, spec_of
from tune_gpu.ray_tune.points import completed, searched_in
from tune_gpu.ray_tune.search_length import wanted_evaluations
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Result, Tournament
from tune_gpu.search.values import tuples_again, tuples_named

ADDED_POINT = "add_evaluated_point"
"""Name of a point of Tune's `add_evaluated_point` in messages. The point may come from another search, with other constants."""


@dataclass(frozen=True)
class _KnownPoint:
    """A point that was evaluated elsewhere, as the user gives it."""

    parameters: Mapping[str, Any]
    value: float | None
    where: str


class TournamentSetup:
    """The tournament, and the arguments that it is built from.

    Args:
        settings: sizes and seed.
        points: the first of them is the baseline.
        tournament: a search in progress, instead of a new one.
        length_is_tunes: whether the search is as long as Tune's `num_samples`.
    """

    def __init__(self, settings: SearchSettings, points: Sequence[Mapping[str, Any]], tournament: Tournament | None, *, length_is_tunes: bool) -> None:
        self._settings, self._points, self._tournament = settings, [dict(point) for point in points], tournament
        self._length_is_tunes, self._space_is_tunes = length_is_tunes, False
        self._specs: dict[str, ParameterSpec] | None = None
        self._constants: dict[str, Any] = {}  # constants of Tune's `param_space`, which points may repeat
        self._known: list[_KnownPoint] = []  # added at the first suggestion, when metric and mode are known

    @property
    def tournament(self) -> Tournament:
        """Return the tournament. Raise UserError if the search has no space yet."""
        if self._tournament is None:
            raise UserError("RZeroSearch has no space. Give `space`, or a `param_space` with tune.choice, tune.uniform … to the Tuner "
                            "(to Tuner.restore again if functions or other objects are among its values).")
        return self._tournament

    @property
    def begun(self) -> bool:
        """Return whether there is a tournament."""
        return self._tournament is not None

    @property
    def objectives(self) -> Mapping[str, str]:
        """Return the objectives of Pareto mode, or an empty mapping."""
        return (self._tournament.settings if self._tournament else self._settings).objectives

    def begin(self, specs: Mapping[str, ParameterSpec]) -> None:
        """Build the tournament in this space."""
        self._specs = dict(specs)
        space, rng = SearchSpace.from_specs(specs), np.random.default_rng(self._settings.seed)
        self._points = [searched_in(f"points_to_evaluate[{i}]", point, specs, self._constants) for i, point in enumerate(self._points)]
        points = [completed(space, point, rng) for point in self._points]
        self._tournament = Tournament(space, self._settings, baseline=points[0] if points else None, points=points[1:])

    def take_param_space(self, config: Mapping[str, Any]) -> bool:
        """Search in Tune's `param_space` if there is no space yet, and remember its constants.

        Return False if both Tune's space and the search's own have parameters.

        Raises:
            UserError: the space cannot be searched, or differs from the earlier one.
        """
        given = flattened(config, refuse_slashes=True)
        self._constants = {name: value for name, value in given.items() if not isinstance(value, Domain)}
        domains = {name: value for name, value in given.items() if isinstance(value, Domain)}
        varies = bool(domains or grids_in(given))
        if varies and (self._tournament is None or self._space_is_tunes):
            self._search_in(domains, given)
        return self._space_is_tunes or not varies

    def _search_in(self, domains: Mapping[str, Domain], given: Mapping[str, Any]) -> None:
        refuse_grids("param_space", given)
        if inside := [name for name, value in given.items() if holds_domain(value)]:
            raise UserError(f"param_space: {', '.join(inside)}: a domain within a list cannot be searched. Give each its own name.")
        specs = {name: spec_of(name, domain) for name, domain in domains.items()}
        if self._tournament is None:
            self.begin(specs)
            self._space_is_tunes = True
        elif SearchSpace.from_specs(specs).fingerprint() != self._tournament.space.fingerprint():
            raise UserError("param_space: differs from the one in which this search began. Give the same one, or make a new RZeroSearch.")

    def plan(self, num_samples: int | None, time_budget_s: float | None, *, restored: bool) -> None:
        """Plan as many evaluations as Tune wants, if the length is Tune's.

        They come on top of those of earlier experiments. A restored experiment is planned with its whole length.
        """
        if not self._length_is_tunes or self._tournament is None:
            return
        more = wanted_evaluations(num_samples, time_budget_s)
        if more is not None:
            self._tournament.plan(more + (0 if restored else len(self._tournament.history)))

    def add_known(self, parameters: Mapping[str, Any], value: float | None, where: str) -> None:
        """Add a result from elsewhere. Raise UserError for a point outside the space, or in Pareto mode."""
        if objectives := self.objectives:
            raise UserError(f"add_evaluated_point: it has one value, but search.objectives needs {', '.join(objectives)}. Use points_to_evaluate for this point.")
        if self._tournament is not None:
            names = self._tournament.space.parameters
            self._tournament.space.canonical({name: value for name, value in flat(parameters, names).items() if name in names})
        self._known.append(_KnownPoint(parameters, value, where))

    def add_known_to_tournament(self, read: Callable[[float | None], Result]) -> None:
        """Add to the tournament the results from elsewhere that it does not have yet.

        Args:
            read: function from a value of the metric to a result.
        """
        known, self._known = self._known, []
        names = self.tournament.space.parameters
        for point in known:
            params = searched_in(point.where, point.parameters, names, self._constants, of_another_search=point.where == ADDED_POINT)
            self.tournament.add_evaluated(params, read(point.value))

    def state_dict(self) -> dict[str, Any]:
        """Return the tournament, its length and its arguments as JSON values."""
        if self._tournament is None:
            return {"tournament": None}
        return {"tournament": self._tournament.state_dict(), "planned": self._tournament.total_evaluations, "made_of": self._made_of_as_json()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state. A search without a space takes space, settings and points from it, if all values are plain.

        Raises:
            UserError: it was saved by another version, or with another space or settings.
        """
        if self._tournament is None and (made_of := state.get("made_of")):
            made_of = tuples_again(made_of)
            self._settings, self._points, self._space_is_tunes = SearchSettings(**made_of["settings"]), made_of["points"], made_of["of_tune"]
            self.begin({name: ParameterSpec(**spec) for name, spec in made_of["specs"].items()})
        if self._length_is_tunes:
            self.tournament.plan(int(state.get("planned") or 0))
        self._known = []  # the restored tournament has them already
        self.tournament.load_state_dict(state["tournament"])

    def _made_of_as_json(self) -> dict[str, Any] | None:
        """Return space, settings and points, or None if JSON would change them (functions, for example). A pickle is not used, because
        unpickling can run code."""
        if self._specs is None or any(map(is_placeholder, (value for spec in self._specs.values() for value in spec.values or ()))):
            return None
        specs = {name: asdict(spec) for name, spec in self._specs.items()}
        made_of = {"specs": specs, "settings": asdict(self._settings), "points": self._points, "of_tune": self._space_is_tunes}
        try:
            text = tuples_named(made_of)
            return text if tuples_again(json.loads(json.dumps(text))) == made_of else None
        except (TypeError, ValueError):
            return None
