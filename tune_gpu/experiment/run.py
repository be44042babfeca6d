"""Build the Tuner, run or resume it, and write its results to the artifacts."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ray import tune
from ray.tune.stopper import CombinedStopper

from trainables.spica import SpicaTrainable, spica_trainable
from tune_gpu.artifacts.deployments import evidence_of
from tune_gpu.artifacts.manifest import manifest
from tune_gpu.artifacts.reading import place_of
from tune_gpu.artifacts.records.comparison import Comparison, ConfirmationSummary
from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.summary import RunSummary, StandingRecord
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.clock import now
from tune_gpu.common.errors import UserError
from tune_gpu.common.interrupt import preserve_handler
from tune_gpu.compare.confirmation import RunConfirmation, confirm_run
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.anchors import Anchors
from tune_gpu.experiment.decision import SEARCH_ALONE, Case, decide, targets_missed, typical_deployment_s
from tune_gpu.experiment.described_device import describe_device
from tune_gpu.experiment.full_disk import unwritable, why_unwritable
from tune_gpu.experiment.listener import RunListener
from tune_gpu.experiment.new_tournament import new_tournament
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.experiment.replay import replay
from tune_gpu.experiment.results import ResultKeeper
from tune_gpu.experiment.summary import standing_of, summarise_run, winner_of
from tune_gpu.experiment.warnings import warnings_of
from tune_gpu.ray_tune.callbacks import StartReporter
from tune_gpu.ray_tune.client import forward_results
from tune_gpu.ray_tune.compat import import_tensorboard_writer, through_client
from tune_gpu.ray_tune.placement import concurrency, measurement_resources, trial_resources
from tune_gpu.ray_tune.run_search import RunSearch
from tune_gpu.ray_tune.same_failure import StopOnSameFailure
from tune_gpu.rzero import RZeroScheduler
from tune_gpu.search.tournament import Candidate
from tune_gpu.services.deployment import resolve
from tune_gpu.telemetry.device_choice import DeviceChoice

TRIALS_A_TUNER = 500
"""Number of trials per Tuner. Tune keeps all trials of a Tuner in memory and writes them with each snapshot, so a long run uses several
Tuners in turn."""


class Experiment:
    """One run of one experiment.

    Args:
        config: the checked configuration.
        choice: the device.
        folder: the run's folder. Its lines, if there are any (a resumed run), are replayed first.
        progress: shows the progress.
        refusals: the candidates that the preflight check refuses.
    """

    def __init__(self, config: ExperimentConfig, choice: DeviceChoice, folder: RunFolder, progress: RunListener, refusals: Refusals) -> None:
        self.config, self.choice, self.folder, self.progress = config, choice, folder, progress
        self.results = ResultKeeper(config, choice.kind, folder, progress)
        self.tournament = new_tournament(config, refusals)
        self.trainable: type[SpicaTrainable] | None = None
        """Replacement for the real evaluation, in tests; None for the real one."""
        self._refusals = refusals
        self._device = describe_device(choice, config.ray.address is not None)
        self._started = time.monotonic()
        self.setup_s = 0.0
        """Seconds before the search (imports, the plan, Ray), for the costs. The caller sets it."""
        self._confirm_s = 0.0
        self._before_s = sum(line.wall_s or 0.0 for line in (*self.results.lines, *self.results.anchors))
        self._anchors = Anchors(config.search.anchors, self.results, progress)

    def run(self) -> RunSummary:
        """Run the experiment to its end, from where it stopped if it is resumed, and return the summary. Ray must be up."""
        search = RunSearch(self.tournament, on_result=self.results.record, again=self.results.retries.again)
        try:
            search.requeue(self._replay())
        except ValueError as error:
            raise UserError(f"--resume {self.folder.run_id}: this program cannot resume the run ({error}). Use the program that began it.") from error
        self.results.replay()
        info, neighbours = self._device
        record = manifest(self.folder.run_id, self.config.search.seed, info, self.folder.earlier_manifests())
        record = replace(record, neighbours=neighbours.as_dict(), traffic=self.results.traffic)
        self.folder.write_json("manifest.json", record)
        ended = RunEnd.INTERRUPTED
        try:
            if not self.tournament.finished and self.results.failures.reason is None:
                with preserve_handler(signal.SIGINT), preserve_handler(signal.SIGUSR1):  # Tune keeps its own handlers, so the next Ctrl-C (during the confirmation, for example) would be lost
                    self._fit(search)
            if self.results.unwritten.error:
                raise self.results.unwritten.error
            ended = self._why_ended()
            with preserve_handler(signal.SIGINT), preserve_handler(signal.SIGUSR1):
                ended = self._anchors.measure(ended, self._remaining_s, self._anchor_tuner)
        except Exception as error:
            if reason := why_unwritable(self.folder.path, self.results.unwritten.error or error):
                raise unwritable(self.folder.path, self.folder.run_id, reason) from error
            raise
        finally:
            try:
                summary = self._conclude(ended)
                self.folder.write_json("manifest.json", replace(record, ended_at=now()))
            except OSError as error:
                reason = why_unwritable(self.folder.path, error) or str(error)
                raise unwritable(self.folder.path, self.folder.run_id, reason) from error
            self.results.copy("config.yaml", "plan.json", "manifest.json", "summary.json")
        return summary

    def _replay(self) -> list[Candidate]:
        """Replay the run's results in the search. Return the candidates that were proposed and have none. Raise ValueError."""
        lines = sorted(self.folder.candidates(), key=lambda line: -1 if line.told_after is None else line.told_after)  # the folder stores them by generation
        asked_after = self.folder.proposals() | {line.candidate_id: line.asked_after for line in lines if line.asked_after is not None}
        results = {line.candidate_id: (line.params, line.result(self.config.search.objectives)) for line in lines}
        return replay(self.tournament, results, asked_after if self.config.search.asynchronous else None)

    def _why_ended(self) -> RunEnd:
        if self.results.failures.reason is not None:
            return RunEnd.SAME_FAILURE
        if self.tournament.finished:
            return RunEnd(self.tournament.ended_because or RunEnd.GENERATIONS)
        # Tune handles Ctrl-C itself and returns as if nothing had happened.
        return RunEnd.TIME_BUDGET if self._remaining_s() == 0 else RunEnd.INTERRUPTED

    def _fit(self, search: RunSearch) -> None:
        if through_client():
            self._fit_on_the_cluster(search)
            return
        while search.has_more():
            trials = len(self._tuner(search, [StartReporter(self.results.began, self.progress.note)], TRIALS_A_TUNER).fit())
            stopped = trials < TRIALS_A_TUNER or search.in_flight or self.results.unwritten.error or self.results.failures.reason or self._remaining_s() == 0
            if stopped:
                return

    def _fit_on_the_cluster(self, search: RunSearch) -> None:
        states: list[dict[str, Any]] = []
        with forward_results(self.results.began, self.results.received, self.progress.note, states.append) as callback:
            self._tuner(search, [callback]).fit()
        # Restore this process's tournament from the cluster's. Replaying the lines is not enough: a call of `ask` that returned None may have
        # ended the search, and no line records it.
        self.tournament = new_tournament(self.config, self._refusals)
        for state in states:
            self.tournament.load_state_dict(state)
        if not states:
            self._replay()
            self.tournament.ask()

    def _remaining_s(self) -> float | None:
        """Return the rest of the time budget in seconds, or None without a budget."""
        budget_s = self.config.run.time_budget_s
        return max(0.0, budget_s - (time.monotonic() - self._started)) if budget_s else None

    def _anchor_tuner(self, candidates: Sequence[Candidate], callback: tune.Callback) -> tune.Tuner:
        """Return a Tuner for these candidates. Each gets a new actor, and therefore a new engine; they run one after another."""
        space = {"candidate": tune.grid_search([vars(candidate) for candidate in candidates])}
        return self._tuner(None, [callback], 1, space)

    def _tuner(
        self, search: RunSearch | None, callbacks: list[tune.Callback], trials: int = -1, space: Mapping[str, Any] | None = None
    ) -> tune.Tuner:
        config, kind = self.config, self.choice.kind
        parallel = concurrency(config, kind, self.choice.n_cards).trials if search is not None else 1
        settings = self.config.search
        import_tensorboard_writer()
        attempt = f"{'anchors' if search is None else 'attempt'}-{1 + len(list(self.folder.path.glob('ray/*')))}"
        (self.folder.path / "ray" / attempt).mkdir(parents=True)
        return tune.Tuner(
            spica_trainable(asdict(config), kind, lambda params: trial_resources(config, resolve(config, params, kind), kind), self.trainable),
            param_space=dict(space) if space is not None else None,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=RZeroScheduler(search, window_budget=settings.window_budget) if settings.racing and search is not None else None,
                num_samples=trials,
                max_concurrent_trials=parallel,
                reuse_actors=search is not None,
                time_budget_s=None if (remaining_s := self._remaining_s()) is None else max(1e-3, remaining_s),
                trial_name_creator=lambda trial: f"{trial.config['candidate']['candidate_id']}-{trial.trial_id}",
                trial_dirname_creator=lambda trial: f"{trial.config['candidate']['candidate_id']}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=attempt,
                storage_path=f"{self.results.sync.uri.rstrip('/')}/{config.name}/{self.folder.run_id}/ray" if self.results.sync else str(self.folder.path / "ray"),
                verbose=0,
                stop=CombinedStopper(self.results.unwritten, StopOnSameFailure(self.results.failures)),
                callbacks=[self.results.retries, *callbacks],
                failure_config=tune.FailureConfig(max_failures=config.ray.max_retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )

    def _conclude(self, ended: RunEnd) -> RunSummary:
        summary = self._summary(ended)
        if not summary.best or ended is RunEnd.INTERRUPTED:
            if ended is not RunEnd.INTERRUPTED:
                nothing = "" if summary.n_evaluations else f"nothing was measured before the run ended ({ended})."
                summary = replace(summary, decision=self._decision(None, summary.ended_reason or nothing, None))
            self.folder.write_json("summary.json", summary)
            return summary
        began = time.monotonic()
        best = searched = summary.best
        found = self._confirm(best, ended)
        self._confirm_s = time.monotonic() - began
        if found.interrupted:
            summary = self._summary(RunEnd.INTERRUPTED)
        else:
            if found.winner != best.params:
                better = next(standing for standing in self.tournament.standings() if standing.params == found.winner)
                best = standing_of(self.results.lines, better, evidence=evidence_of(self.results.lines, self.results.anchors))
            shown = found.record.summary("confirmation.json") if found.record else ConfirmationSummary(confirmed=found.confirmed, confirmed_why=found.why)
            decision = self._decision(best.params, found.why, found.record, found.needed_s)
            warnings = self._spelled(warnings_of(self.results.lines, best.params, self.config.baseline))
            summary = replace(self._summary(ended), best=best, search_best=searched, warnings=warnings, confirmation=shown, decision=decision)
            self.folder.write_winner(winner_of(summary, self.results.lines, self._device[0], self._device[1].mib, shown))
        self.folder.write_json("summary.json", summary)
        return summary

    def _decision(
        self, winner: Mapping[str, Any] | None, why: str, comparison: Comparison | None, needed_s: float | None = None
    ) -> Decision:
        case = Case(
            self.folder.run_id,
            place_of(self.folder),
            winner,
            self.config.baseline,
            why,
            comparison,
            "confirmation.json" if comparison else SEARCH_ALONE,
            typical_deployment_s(self.results.lines),
            targets_missed(self.results.lines, winner, self.config.baseline, self.config),
            needed_s,
        )
        return decide(case, self.config.confirm, self.config.promote)

    def _confirm(self, best: StandingRecord, ended: RunEnd) -> RunConfirmation:
        if ended is RunEnd.TIME_BUDGET:
            return RunConfirmation(False, "the run's time budget ended before its winner could be confirmed", dict(best.params))
        front = [standing.params for standing in self.tournament.front()]  # a rival may become the winner, so it must be on the front if there is one
        return confirm_run(
            self.config,
            self.choice.kind,
            self.folder,
            best.params,
            [line for line in self.results.lines if not front or line.params in front],
            measurement_resources(self.config, self.choice.kind),
            self.progress.note,
        )

    def _summary(self, ended: RunEnd) -> RunSummary:
        wall_s = self._before_s + time.monotonic() - self._started
        summary = summarise_run(
            self.tournament,
            self.results.lines,
            run_id=self.folder.run_id,
            experiment=self.config.name,
            device=self.choice.kind,
            wall_s=wall_s + self.setup_s,
            setup_s=self.setup_s,
            confirm_s=self._confirm_s,
            baseline=self.config.baseline,
            ended=ended,
            anchors=self.results.anchors,
            repeated=self._anchors.sentence,
            config=self.config,
        )
        reason = self.results.failures.reason if ended is RunEnd.SAME_FAILURE else None
        return replace(summary, ended_reason=reason, warnings=self._spelled(summary.warnings))

    def _spelled(self, warnings: Sequence[str]) -> tuple[str, ...]:
        """Return warnings that name settings as the user does."""
        return tuple(map(self.config.spelling.text, warnings))
