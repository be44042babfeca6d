"""R-Zero as Ray Tune's search algorithm (see `rzero.py`): what it suggests, what it is told, and how it is saved and restored."""

# ruff: noqa: ARG002 - Ray names the arguments of its hooks

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.sample import Domain

from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.ray_tune.arguments import check_kinds, check_rewards, checked_points
from tune_gpu.ray_tune.compat import (
    REPEATER_KEY,
    as_kept,
    calling_controller,
    calling_generator,
    experiment_length,
    find_caller,
    flattened,
    is_placeholder,
    nested,
)
from tune_gpu.ray_tune.domains import Given, flat, grids_in, holds_domain, refuse_grids, spec_of, specs_of
from tune_gpu.ray_tune.points import completed, searched_in
from tune_gpu.ray_tune.saved_trials import KeptTrial, is_of, kept_trials
from tune_gpu.ray_tune.search_length import wanted_evaluations
from tune_gpu.search.reports import number, read_report
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Candidate, Result, Tournament
from tune_gpu.search.values import tuples_again, tuples_named

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial
    from ray.tune.search.search_generator import SearchGenerator

logger = logging.getLogger(__name__)
OnResult = Callable[[Candidate, Result, Mapping[str, Any] | None], None]
Space = Mapping[str, "Given | Space"]


