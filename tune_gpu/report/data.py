"""The content of a report as plain values, the same for the page, for Markdown and for programs.

Every number is one of `summary.json` or of a candidate's line, or is computed from these here. A value that was not measured is absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tune_gpu.artifacts.deployments import errors_of, evidence_of, key_of
from tune_gpu.artifacts.lines import line_of, unchecked_of
from tune_gpu.artifacts.reading import RunRecord, RunState
from tune_gpu.artifacts.records.comparison import Comparison, ComparisonExcerpt
from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.evaluation import EvaluationRecord, FailureRecord
from tune_gpu.artifacts.records.findings import FindingRecord
from tune_gpu.artifacts.records.manifest import Manifest
from tune_gpu.artifacts.records.summary import RunSummary, StandingRecord
from tune_gpu.artifacts.records.winner import WinnerFile
from tune_gpu.common.wording import counted
from tune_gpu.config.languages import rate_name
from tune_gpu.config.space_catalogue import recorded_catalogue
from tune_gpu.evaluation.exercised import recorded_exercise
from tune_gpu.evaluation.targets import missed_targets
from tune_gpu.metrics import VOICE_TURN, WER, finding_entry
from tune_gpu.report.costs import Cost, costs_of
from tune_gpu.report.metric_rows import Row, few_words, rows_in, rows_of, unit_of


@dataclass(frozen=True)
class ReportData:
    """The content of a report."""

    run_id: str
    experiment: str
    state: str
    device_kind: str
    device: DeviceRecord | None
    decision: Decision | None
    """What to do about the winner; None if nothing is decided."""
    verdict: str
    """What was found, in one sentence."""
    caveats: tuple[str, ...]
    """What a careful reader should know before believing the verdict."""
    summary: RunSummary | None
    changes: tuple[tuple[str, Any, Any], ...]
    """(knob, baseline, winner)."""
    rows: tuple[Row, ...]
    counts: tuple[tuple[str, int, str], ...]
    """(outcome, evaluations, explanation)."""
    rows_of: str
    """Which evaluations the rows come from."""
    comparison: Comparison | None
    failures: tuple[Mapping[str, Any], ...]
    refused: tuple[Mapping[str, Any], ...]
    costs: tuple[Cost, ...]
    lines: tuple[EvaluationRecord, ...]
    manifest: Manifest | None
    error_rate: str = "WER"
    """What `wer` is in this run: WER or CER."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard error of the fitness of each evaluation, by candidate id, where it is known: see `errors_of`."""
    anchors: tuple[EvaluationRecord, ...] = ()
    """Further deployments of the baseline, which chose no winner."""

    def as_dict(self) -> dict[str, Any]:
        """Return the content as JSON values, with the keys of `report --json`."""
        values = asdict(replace(self, device=None, decision=None, summary=None, comparison=None, lines=(), anchors=(), manifest=None))
        return {"schema_version": 1, "doubts": values.pop("caveats")} | values | {
            "device": self.device.dump() if self.device else {},
            "decision": self.decision.dump() if self.decision else None,
            "summary": self.summary.dump() if self.summary else None,
            "comparison": self.comparison.dump() if self.comparison else None,
            "lines": [line.dump() | {"metrics": _short(line)} for line in self.lines],
            "anchors": [line.dump() | {"metrics": _short(line)} for line in self.anchors],
            "manifest": self.manifest.dump() if self.manifest else {},
        }  # fmt: skip


