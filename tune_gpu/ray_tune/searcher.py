"""R-Zero as a Ray Tune search algorithm (see `rzero.py`): it suggests candidates, reads reports, and can be saved and restored."""

# ruff: noqa: ARG002 - Ray names the arguments of its hooks

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.search import ConcurrencyLimiter, Searcher

from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import SearchSettings
from tune_gpu.ray_tune.arguments import check_kinds, check_rewards, checked_points
from tune_gpu.ray_tune.compat import calling_controller, calling_generator, experiment_length, find_caller, nested
from tune_gpu.ray_tune.domains import Given, specs_of
from tune_gpu.ray_tune.reconcile import end_skipped, errored_as, follow_kept
from tune_gpu.ray_tune.saved_trials import kept_trials
from tune_gpu.ray_tune.tournament_setup import ADDED_POINT, TournamentSetup
from tune_gpu.ray_tune.trial_book import TrialBook
from tune_gpu.search.reports import number, read_report
from tune_gpu.search.tournament import Candidate, Result, Tournament

if TYPE_CHECKING:
    from ray.tune.search.search_generator import SearchGenerator

logger = logging.getLogger(__name__)
Space = Mapping[str, "Given | Space"]


class RZeroSearch(Searcher):
    """R-Zero behind Ray's searcher interface.

    Args:
        space: name -> its values in order, a `ParameterSpec`, a domain of Tune (`tune.uniform` …), or a mapping of such names. None: Tune's
            `param_space`.
        metric: the reported key to optimise. A trial that reports NaN for it has failed. A trial may also report `status`
            (`ok`, `infeasible`, `failed`), `violation` (by how much it misses a constraint), `transient` (the failure does not depend on the
            configuration), `stderr` (standard error of the metric), `n_windows`, and in Pareto mode each of `settings.objectives`.
        mode: `max` or `min`.
        seed: the random seed, unless `settings` are given.
        settings: R-Zero's sizes and seed. None: as long as Tune's `num_samples` (-1: as long as `time_budget_s`, or 14 evaluations).
        tournament: a search in progress, instead of a new one.
        points_to_evaluate: points to try first. The first of them is the baseline. Missing parameters of a point are drawn at random. A
            point may repeat a constant of `param_space`.
        evaluated_rewards: the metric of each of these points, if they were measured elsewhere before. They are then known, and are measured
            again only for confirmation. `add_evaluated_point` and `add_evaluated_trials` add such results, too, before the first
            suggestion.

    Raises:
        UserError: the space is empty or has a domain that R-Zero cannot search, a point is not in the space, or the numbers of
            rewards and points differ.
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
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        evaluated_rewards: Sequence[float] | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        check_kinds(seed, settings, tournament)
        points = checked_points(points_to_evaluate)
        if evaluated_rewards is not None:
            check_rewards(evaluated_rewards, len(points))
        self._setup = TournamentSetup(
            settings or SearchSettings(seed=seed), points if evaluated_rewards is None else (), tournament,
            length_is_tunes=settings is None and tournament is None,
        )
        self.book = TrialBook()
        self._tune_restores = self._may_requeue = False
        self._most_in_flight: int | None = None
        self._warned = False
        self._generator: SearchGenerator | None = None
        if tournament is None and space is not None:
            self._setup.begin(specs_of(space))
        for i, reward in enumerate([] if evaluated_rewards is None else evaluated_rewards):
            self._setup.add_known(points[i], reward, f"points_to_evaluate[{i}]")

    @property
    def tournament(self) -> Tournament:
        """Return the tournament. Raise UserError if the search has no space yet."""
        return self._setup.tournament

    def candidate_of(self, trial_id: str) -> Candidate | None:
        """Return the candidate of a trial in flight, or None for an unknown trial."""
        return self.book.candidate_of(trial_id)

    # --- What Tune passes to a searcher before the first suggestion.

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Apply Tune's `max_concurrent_trials` (a `ConcurrencyLimiter`) here, to the trials in flight.

        The limiter saves its set of live trials in a third file of Tune's state, which may be older than the others after a kill. A
        restored limiter would then wait for ended trials, and would not pass on results of trials that it does not know.
        Return False for a limiter that holds results back until its whole batch is complete, because only the limiter can do that.
        """
        limiter = find_caller(ConcurrencyLimiter)
        in_batches = limiter is not None and limiter.batch
        self._most_in_flight = None if in_batches else max_concurrent
        return not in_batches

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Use Tune's metric and mode if the searcher was made without them, and its `param_space` if there is no space yet.

        Return False if both Tune's space and the searcher's own have parameters; Tune then reports that to the user. Raise
        UserError for another metric or mode than before, and for a space that cannot be searched.
        """
        for name, own, other in (("metric", self._metric, metric), ("mode", self._mode, mode)):
            if own and other and own != other:
                raise UserError(f"{name}: RZeroSearch has {own}, but TuneConfig has {other}. Set it in one of them, or to the same value in both.")
        self._metric, self._mode = self._metric or metric, self._mode or mode
        fits = self._setup.take_param_space(config)
        self._setup.plan(spec.get("num_samples"), spec.get("time_budget_s"), restored=self._tune_restores)
        return fits

    def add_evaluated_point(
        self, parameters: Mapping[str, Any], value: float, error: bool = False, pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Add a result from elsewhere. Tune's `add_evaluated_trials` calls this for each trial of an earlier experiment.

        Args:
            parameters: parameters of the space. Tune's constants may be included, with the same values as in this search.
            value: the metric; NaN if the trial failed.
            error: whether the trial failed.
            pruned, intermediate_values: not used. The last value of a pruned trial counts.

        Raises:
            UserError: the search has begun, or has several objectives (a point has one value). At the first suggestion, when
                Tune has set the space and the constants: the point is outside the space or has another constant.
        """
        if not self.book.empty:
            raise UserError("add_evaluated_point: this search has begun. Add results from elsewhere before the first suggestion.")
        self._setup.add_known(parameters, None if error else value, ADDED_POINT)

    # --- Suggestions.

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray also accepts "FINISHED"
        """Return the next suggestion, None while Tune must wait for results, and FINISHED after the last. Raise UserError without metric
        and mode."""
        if not self._metric or self._mode not in ("max", "min"):
            raise UserError(f"RZeroSearch has metric={self._metric}, mode={self._mode}. Set both here; mode is max or min (Tune passes on those "
            "of TuneConfig only with a param_space).")
        self._follow_experiment()
        if self._most_in_flight is not None and self.book.n_in_flight >= self._most_in_flight:
            return None
        candidate = self.next_candidate()
        if candidate is None:
            # If nothing is in flight, None would make Tune hang without a message.
            open_ended = self.tournament.ended_because is None or self._may_requeue
            return None if self.book.n_in_flight and open_ended else Searcher.FINISHED
        self.book.begin(trial_id, candidate)
        return self.suggestion(candidate)

    def suggestion(self, candidate: Candidate) -> dict[str, Any]:
        """Return the suggestion for Tune: the candidate's parameters, nested."""
        return nested(candidate.params)

    def next_candidate(self) -> Candidate | None:
        """Return and remove the next candidate, requeued ones first. Return None while results are awaited, and after the last."""
        self._add_known()
        return self.book.next_requeued() or self.tournament.ask()

    def _add_known(self) -> None:
        self._setup.add_known_to_tournament(lambda value: self.read({self._metric or "": value}))

    def _follow_experiment(self) -> None:
        """If another Tune experiment uses this search, extend the search by the length of that experiment.

        Candidates in flight in the earlier experiment are suggested again, because Tune does not report trials that a time budget stopped.
        """
        generator = calling_generator()
        if generator is None or generator is self._generator:
            return
        if self._generator is not None:
            self.book.withdraw(self.book.in_flight)
        elif self._tune_restores and (controller := calling_controller()) is not None:
            end_skipped(self, controller)
        self._generator = generator
        self._setup.plan(*experiment_length(generator), restored=self._tune_restores)

    # --- Results.

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep an intermediate report. It is the result if a scheduler pauses the trial after it and stops the paused trial."""
        self.book.report(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Read the final result of a trial.

        The first error is treated as transient (see `Tournament.tell`). A result that Tune's `resume_errored` or `restart_errored` delivers
        later replaces it.
        """
        if error and self.read(result or {}).fitness is None:  # a `Repeater` may have the mean of the trials that did not raise
            result = None
        elif not error:
            result = result or self.book.report_of(trial_id)
        candidate = self.book.candidate_of(trial_id)
        if candidate is None and result:
            trial_id = errored_as(self, trial_id)
            candidate = self.book.errored.get(trial_id)
        if candidate is None:
            return
        if result:
            self.book.complete(trial_id)
        elif self._wants_another_trial(candidate):
            self.book.requeue(trial_id)
            return
        else:
            self.book.err(trial_id)
        self._tell(candidate, self.read(result) if result else Result("failed", transient=True), result)

    def _wants_another_trial(self, candidate: Candidate) -> bool:
        """Return whether to suggest a candidate once more, as a new trial, after its trial ended without any result."""
        return False

    def _tell(self, candidate: Candidate, outcome: Result, result: Mapping[str, Any] | None) -> None:
        self.tournament.tell(candidate.candidate_id, outcome)

    def read(self, result: Mapping[str, Any]) -> Result:
        """Return a trial's report as a result of the search, where a higher fitness is better, whatever the mode."""
        reported = result.get(self._metric or "")
        if number(reported) is None and reported is not None and not isinstance(reported, Real) and not self._warned:
            self._warned = True
            logger.warning("%s was reported as %r, which is not a number. A trial whose last report has no number counts as failed.", self._metric, reported)
        return read_report(result, self._metric or "", self._mode, list(self._setup.objectives))

    # --- Saving and restoring.

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that Tune pickles with its Tuner."""
        return self.__dict__ | {"_generator": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from Tune's pickle. Only `Tuner.restore` does that, and it runs unfinished trials again itself, under their ids."""
        self.__dict__.update(state)
        self._tune_restores = True

    def __deepcopy__(self, memo: dict[int, Any]) -> RZeroSearch:
        """Return a copy that can be restored like the original, by Tune or by user code."""
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def save(self, checkpoint_path: str) -> None:
        """Write Tune's checkpoint of the searcher, as JSON."""
        if self._setup.begun and self._metric and self._mode:
            self._add_known()
        state = self._setup.state_dict() | (self.book.state_dict() if self._setup.begun else {})
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Resume from a checkpoint. Candidates in flight are suggested again, unless `Tuner.restore` runs their trials again by itself.

        A searcher without a space takes space, settings and points from the checkpoint, if all values are plain.

        Raises:
            UserError: the file is not a checkpoint of this searcher, or was saved by another version, or with another space or settings.
        """
        state = _saved(checkpoint_path)
        if state["tournament"] is None:  # saved before Tune had set its space
            return
        self._setup.load_state_dict(state)
        self.book = TrialBook.from_state_dict(state, self.tournament.candidate)
        if not self._tune_restores:
            self.book.withdraw(self.book.in_flight)

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Resume from an experiment's folder, synchronised with Tune's records of the trials there. Raise UserError as `restore` does."""
        super().restore_from_dir(checkpoint_dir)
        if self._tune_restores and (kept := kept_trials(checkpoint_dir)):
            follow_kept(self, kept)


def _saved(path: str) -> dict[str, Any]:
    """Return a checkpoint's content. Raise UserError for a file that is not a checkpoint."""
    state = outside_files.read_json(Path(path), outside_files.CHECKPOINT)
    if not isinstance(state, dict) or "tournament" not in state:
        raise UserError(f"{path}: not a complete checkpoint of an RZeroSearch. Give a file that RZeroSearch.save has written.")
    return state
