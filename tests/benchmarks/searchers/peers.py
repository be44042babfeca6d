"""The searchers that are compared, each from its own library with its default settings, behind one `ask`/`tell`.

What every peer is given for free: a proposal that violates a known constraint costs no evaluation (the peer hears the worst cost so
far), and neither does one that was evaluated before (the peer hears its cost again). After `FREE_TRIES` such proposals in a row a random
new configuration is evaluated instead, and told to the peer. A failed evaluation is told as the worst cost so far. Where few combinations
are allowed, a peer that cannot know them hears up to `FREE_TRIES` rejections an evaluation; its time a proposal is the time of all of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tests.benchmarks.searchers.landscapes import Landscape
from tests.benchmarks.searchers.observed import Observed, Unseen
from tune_gpu.config.schema import SearchSettings
from tune_gpu.search.tournament import Candidate, Result, Tournament

FREE_TRIES = 50
FREE_TRIES_GP = 10
"""Its time grows with the cube of what it hears."""
Params = Mapping[str, Any]


class Searcher(Protocol):
    """Proposes configurations and hears their costs."""

    def ask(self) -> Params | None:
        """The next one; null while it waits for results, or when it has no more."""

    def tell(self, params: Params, cost: float) -> None:
        """The cost of one that was asked for; NaN: it failed."""

    def winner(self) -> Params | None:
        """What it would name as the best."""


class RandomSearch:
    """Uniform over the allowed configurations, none twice."""

    def __init__(self, landscape: Landscape, budget: int, batch: int, seed: int) -> None:
        self._draw, self._observed = Unseen(landscape, seed), Observed()

    def ask(self) -> Params | None:
        return self._draw.next()

    def tell(self, params: Params, cost: float) -> None:
        self._observed.add(params, cost)

    def winner(self) -> Params | None:
        return self._observed.best()


class RZero:
    """This program's tournament, with `algorithm` and as many generations as the budget needs; otherwise its defaults."""

    algorithm = "rzero"

    def __init__(self, landscape: Landscape, budget: int, batch: int, seed: int) -> None:
        self._tournament = Tournament(landscape.space, SearchSettings(algorithm=self.algorithm, seed=seed))
        self._tournament.plan(budget)  # as Tune's `num_samples` does
        self._live: list[Candidate] = []

    def ask(self) -> Params | None:
        candidate = self._tournament.ask()
        if candidate is None:
            return None
        self._live.append(candidate)
        return candidate.params

    def tell(self, params: Params, cost: float) -> None:
        candidate = next(c for c in self._live if c.params == params)
        self._live.remove(candidate)
        result = Result("failed", violation=1.0) if math.isnan(cost) else Result("ok", -cost, n_windows=1)
        self._tournament.tell(candidate.candidate_id, result)

    def winner(self) -> Params | None:
        best = self._tournament.best()
        return best.params if best else None


class ClassicRZero(RZero):
    """R-Zero as it was."""

    algorithm = "classic"


class Optuna:
    """A sampler of Optuna. Numbers are offered in their order, as indices; everything else as categories."""

    def __init__(self, landscape: Landscape, budget: int, batch: int, seed: int, make: Callable[[int], Any], free_tries: int = FREE_TRIES) -> None:
        import optuna

        self._free_tries = free_tries
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", module="optuna")
        self._study = optuna.create_study(sampler=make(seed))
        self._state = optuna.trial.TrialState
        self._landscape, self._unseen, self._observed = landscape, Unseen(landscape, seed + 10_000), Observed()
        self._live: list[tuple[Params, Any]] = []
        self._spaces = {p.name: p for p in landscape.space.parameters.values()}
        self._distributions = {name: self._distribution(p) for name, p in self._spaces.items()}

    @staticmethod
    def _distribution(parameter: Any) -> Any:
        from optuna import distributions as d

        if parameter.values is None:
            return d.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        if parameter.ordered:
            return d.IntDistribution(0, len(parameter.values) - 1)
        return d.CategoricalDistribution(parameter.values)

    def _params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: p.values[given[name]] if p.values is not None and p.ordered else given[name] for name, p in self._spaces.items()}

    def _given(self, params: Params) -> dict[str, Any]:
        return {name: p.values.index(params[name]) if p.values is not None and p.ordered else params[name] for name, p in self._spaces.items()}

    def ask(self) -> Params | None:
        for _ in range(self._free_tries):
            trial = self._study.ask(self._distributions)
            params = self._params(trial.params)
            known = self._observed.cost(params) if self._landscape.allowed(params) else self._observed.worst
            pending = any(dict(other) == params for other, _ in self._live)
            if known is None and not pending and self._landscape.allowed(params):
                self._unseen.exclude(params)
                self._live.append((params, trial))
                return params
            self._tell(trial, known)
        drawn = self._unseen.next()
        if drawn is not None:
            self._live.append((drawn, None))
        return drawn

    def _tell(self, trial: Any, cost: float | None) -> None:
        if cost is not None and math.isnan(cost):
            cost = self._observed.worst
        if cost is None:
            self._study.tell(trial, state=self._state.FAIL)
        else:
            self._study.tell(trial, cost)

    def tell(self, params: Params, cost: float) -> None:
        self._observed.add(params, cost)
        index = next(i for i, (asked, _) in enumerate(self._live) if asked == params)
        trial = self._live.pop(index)[1]
        if trial is not None:
            self._tell(trial, cost)
        elif (known_cost := self._observed.worst if math.isnan(cost) else cost) is not None:
            import optuna

            self._study.add_trial(optuna.trial.create_trial(params=self._given(params), distributions=self._distributions, value=known_cost))

    def winner(self) -> Params | None:
        return self._observed.best()


def make(name: str, landscape: Landscape, budget: int, batch: int, seed: int) -> Searcher:
    """A searcher by its name on the command line."""
    if name in ("tpe", "gp", "nsga2"):
        import optuna

        sampler: Callable[[int], Any] = {
            "tpe": lambda s: optuna.samplers.TPESampler(seed=s),
            "gp": lambda s: optuna.samplers.GPSampler(seed=s),
            "nsga2": lambda s: optuna.samplers.NSGAIISampler(seed=s),
        }[name]
        return Optuna(landscape, budget, batch, seed, sampler, FREE_TRIES_GP if name == "gp" else FREE_TRIES)
    if name == "smac":
        from tests.benchmarks.searchers.smac_peer import Smac

        return Smac(landscape, budget, batch, seed)
    ours: dict[str, Callable[[Landscape, int, int, int], Searcher]] = {"random": RandomSearch, "rzero": RZero, "classic": ClassicRZero}
    return ours[name](landscape, budget, batch, seed)


NAMES = ("rzero", "classic", "random", "tpe", "gp", "nsga2", "smac")