def report_data(record: RunRecord, winner: WinnerFile | None = None) -> ReportData:
    """Return the content of the report of a run.

    Args:
        record: the run.
        winner: its winner file.
    """
    summary = record.summary
    best = summary.best if summary else None
    base = summary.baseline if summary else None
    source = summary or record.manifest
    catalogue = recorded_catalogue(record.config)
    return ReportData(
        run_id=record.run_id, experiment=record.folder.experiment, state=str(record.state),
        device_kind=(source and source.device) or "unknown", device=record.device,
        decision=record.decision, verdict=_verdict(record), caveats=(*_caveats(record, winner), *_unsaid(record)), summary=summary,
        changes=tuple((knob, base.params.get(knob) if base else None, value) for knob, value in best.params.items()) if best else (),
        rows=tuple(rows_in(record.lines, best.params, base.params if base else None, catalogue)) if best else (),
        counts=tuple(_counts(record.lines)), rows_of=rows_of(record.lines, best.params, base.params if base else None) if best else "",
        comparison=record.evidence, failures=tuple(_failures(record.lines)), refused=tuple((record.plan or {}).get("refused") or ()),
        costs=tuple(costs_of(record.lines, summary, record.confirmation)), lines=record.lines, manifest=record.manifest,
        error_rate=rate_name(unit_of(record.lines, catalogue)), errors=errors_of(record.lines, record.anchors), anchors=record.anchors,
    )  # fmt: skip


def describe(params: Mapping[str, Any]) -> str:
    """Return `share 0.5, model base`, for people."""
    return ", ".join(f"{name} {value}" for name, value in params.items())


def _verdict(record: RunRecord) -> str:
    summary = record.summary
    if summary is None or record.state.resumable or record.state is RunState.RUNNING:
        return f"Nothing is decided: the run is {record.state} after {counted(len(record.lines), 'evaluation')}."
    best, base = summary.best, summary.baseline
    if reason := summary.ended_reason:
        return f"No winner: no candidate starts, and for the same reason each time. {reason}."
    if best is None:
        return f"No winner: nothing was feasible in {counted(summary.n_evaluations, 'evaluation')}."
    if missed := "" if record.decision else _missed(record):
        return f"By the weights of the objective {describe(best.params)} is the best, but {missed}. {_found(record, best, base)}"
    return _found(record, best, base)


def _found(record: RunRecord, best: StandingRecord, base: StandingRecord | None) -> str:
    """Return what was found of a best, in one sentence."""
    if shown := _shown(record):
        return f"{_sentence(shown)}."
    name = describe(best.params)
    if base is None or base.fitness is None or best.fitness is None:
        return f"Best of {counted(record.summary.n_configurations if record.summary else 0, 'configuration')}: {name}; there is no baseline to compare it with."
    if best.params == base.params:
        return f"Keep what runs today ({name}): nothing that was tried measured better."
    gain = best.fitness - base.fitness
    difference = "not distinguishable by these deployments" if key_of(base.params) in _tied(record) else "a difference that these deployments show"
    return f"{name}: fitness {best.fitness:.4f} against the baseline's {base.fitness:.4f} ({gain:+.4f}; {difference})."


def _missed(record: RunRecord) -> str:
    """Return the targets that the winner misses and the baseline does not, or by far; empty if there are none. A decision names them itself."""
    objective, summary = record.config.get("objective"), record.summary
    ours = line_of(record.lines, summary.best.params) if summary and summary.best else None
    if ours is None or not isinstance(objective, Mapping) or (summary and summary.baseline and summary.baseline.params == ours.params):
        return ""
    theirs = line_of(record.lines, summary.baseline.params) if summary and summary.baseline else None
    return " and ".join(missed.text for missed in missed_targets(ours.metrics, theirs.metrics if theirs else None, objective, recorded_catalogue(record.config)))


def _tied(record: RunRecord) -> list[Hashable]:
    """Return the keys of the configurations that the deployments of the run do not distinguish from its best."""
    evidence = evidence_of(record.lines, record.anchors)
    best = key_of(record.summary.best.params) if record.summary and record.summary.best else None
    return evidence.tied_with(best) if best in evidence else evidence.keys


def _shown(record: RunRecord) -> str | None:
    """Return what an A/B comparison showed, in one sentence; None without one."""
    confirmation = record.summary.confirmation if record.summary else None
    comparison = record.evidence or (confirmation.confirmation if confirmation else None)
    return comparison.sentence + _left_out(comparison) if comparison and comparison.sentence else None