class RZeroSearch(Searcher):
    """R-Zero behind Ray's searcher interface.

    Args:
        space: name -> its values in order, a `ParameterSpec`, a domain of Tune's (`tune.uniform` …), or a mapping of such names. Null: Tune's
            `param_space`.
        metric: the reported key that is optimised. A trial that reports NaN for it has failed; beside it a trial may report `status`
            (`ok`, `infeasible`, `failed`), `violation` (by how much it misses), `transient` (the failure says nothing about the
            configuration), `stderr` (standard error of the metric), `n_windows`, and in Pareto mode each of `settings.objectives`.
        mode: `max` or `min`.
        seed: of everything random, unless `settings` are given.
        settings: R-Zero's sizes and seed. Without them a search is as long as Tune's `num_samples` says, each time that it is run (-1: as long
            as `time_budget_s`, or without one 14 evaluations).
        tournament: a search under way instead of a new one.
        wrap: suggest `{"candidate": {candidate_id, generation, origin, params}}` instead of the flat parameters.
        again: asked about a candidate whose trial ended without any result; true: it is suggested once more, as a new trial.
        on_result: called with each result before the search hears of it (a journal, say); the last argument is Tune's result.
        points_to_evaluate: tried first; the first of them is the baseline. What a point leaves out is drawn at random;
            a constant of `param_space` may be repeated. What a point says and cannot have is an error.
        evaluated_rewards: the metric of each of these points, where they were tried elsewhere before: they are then known, and not tried
            again but to be confirmed. `add_evaluated_point` and `add_evaluated_trials` tell such results too, before the first suggestion.

    Raises:
        UserError: an empty space, a domain that R-Zero cannot search, points that are no list of configurations of the space, or not as
            many rewards as points.
    """

    def __init__(
        self,
        space: Space | None = None,
        metric: str | None = None,
        mode: str | None = None,
        *,
        seed: int = 0,
        settings: SearchSettings | None = None,
        tournament: Tournament | None = None,
        wrap: bool = False,
        on_result: OnResult | None = None,
        again: Callable[[Candidate], bool] | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        evaluated_rewards: Sequence[float] | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        check_kinds(seed, settings, tournament)
        self._settings = settings or SearchSettings(seed=seed)
        self._length_is_tunes = settings is None and tournament is None
        points = checked_points(points_to_evaluate)
        if evaluated_rewards is not None:
            check_rewards(evaluated_rewards, len(points))
        self._points = [dict(point) for point in points] if evaluated_rewards is None else []
        self._constants: dict[str, Any] = {}  # of Tune's `param_space`: points may repeat them
        self._from_elsewhere: list[tuple[Mapping[str, Any], float | None, str]] = []  # the first suggestion tells them: only then are metric and mode known
        self._tournament = tournament
        self._wrap, self._on_result, self._again = wrap, on_result, again
        self._live: dict[str, Candidate] = {}
        self._suggested: set[str] = set()  # every trial that was ever given a candidate
        self._reports: dict[str, dict[str, Any]] = {}  # trial in flight -> its latest report
        self._errored: dict[str, str] = {}  # trial -> its candidate, where nothing was measured: Tune may run such a trial once more
        self._given_back: list[Candidate] = []
        self._tune_restores = self._space_is_tunes = False
        self._most_in_flight: int | None = None
        self._warned = False
        self._generator: SearchGenerator | None = None
        self._specs: dict[str, ParameterSpec] | None = None
        if tournament is None and space is not None:
            self._begin(specs_of(space))
        if evaluated_rewards is not None:
            for i, (point, reward) in enumerate(zip(points, evaluated_rewards, strict=True)):
                self._add_evaluated(point, reward, f"points_to_evaluate[{i}]")

    @property
    def tournament(self) -> Tournament:
        """The search itself. Raises UserError while it has no space."""
        if self._tournament is None:
            raise UserError("RZeroSearch has no space: give `space`, or a `param_space` with tune.choice, tune.uniform … to the Tuner "
                            "(to Tuner.restore again, where there are functions or other objects among its values)")
        return self._tournament

    def _begin(self, specs: Mapping[str, ParameterSpec]) -> None:
        """In this space."""
        self._specs = dict(specs)
        space, rng = SearchSpace.from_specs(specs), np.random.default_rng(self._settings.seed)
        self._points = [searched_in(f"points_to_evaluate[{i}]", point, specs, self._constants) for i, point in enumerate(self._points)]
        points = [completed(space, point, rng) for point in self._points]
        self._tournament = Tournament(space, self._settings, baseline=points[0] if points else None, points=points[1:])

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles the searcher with its Tuner; whoever listens to results stays behind."""
        return self.__dict__ | {"_on_result": None, "_again": None, "_generator": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Only `Tuner.restore` makes a searcher from a pickle, and it runs the unfinished trials again itself, under their own ids."""
        # An earlier version's has none of these.
        self.__dict__.update({"_most_in_flight": None, "_from_elsewhere": [], "_errored": {}, "_reports": {}, "_generator": None, "_specs": None, "_constants": {}} | state)
        self._tune_restores = True

    def __deepcopy__(self, memo: dict[int, Any]) -> RZeroSearch:
        """A copy is restored by Tune or by hand as what it is a copy of."""
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Tune's `max_concurrent_trials` (a `ConcurrencyLimiter`). The limit is kept here, by the trials that are in flight here.

        The limiter's own set of live trials is in a third file of Tune's state. After a kill that may be older than the others, and a
        restored limiter then waits for trials that have ended, and does not pass on the results of those that it has not heard of.
        Answers False to a limiter that holds results back until its whole batch has them: only it can do that.
        """
        limiter = find_caller(ConcurrencyLimiter)
        in_batches = limiter is not None and limiter.batch
        self._most_in_flight = None if in_batches else max_concurrent
        return not in_batches

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune's own metric and mode, where the searcher was made without; and its `param_space`, if there is no space yet.

        Answers False if Tune's space has something to search and this has a space of its own: Tune then says so to the user.

        Raises:
            UserError: Tune's metric or mode is another one, or its space is none that R-Zero can search.
        """
        for name, own, other in (("metric", self._metric, metric), ("mode", self._mode, mode)):
            if own and other and own != other:
                raise UserError(f"RZeroSearch has {name}={own}, TuneConfig has {name}={other}: give it to one of them, or the same to both")
        self._metric, self._mode = self._metric or metric, self._mode or mode
        given = flattened(config, refuse_slashes=True)
        self._constants = {name: value for name, value in given.items() if not isinstance(value, Domain)}
        grids = grids_in(given)
        domains = {name: value for name, value in given.items() if isinstance(value, Domain)}
        if (self._tournament is None or self._space_is_tunes) and (grids or domains):
            self._search_in(domains, given)
        if self._length_is_tunes and self._tournament is not None:
            self._plan(wanted_evaluations(spec.get("num_samples"), spec.get("time_budget_s")))
        return self._space_is_tunes or not (domains or grids)

    def _search_in(self, domains: Mapping[str, Domain], given: Mapping[str, Any]) -> None:
        """Tune's own space."""
        refuse_grids("param_space", given)
        if inside := [name for name, value in given.items() if holds_domain(value)]:
            raise UserError(f"param_space: {', '.join(inside)}: a domain within a list cannot be searched; give each a name of its own")
        specs = {name: spec_of(name, domain) for name, domain in domains.items()}
        if self._tournament is None:
            self._begin(specs)
            self._space_is_tunes = True
        elif SearchSpace.from_specs(specs).fingerprint() != self._tournament.space.fingerprint():
            raise UserError("param_space: this search has begun in another one; give it the same, or make a new RZeroSearch")

    def _plan(self, more: int | None) -> None:
        """For so many evaluations, beside those of experiments before; Tune restores an experiment with its whole length."""
        if more is not None:
            self.tournament.plan(more + (0 if self._tune_restores else len(self.tournament.history)))

    def _hear_of_tune(self) -> None:
        """A search that runs in another experiment of Tune's than before, if in any, is for as many evaluations more. What was in flight in the
        one before has no trial any more (Tune tells nothing of those that the time budget, say, has stopped), and is suggested again."""
        generator = calling_generator()
        if generator is None or generator is self._generator:
            return
        if self._generator is not None:
            self._given_back = [*self._live.values(), *self._given_back]
            self._live, self._reports = {}, {}
        elif self._tune_restores and (controller := calling_controller()) is not None:
            self._end_skipped(controller)
        self._generator = generator
        if self._length_is_tunes:
            self._plan(wanted_evaluations(*experiment_length(generator)))

    def _end_skipped(self, controller: TuneController) -> None:
        """`Tuner.restore(resume_unfinished=False)` leaves trials as they are, and tells nobody: what such a trial reported last is its result."""
        for trial in controller.get_trials():
            if trial.is_finished() and trial.trial_id in self._live:
                self.on_trial_complete(trial.trial_id, flattened(trial.run_metadata.last_result or {}))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray answers "FINISHED" too
        """The next candidate, null while results are awaited or as many are in flight as may be, FINISHED after the last.

        Raises UserError without a metric and a mode.
        """
        if not self._metric or self._mode not in ("max", "min"):
            raise UserError(f"RZeroSearch has metric={self._metric}, mode={self._mode}: give both to it, mode is max or min (Tune passes on what "
                            "TuneConfig has only where there is a param_space)")
        self._hear_of_tune()
        if self._most_in_flight is not None and len(self._live) >= self._most_in_flight:
            return None
        candidate = self._next_candidate()
        if candidate is None:
            # Null with nothing in flight would hang Tune without a word.
            open_ended = self.tournament.ended_because is None or self._again is not None
            return None if self._live and open_ended else Searcher.FINISHED
        self._begin_trial(trial_id, candidate)
        return self._suggestion(candidate)

    def _suggestion(self, candidate: Candidate) -> dict[str, Any]:
        """Return what Tune gets to hear of it."""
        if not self._wrap:
            return nested(candidate.params)
        return {
            "candidate": {
                "candidate_id": candidate.candidate_id,
                "generation": candidate.generation,
                "origin": candidate.origin,
                "params": dict(candidate.params),
                "asked_after": candidate.asked_after,
            }
        }

    @property
    def in_flight(self) -> int:
        """Return how many candidates have a trial that has not ended."""
        return len(self._live)

    def _begin_trial(self, trial_id: str, candidate: Candidate) -> None:
        self._live[trial_id] = candidate
        self._suggested.add(trial_id)

    def give_back(self, candidates: Sequence[Candidate]) -> None:
        """Candidates that were asked for and got no result (a run that was killed): they are suggested first."""
        self._given_back += candidates

    def has_more(self) -> bool:
        """Return whether there is anything left to suggest; only where nothing is in flight (a search may wait for results otherwise)."""
        candidate = self._next_candidate()
        if candidate is not None:
            self._given_back.insert(0, candidate)
        return candidate is not None

    def add_evaluated_point(
        self, parameters: Mapping[str, Any], value: float, error: bool = False, pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """A result from elsewhere (Tune's `add_evaluated_trials` calls this for each trial of an earlier experiment, say).

        Args:
            parameters: of the space; Tune's constants may stand beside them, with the values that they have in this search.
            value: of the metric; NaN: it failed.
            error: it failed.
            pruned: what it had reached counts.
            intermediate_values: do not matter.

        Raises:
            UserError: the search has begun, or is for several objectives (a point has one value), or (at the first suggestion, where
                Tune tells the space and the constants) the point is outside the space or has another constant.
        """
        self._add_evaluated(parameters, None if error else value, "add_evaluated_point")

    def _add_evaluated(self, parameters: Mapping[str, Any], value: float | None, where: str) -> None:
        if self._suggested or self._given_back:
            raise UserError("add_evaluated_point: results from elsewhere are told before the first suggestion; this search has begun")
        if objectives := self._objectives:
            raise UserError(f"add_evaluated_point: it tells one value, and search.objectives wants {', '.join(objectives)}; give the point to points_to_evaluate")
        if self._tournament is not None:
            names = self._tournament.space.parameters
            self._tournament.space.own({name: value for name, value in flat(parameters, names).items() if name in names})
        self._from_elsewhere.append((parameters, value, where))

    @property
    def _objectives(self) -> Mapping[str, str]:
        return (self._tournament.settings if self._tournament else self._settings).objectives

    def _tell_from_elsewhere(self) -> None:
        told, self._from_elsewhere = self._from_elsewhere, []
        for parameters, value, where in told:
            of_another = where == "add_evaluated_point"
            params = searched_in(where, parameters, self.tournament.space.parameters, self._constants, of_another_search=of_another)
            self.tournament.know(params, self.read({self._metric or "": value}))

    def _next_candidate(self) -> Candidate | None:
        self._tell_from_elsewhere()
        return self._given_back.pop(0) if self._given_back else self.tournament.ask()

    def candidate_of(self, trial_id: str) -> Candidate | None:
        """Return what a trial in flight measures; null for a trial of someone else."""
        return self._live.get(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A report on the way: it is the result of a trial that a scheduler pauses after it, and stops while it is paused."""
        if trial_id in self._live:
            self._reports[trial_id] = result

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The final result of a trial; an error says nothing of the candidate the first time (see `Tournament.tell`), and less than a result that
        Tune's `resume_errored` or `restart_errored` brings later."""
        report = self._reports.pop(trial_id, None)
        if error and self.read(result or {}).fitness is None:  # a `Repeater` has the mean of those that did not raise
            result = None
        elif not error:
            result = result or report
        candidate = self._live.pop(trial_id, None)
        if candidate is None and result and self._errored:
            candidate = self._errored_before(trial_id)
        if candidate is None:
            return
        outcome = self.read(result) if result else Result("failed", transient=True)
        if not result and self._again is not None and self._again(candidate):
            self.give_back([candidate])
            return
        if not result:
            self._errored[trial_id] = candidate.candidate_id
        if self._on_result:
            self._on_result(candidate, outcome, result)
        self.tournament.tell(candidate.candidate_id, outcome)

    def _errored_before(self, trial_id: str) -> Candidate | None:
        """Whose trial had raised: Tune resumes it under its id, and restarts it under a new one, to be known by what had been suggested."""
        if trial_id not in self._errored and (controller := calling_controller()) is not None:
            trial_id = next((errored for errored, i in self._errored.items() if self._made(controller.get_trial(trial_id), i)), trial_id)
        return self.tournament.candidate(self._errored.pop(trial_id)) if trial_id in self._errored else None

    def _made(self, trial: Trial | None, candidate_id: str) -> bool:
        return trial is not None and is_of(as_kept(trial.evaluated_params), self._suggestion(self.tournament.candidate(candidate_id)))

    def read(self, result: Mapping[str, Any]) -> Result:
        """Return what a report of a trial says to the search: higher fitness is better, whatever the mode."""
        reported = result.get(self._metric or "")
        if number(reported) is None and reported is not None and not isinstance(reported, Real) and not self._warned:
            self._warned = True
            logger.warning("%s was reported as %r, which is no number: a trial that ends so counts as failed", self._metric, reported)
        return read_report(result, self._metric or "", self._mode, list(self._objectives))

    def save(self, checkpoint_path: str) -> None:
        """Tune's checkpoint of the searcher, as JSON."""
        if self._tournament is None:
            Path(checkpoint_path).write_text(json.dumps({"tournament": None}))
            return
        if self._metric and self._mode:
            self._tell_from_elsewhere()
        state = {
            "tournament": self.tournament.state_dict(), "planned": self.tournament.total_evaluations,
            "live": {trial_id: candidate.candidate_id for trial_id, candidate in self._live.items()},
            "given_back": [candidate.candidate_id for candidate in self._given_back], "suggested": sorted(self._suggested),
            "errored": self._errored, "made_of": self._made_of_as_json(),
        }
        Path(checkpoint_path).write_text(json.dumps(state))

    def _made_of_as_json(self) -> dict[str, Any] | None:
        """Null where JSON would not give it back as it is (functions among the values, say): it is not pickled, for what is read is not run."""
        if self._specs is None:
            return None
        specs = {name: asdict(spec) for name, spec in self._specs.items()}
        made_of = {"specs": specs, "settings": asdict(self._settings), "points": self._points, "of_tune": self._space_is_tunes}
        if any(map(is_placeholder, (value for spec in self._specs.values() for value in spec.values or ()))):
            return None
        try:
            text = tuples_named(made_of)
            return text if tuples_again(json.loads(json.dumps(text))) == made_of else None
        except (TypeError, ValueError):
            return None

    def _begin_as(self, saved: Mapping[str, Any]) -> None:
        made_of = tuples_again(saved)
        self._settings, self._points, self._space_is_tunes = SearchSettings(**made_of["settings"]), made_of["points"], made_of["of_tune"]
        self._begin({name: ParameterSpec(**spec) for name, spec in made_of["specs"].items()})

    def restore(self, checkpoint_path: str) -> None:
        """Go on from a checkpoint. What was in flight is suggested again, unless `Tuner.restore` runs those trials again by itself. A searcher
        that has no space yet takes space, settings and points from the checkpoint (if all values are plain: see `_made_of_as_json`).

        Raises:
            UserError: the file is no checkpoint of this searcher, or one of another version, space or settings.
        """
        state = _saved(checkpoint_path)
        if state["tournament"] is None:  # it was saved before Tune had told it what to search
            return
        if self._tournament is None and state.get("made_of"):
            self._begin_as(state["made_of"])
        if self._length_is_tunes:
            self.tournament.plan(int(state.get("planned") or 0))
        self._from_elsewhere = []  # the state has them
        self.tournament.load_state_dict(state["tournament"])
        live = {trial_id: self.tournament.candidate(candidate_id) for trial_id, candidate_id in state["live"].items()}
        self._live = live if self._tune_restores else {}
        self._suggested = {*live, *state.get("suggested", ())}
        self._errored = dict(state.get("errored", {}))
        self._given_back = [] if self._tune_restores else list(live.values())
        self._given_back += [self.tournament.candidate(candidate_id) for candidate_id in state["given_back"]]

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """`restore` from an experiment's folder, brought to what Tune has kept of the trials there (see `tune_state.py`).

        A trial that Tune runs again stays in flight. One that Tune has never heard of is suggested again; one that has ended gives its
        result; one that Tune has kept and this state has not is taken over, if it is what would be suggested next.

        Raises:
            UserError: as `restore`.
        """
        super().restore_from_dir(checkpoint_dir)
        if not self._tune_restores or not (kept := kept_trials(checkpoint_dir)):
            return
        known = {trial.trial_id for trial in kept}
        lost = [trial_id for trial_id in self._live if trial_id not in known]
        self._given_back = [self._live.pop(trial_id) for trial_id in lost] + self._given_back
        for trial in kept:
            if trial.trial_id not in self._suggested and not self._take_over(trial):
                break
        for trial in kept:
            if trial.ended and trial.trial_id in self._live and REPEATER_KEY not in trial.params:  # a `Repeater` tells the mean of several
                self.on_trial_complete(trial.trial_id, flattened(dict(trial.result)) if trial.result else None, error=trial.result is None)

    def _take_over(self, trial: KeptTrial) -> bool:
        """Return whether it is the next candidate, which is then in flight under this trial."""
        candidate = self._next_candidate()
        if candidate is None:
            return False
        if not is_of(trial.params, self._suggestion(candidate)):
            self._given_back.insert(0, candidate)
            return False
        self._begin_trial(trial.trial_id, candidate)
        return True


def _saved(path: str) -> dict[str, Any]:
    """A checkpoint's content. Raises UserError for a file that is none."""
    state = outside_files.read_json(Path(path), outside_files.CHECKPOINT)
    if not isinstance(state, dict) or "tournament" not in state:
        raise UserError(f"{path}: this is no checkpoint of an RZeroSearch, or was not written to its end")
    return state
