"""Store the results of a run as they arrive: on disk first, then in the copy, then on the screen."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tune_gpu.artifacts.records.evaluation import EvaluationRecord, FailedAttempt
from tune_gpu.artifacts.run_folder import ANCHORS, RunFolder
from tune_gpu.artifacts.sync import ArtifactSync
from tune_gpu.common.clock import now
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.evaluation.record import lost
from tune_gpu.experiment.full_disk import StopWhenUnwritable
from tune_gpu.experiment.listener import RunListener
from tune_gpu.ray_tune.callbacks import RetryTracker
from tune_gpu.ray_tune.same_failure import SameFailure
from tune_gpu.search.tournament import Candidate, Result
from tune_gpu.workload.traffic_hash import planned_hash


class ResultKeeper:
    """Stores each result of a run, and detects when the run should end.

    Args:
        config: the run's configuration.
        kind: kind of the device, `cuda` or `cpu`.
        folder: the run's folder.
        progress: shows each result.
    """

    def __init__(self, config: ExperimentConfig, kind: str, folder: RunFolder, progress: RunListener) -> None:
        self._config, self._kind, self._folder, self._progress = config, kind, folder, progress
        self.traffic = planned_hash(config)
        """Hash of the run's traffic, which every line states; None if it is not known here."""
        self.sync = ArtifactSync(config.ray.storage_path, folder.root) if config.ray.storage_path else None
        self.retries = RetryTracker(config.ray.max_retries)
        self.unwritten = StopWhenUnwritable()
        """Ends the run once a result could not be written."""
        self.failures = SameFailure()
        """Ends the run once nothing can be expected to start."""
        self._n_kept = len(self.lines)

    @property
    def lines(self) -> list[EvaluationRecord]:
        """Return the records as the search counts them. They are read from the folder, so that the driver of a long run keeps none in
        memory."""
        return [line.counted(self._config.search.objectives) for line in self._folder.candidates()]

    @property
    def anchors(self) -> list[EvaluationRecord]:
        """Return the further deployments of the baseline, counted as the search would."""
        return [line.counted(self._config.search.objectives) for line in self._folder.anchors()]

    def replay(self) -> None:
        """Show the results from before the run was resumed, and count their failures."""
        for line in self.lines:
            self.failures.observe(line)
            self._progress.ended(line, replayed=True)

    def began(self, candidate: Candidate) -> None:
        """Record that the evaluation of a candidate has begun. Proposals are written only if the results do not determine them."""
        if self._config.search.asynchronous:
            try:
                self._folder.append_proposal(candidate)
            except OSError as error:
                self.unwritten.note(error)
        self._progress.began(candidate)

    def record(self, candidate: Candidate, _outcome: Result, result: Mapping[str, Any] | None) -> None:
        """Store a result that Tune passes to the searcher in this process, or None for a trial that was lost."""
        found = _record_in(result)
        if found is None:
            found = lost(candidate, self._kind, started_at=now(), retries=self.retries.causes(candidate.candidate_id))
        elif before := self.retries.carried(candidate.candidate_id):
            found = found.after(before)
        self._keep(found)

    def received(self, candidate: Candidate, line_json: str | None, causes: list[FailedAttempt]) -> None:
        """Store a result from a cluster; `line_json` is None for a trial that was lost."""
        self._keep(_record_in({"line_json": line_json}) or lost(candidate, self._kind, started_at=now(), retries=causes))

    def received_anchor(self, candidate: Candidate, line_json: str | None, causes: list[FailedAttempt]) -> None:
        """Store a further deployment of the baseline, which the search does not read; `line_json` is None for a trial that was lost. Raise
        OSError."""
        found = _record_in({"line_json": line_json}) or lost(candidate, self._kind, started_at=now(), retries=causes)
        self._folder.append_anchor(EvaluationRecord.parse(self._folder.redactor.value(replace(found, traffic=self.traffic).dump()), found.candidate_id))
        self.copy(ANCHORS)

    def copy(self, *names: str) -> None:
        """Copy files of the run to `ray.storage_path`. A failed copy is logged; the file is still here."""
        try:
            if self.sync:
                self.sync.push(*(self._folder.path / name for name in names), self._folder.winner_file)
        except OSError as error:
            logging.getLogger(__name__).warning("%s: not copied: %s", ", ".join(names), error)

    def _keep(self, record: EvaluationRecord) -> None:
        line = EvaluationRecord.parse(self._folder.redactor.value(replace(record, told_after=self._n_kept, traffic=self.traffic).dump()), record.candidate_id)
        self._n_kept += 1
        self.failures.observe(line)
        try:
            self._folder.append_candidate(line)
        except OSError as error:
            self.unwritten.note(error)
            return
        self.copy(f"gen_{record.generation}_candidates.jsonl")
        self._progress.ended(line.counted(self._config.search.objectives))


def _record_in(result: Mapping[str, Any] | None) -> EvaluationRecord | None:
    """Return the record in a report, or None for a trial that was lost. Tune flattens results for a searcher, so the record is sent as
    JSON."""
    text = (result or {}).get("line_json")
    return EvaluationRecord.parse(json.loads(text), "the report of a trial") if text else None