def _left_out(comparison: Comparison | ComparisonExcerpt) -> str:
    """Return where a voice turn is shown to be worse beyond its tolerance, if the sentence leaves it out: older programs named one percentile."""
    worse = [each for each in comparison.findings if _of_turn(each) and each.verdict == "worse"]
    missing = [each for each in worse if -(each.gain or 0.0) > each.tolerance and f"at {each.metric.rpartition('.')[2]}" not in comparison.sentence]
    return "".join(f", but {each.claim}" for each in missing)


def _of_turn(finding: FindingRecord) -> bool:
    entry = finding_entry(finding.metric)
    return entry is not None and entry.is_entry(VOICE_TURN)


def _caveats(record: RunRecord, winner: WinnerFile | None) -> list[str]:
    summary = record.summary
    caveats: list[str] = []
    if not summary or not summary.best:
        return caveats
    found = record.evidence or winner or summary.confirmation
    if found is None or not found.confirmed:
        caveats.append(f"Not confirmed: {(found and found.confirmed_why) or 'no A/B comparison of this run is there'}.")
    if tied := [key for key in _tied(record) if key != key_of(summary.best.params)]:
        caveats.append(f"{_sentence(summary.tied_text(len(tied), summary.baseline is not None and key_of(summary.baseline.params) in tied))}.")
    if summary.best.fitness_stderr is None:
        caveats.append("Its uncertainty is not known: that takes two turns with answers, or a second deployment.")
    caveats += [f"{_sentence(warning)}." for warning in (*summary.warnings, *([summary.repeated] if summary.repeated else []))]
    few = few_words(line_of(record.lines, summary.best.params), recorded_catalogue(record.config))
    if few and not _words_compared(record):
        caveats.append(few)
    caveats += [f"Not checked: {why}." for why in unchecked_of(record.lines, summary.best.params)]
    if summary.device != "cuda":
        caveats.append(f"Measured on {summary.device}: it says nothing about a GPU.")
    return caveats


def _unsaid(record: RunRecord) -> list[str]:
    """Return what the measurements cannot say of the parameters, in the summary's words or, for a run of an older program, computed from its lines."""
    found = record.summary.exercise if record.summary else None
    return [f"{_sentence(text)}." for text in (found or recorded_exercise(record.lines, record.config, record.anchors)).sentences]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _words_compared(record: RunRecord) -> bool:
    """Return whether the winner's comparison says on how many words its error rate rests: one count is enough."""
    finding = record.evidence.finding(WER.compared_name) if record.evidence else None
    return finding is not None and finding.effect is not None and finding.effect.n_words is not None


_OUTCOMES = {
    "ok": "measured, within the constraints",
    "against a constraint": "measured, but not to be deployed",
    "infeasible": "refused before anything started",
    "failed": "not measured: see below",
}


def _counts(lines: Sequence[EvaluationRecord]) -> Iterator[tuple[str, int, str]]:
    """Yield each outcome, its number of evaluations, and its meaning."""
    for outcome, count in Counter(line.outcome for line in lines).items():
        yield outcome, count, _OUTCOMES.get(outcome, "")


def _failures(lines: Sequence[EvaluationRecord]) -> list[dict[str, Any]]:
    """Return the failures by kind, most frequent first, each with its last example. A violated constraint is a kind of its own."""
    found: dict[str, list[EvaluationRecord]] = {}
    for line in lines:
        if line.failure:
            found.setdefault(str(line.failure.kind), []).append(line)
        elif line.fitness is None:
            found.setdefault(f"{line.outcome}: {', '.join(line.violations)}".removesuffix(": "), []).append(line)
    rows = []
    for kind, members in sorted(found.items(), key=lambda item: -len(item[1])):
        failure = members[-1].failure or FailureRecord(kind="")
        where = f"{failure.service} {failure.phase}".strip()
        rows.append({"kind": kind, "count": len(members), "status": members[-1].outcome, "where": where, "message": failure.message,
                     "evidence": failure.evidence, "candidates": [line.candidate_id for line in members]})  # fmt: skip
    return rows


def _short(line: EvaluationRecord) -> dict[str, Any]:
    return {name: value for name, value in line.metrics.items() if name != "device_trace"}
