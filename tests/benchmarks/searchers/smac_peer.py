"""SMAC3 as one of the compared searchers."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from tests.benchmarks.searchers.landscapes import Landscape
from tests.benchmarks.searchers.observed import Observed, Unseen

FREE_TRIES = 50
_CHALLENGERS = 16
_FAILED = 1e9
"""The cost of a failure before anything was measured, in SMAC's unit."""
_SAFE = (1e-6, 1e6)
"""SMAC takes 1e-10 off its lowest cost before it takes the logarithm of the rest: beside larger costs that is nothing, which makes it the
logarithm of 0, and beside smaller ones it is everything. For costs in another unit it proposes otherwise (as measured), so those in between
keep theirs, and the published results theirs."""
Params = Mapping[str, Any]


class Smac:
    """SMAC3's facade for hyperparameters (random forest), deterministic, its initial design at most a quarter of the budget.

    Its search for challengers sees the known constraints as R-Zero's does; otherwise nine of ten on a kernel's landscape would be thrown
    away, each eight of them at the price of a new forest.
    """

    def __init__(self, landscape: Landscape, budget: int, batch: int, seed: int) -> None:
        import logging
        import tempfile
        from pathlib import Path

        import joblib
        from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
        from smac import HyperparameterOptimizationFacade as Facade
        from smac import Scenario

        logging.getLogger("smac").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="smac")
        self._parameters = landscape.space.parameters
        space = ConfigurationSpace(seed=seed)
        for p in self._parameters.values():
            if p.values is None:
                space.add(Float(p.name, (p.low, p.high), log=p.log))
            elif p.ordered:
                space.add(Integer(p.name, (0, len(p.values) - 1)))
            else:
                space.add(Categorical(p.name, list(p.values)))
        self._folder = tempfile.TemporaryDirectory(prefix="smac-")
        allowed = lambda config: landscape.allowed(self._params(config))  # noqa: E731 - the one line that it is
        joblib.parallel_config("sequential")  # its forest's threads wait for each other longer than they work
        scenario = Scenario(space, n_trials=FREE_TRIES * budget, seed=seed, deterministic=True, output_directory=Path(self._folder.name))
        design = Facade.get_initial_design(scenario, n_configs=max(1, min(10 * len(self._parameters), budget // 4)))
        self._smac = Facade(
            scenario, lambda config, seed=0: 0.0, initial_design=design, logging_level=False, overwrite=True,
            acquisition_maximizer=_within(Facade.get_acquisition_maximizer(scenario), allowed))
        self._landscape, self._unseen, self._observed = landscape, Unseen(landscape, seed + 10_000), Observed()
        self._live: list[tuple[Params, Any]] = []
        self._unit: float | None = None

    def ask(self) -> Params | None:
        for _ in range(FREE_TRIES):
            info = self._proposal()
            if info is None:
                break
            params = self._params(info.config)
            if self._landscape.allowed(params) and self._observed.cost(params) is None and not any(o == params for o, _ in self._live):
                self._unseen.exclude(params)
                self._live.append((params, info))
                return params
            known = self._observed.cost(params) if self._landscape.allowed(params) else math.nan
            self._tell(info, known if known is not None else math.nan)
        drawn = self._unseen.next()
        if drawn is not None:
            self._live.append((drawn, None))
        return drawn

    def _proposal(self) -> Any:
        """Null once SMAC finds nothing that it has not proposed before; its generator has then ended, and says so differently from there on."""
        from smac.main.exceptions import ConfigurationSpaceExhaustedException

        try:
            return self._smac.ask()
        except (ConfigurationSpaceExhaustedException, StopIteration):
            return None

    def _params(self, config: Any) -> dict[str, Any]:
        given = dict(config)
        return {n: p.values[given[n]] if p.values is not None and p.ordered else given[n] for n, p in self._parameters.items()}

    def _tell(self, info: Any, cost: float) -> None:
        from smac.runhistory.dataclasses import TrialValue

        value = self._observed.worst if math.isnan(cost) else cost
        self._smac.tell(info, TrialValue(cost=_FAILED if value is None else value / self._in_unit_of(value)))

    def _in_unit_of(self, cost: float) -> float:
        """What costs are divided by: 1, or the first that SMAC hears where it could not reckon with that."""
        if self._unit is None:
            self._unit = 1.0 if _SAFE[0] <= cost <= _SAFE[1] else cost
        return self._unit

    def tell(self, params: Params, cost: float) -> None:
        self._observed.add(params, cost)
        index = next(i for i, (asked, _) in enumerate(self._live) if asked == params)
        info = self._live.pop(index)[1]
        if info is not None:
            self._tell(info, cost)

    def winner(self) -> Params | None:
        return self._observed.best()


def _within(maximizer: Any, allowed: Callable[[Any], bool]) -> Any:
    """The maximizer of the acquisition function, of whose finds only the allowed ones are kept; its random search fills up."""
    search, fill = maximizer._maximize, maximizer._random_search._maximize

    def maximize(previous_configs: list[Any], n_points: int) -> list[tuple[float, Any]]:
        found = search(previous_configs=previous_configs, n_points=n_points)
        kept = [pair for pair in found if allowed(pair[1])]
        if len(kept) < min(_CHALLENGERS, len(found)):
            ranked = fill(previous_configs=previous_configs, n_points=n_points, _sorted=True)
            kept += itertools.islice((pair for pair in ranked if allowed(pair[1])), _CHALLENGERS)
        return kept or list(found)

    maximizer._maximize = maximize
    return maximizer
