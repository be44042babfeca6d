"""The content of a report as plain values, the same for the page, for Markdown and for programs.

Every number is one of `summary.json` or of a candidate's line, or is computed from these here. A value that was not measured is absent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
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
from tune_gpu.artifacts.records.manifest import Manifest
from tune_gpu.artifacts.records.summary import RunSummary, StandingRecord
from tune_gpu.artifacts.records.winner import WinnerFile
from tune_gpu.common.metric import Better, Metric, carries, largest_carried, statistic_text
from tune_gpu.common.wording import counted
from tune_gpu.compare.verdict import least_words
from tune_gpu.config.languages import rate_name
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.evaluation.targets import missed_targets
from tune_gpu.metrics import ERROR_UNIT, N_CLIPS, N_TRANSCRIPTS, N_WORDS, VOICE_TURN, WER, every, in_comparison

Line = EvaluationRecord


@dataclass(frozen=True)
class Row:
    """One metric of the winner beside the baseline's."""

    label: str
    winner: float | None
    baseline: float | None
    digits: int
    better: bool | None
    """Whether the winner's is the better number; None if unknown. Not a statement about significance."""
    zero: str = ""
    """What stands beside a 0."""
    at: str = ""
    """The statistic of a metric with many samples."""
    winner_n: int | None = None
    """Samples behind the winner's number, if it is a percentile."""
    baseline_n: int | None = None
    winner_instead: str = ""
    """Of too few samples the largest percentile that they carry, if no other row has it; of an error rate what it rests on."""
    baseline_instead: str = ""

    @property
    def winner_text(self) -> str:
        """Return the winner's number as people read it."""
        return self._text(self.winner, self.winner_n, self.winner_instead)

    @property
    def baseline_text(self) -> str:
        """Return the baseline's number as people read it."""
        return self._text(self.baseline, self.baseline_n, self.baseline_instead)

    @property
    def comparable(self) -> bool:
        """Return whether the samples of both carry the statistic."""
        return not self.at or all(n is None or carries(n, self.at) for n in (self.winner_n, self.baseline_n))

    def _text(self, value: float | None, n: int | None, instead: str) -> str:
        if value is None:
            return "–"
        return statistic_text(f"{value:.{self.digits}f}", n, self.at) + instead + (self.zero if value == 0 else "")

    @property
    def change_pct(self) -> float | None:
        """Return the winner's change against the baseline, in per cent."""
        if self.winner is None or not self.baseline:
            return None
        return 100.0 * (self.winner - self.baseline) / self.baseline


@dataclass(frozen=True)
class Cost:
    """One part of the run's time."""

    part: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Facts:
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
    doubts: tuple[str, ...]
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
    lines: tuple[Line, ...]
    manifest: Manifest | None
    error_rate: str = "WER"
    """What `wer` is in this run: WER or CER."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard error of the fitness of each evaluation, by candidate id, where it is known: see `errors_of`."""
    anchors: tuple[Line, ...] = ()
    """Further deployments of the baseline, which chose no winner."""

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for JSON."""
        values = asdict(replace(self, device=None, decision=None, summary=None, comparison=None, lines=(), anchors=(), manifest=None))
        return {"schema_version": 1} | values | {
            "device": self.device.dump() if self.device else {},
            "decision": self.decision.dump() if self.decision else None,
            "summary": self.summary.dump() if self.summary else None,
            "comparison": self.comparison.dump() if self.comparison else None,
            "lines": [line.dump() | {"metrics": _short(line)} for line in self.lines],
            "anchors": [line.dump() | {"metrics": _short(line)} for line in self.anchors],
            "manifest": self.manifest.dump() if self.manifest else {},
        }  # fmt: skip


def facts_of(record: RunRecord, winner: WinnerFile | None = None) -> Facts:
    """Return everything that a report says of a run.

    Args:
        record: the run.
        winner: its winner file.
    """
    summary = record.summary
    best = summary.best if summary else None
    base = summary.baseline if summary else None
    source = summary or record.manifest
    return Facts(
        run_id=record.run_id, experiment=record.folder.experiment, state=str(record.state),
        device_kind=(source and source.device) or "unknown", device=record.device,
        decision=record.decision, verdict=_verdict(record), doubts=tuple(_doubts(record, winner)), summary=summary,
        changes=tuple((knob, base.params.get(knob) if base else None, value) for knob, value in best.params.items()) if best else (),
        rows=tuple(_rows(record.lines, best.params, base.params if base else None)) if best else (),
        counts=tuple(_counts(record.lines)), rows_of=_rows_of(record.lines, best.params, base.params if base else None) if best else "",
        comparison=record.evidence, failures=tuple(_failures(record.lines)), refused=tuple((record.plan or {}).get("refused") or ()),
        costs=tuple(_costs(record.lines, summary, record.confirmation)), lines=record.lines, manifest=record.manifest,
        error_rate=rate_name(_unit_of(record.lines)), errors=errors_of(record.lines, record.anchors), anchors=record.anchors,
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
        return f"{shown[0].upper()}{shown[1:]}."
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
    return " and ".join(missed.text for missed in missed_targets(ours.metrics, theirs.metrics if theirs else None, objective))


def _tied(record: RunRecord) -> list[Hashable]:
    """Return the keys of the configurations that the deployments of the run do not tell from its best."""
    evidence = evidence_of(record.lines, record.anchors)
    best = key_of(record.summary.best.params) if record.summary and record.summary.best else None
    return evidence.tied_with(best) if best in evidence else evidence.keys


def _shown(record: RunRecord) -> str | None:
    """Return what an A/B comparison showed, in one sentence; null where there was none."""
    confirmation = record.summary.confirmation if record.summary else None
    comparison = record.evidence or (confirmation.confirmation if confirmation else None)
    return comparison.sentence + _unsaid(comparison) if comparison and comparison.sentence else None


def _unsaid(comparison: Comparison | ComparisonExcerpt) -> str:
    """Return where a voice turn is shown to be worse beyond its tolerance and the sentence does not say so: older programs named one percentile."""
    worse = [each for each in comparison.findings if in_comparison(each.metric) is VOICE_TURN and each.verdict == "worse"]
    missing = [each for each in worse if -(each.gain or 0.0) > each.tolerance and f"at {each.metric.rpartition('.')[2]}" not in comparison.sentence]
    return "".join(f", but {each.claim}" for each in missing)


def _doubts(record: RunRecord, winner: WinnerFile | None) -> list[str]:
    summary = record.summary
    caveats: list[str] = []
    if not summary or not summary.best:
        return caveats
    found = record.evidence or winner or summary.confirmation
    if found is None or not found.confirmed:
        caveats.append(f"Not confirmed: {(found and found.confirmed_why) or 'no A/B comparison of this run is there'}.")
    if tied := [key for key in _tied(record) if key != key_of(summary.best.params)]:
        among = "" if not summary.baseline else f", the baseline {'' if key_of(summary.baseline.params) in tied else 'not '}among them"
        caveats.append(f"Not distinguishable from it by these deployments: {counted(len(tied), 'other configuration')}{among}.")
    if summary.best.fitness_stderr is None:
        caveats.append("Its uncertainty is not known: that takes two turns with answers, or a second deployment.")
    caveats += [f"{warning[0].upper()}{warning[1:]}." for warning in summary.warnings]
    if summary.repeated:
        caveats.append(f"{summary.repeated[0].upper()}{summary.repeated[1:]}.")
    if few := _few_words(line_of(record.lines, summary.best.params)):
        caveats.append(few)
    caveats += [f"Not checked: {why}." for why in unchecked_of(record.lines, summary.best.params)]
    if summary.device != "cuda":
        caveats.append(f"Measured on {summary.device}: it says nothing about a GPU.")
    return caveats


_OUTCOMES = {
    "ok": "measured, within the constraints",
    "against a constraint": "measured, but not to be deployed",
    "infeasible": "refused before anything started",
    "failed": "not measured: see below",
}


def _counts(lines: Sequence[Line]) -> Iterator[tuple[str, int, str]]:
    """Yield how many evaluations came to what, each with its meaning."""
    for outcome, count in Counter(line.outcome for line in lines).items():
        yield outcome, count, _OUTCOMES.get(outcome, "")


def _rows_of(lines: Sequence[Line], best: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    """Return which evaluations the metrics come from: percentiles of several deployments cannot be pooled without their samples."""
    parts: list[str] = []
    for who, params in (("the winner's", best), ("the baseline's", base)):
        line = line_of(lines, params) if params and not (parts and params == best) else None
        if line is not None:
            count = sum(each.params == line.params and each.fitness is not None for each in lines)
            parts.append(f"{who} {'only evaluation' if count == 1 else f'last of {count} evaluations'} ({line.candidate_id})")
    return f"Measured in {' and '.join(parts)}." if parts else ""


def _rows(lines: Sequence[Line], best: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[Row]:
    ours, theirs = line_of(lines, best), line_of(lines, base) if base else None
    rows = []
    for metric, path, label, digits in _reported(_unit_of(lines)):
        a = metric_at(ours.metrics, path) if ours else None
        b = metric_at(theirs.metrics, path) if theirs else None
        if a is None and b is None:
            continue
        better = None if a is None or b is None or a == b or metric.better is Better.NEITHER else (a > b) == (metric.better is Better.HIGHER)
        if not metric.many:
            ours_of, theirs_of = (_rests_on(line, metric) for line in (ours, theirs))
            rows.append(Row(label, a, b, digits, better, metric.zero, winner_instead=ours_of, baseline_instead=theirs_of))
            continue
        at = path.rpartition(".")[2]
        ours_n, theirs_n = (_n(line, metric) for line in (ours, theirs))
        rows.append(Row(label, a, b, digits, better, "", at, ours_n, theirs_n, _instead(ours, metric, at), _instead(theirs, metric, at)))
    return rows


def _rests_on(line: Line | None, metric: Metric) -> str:
    """Return what an error rate rests on, ` (21 words, 3 clips)`; empty for another metric. Older programs kept the number of transcripts only."""
    if line is None or not metric.counts_errors:
        return ""
    words, clips, transcripts = (metric_at(line.metrics, each.name) for each in (N_WORDS, N_CLIPS, N_TRANSCRIPTS))
    if words is not None and clips is not None:
        return f" ({counted(int(words), str(line.metrics.get(ERROR_UNIT) or 'word'))}, {counted(int(clips), 'clip')})"
    return "" if transcripts is None else f" ({counted(int(transcripts), 'transcript')})"


def _few_words(line: Line | None) -> str | None:
    """Return why the error rate of an evaluation tells no difference of its tolerance, or None if it does or the words are not known."""
    words = metric_at(line.metrics, N_WORDS.name) if line else None
    tolerance = WER.compared.tolerance if WER.compared else 0.0
    least = least_words(tolerance, 0.05)
    if line is None or words is None or words >= least:
        return None
    unit = str(line.metrics.get(ERROR_UNIT) or "word")
    return f"Its error rate rests on {counted(int(words), unit)}: to tell a difference of {tolerance:g}, its tolerance, takes {least}."


def _n(line: Line | None, metric: Metric) -> int | None:
    """Return the number of samples behind a metric of an evaluation."""
    n = metric_at(line.metrics, metric.at("n")) if line else None
    return None if n is None else int(n)


def _instead(line: Line | None, metric: Metric, at: str) -> str:
    """Return the largest percentile that the samples carry, if they do not carry this one and the report shows no other."""
    n = _n(line, metric)
    other = None if n is None or carries(n, at) else largest_carried(n)
    value = metric_at(line.metrics, metric.at(other)) if line and other else None
    shown = metric.reported.at if metric.reported else ()
    return "" if value is None or metric.reported is None or other in shown else f"; {'median' if other == 'p50' else other} {value:.{metric.reported.digits}f}"


def _reported(error_unit: str) -> Iterator[tuple[Metric, str, str, int]]:
    """Yield each metric that the report shows, with its path, its label and its digits."""
    for metric in every():
        if metric.reported is None:
            continue
        if not metric.many:
            yield metric, metric.name, f"{error_unit} error rate" if metric.counts_errors else metric.heading, metric.reported.digits
            continue
        for statistic in metric.reported.at:
            words = (metric.label, "median" if statistic == "p50" else statistic, metric.unit)
            yield metric, metric.at(statistic), ", ".join(word for word in words if word), metric.reported.digits


def _unit_of(lines: Sequence[Line]) -> str:
    """Return what recognition errors are counted in; lines from before that was recorded count words."""
    return "character" if any(line.metrics.get(ERROR_UNIT) == "character" for line in lines) else "word"


def _failures(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return the failures by kind, most frequent first, each with its last example. A violated constraint is a kind of its own."""
    found: dict[str, list[Line]] = {}
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


def _costs(lines: Sequence[Line], summary: RunSummary | None, confirmation: Comparison | None) -> list[Cost]:
    """Return where the seconds of the run went; the rest is Ray's and ours."""
    parts: defaultdict[str, float] = defaultdict(float)
    for line in lines:
        for part, seconds in cost_parts(line).items():
            parts[part] += seconds
    wall = float(summary.costs.wall_s) if summary else sum(parts.values())
    if summary and summary.costs.anchors_s:
        parts["deploying the baseline again"] += summary.costs.anchors_s
    confirming = min(float(confirmation.wall_s) if confirmation else 0.0, wall - sum(parts.values()))
    if confirming > 0:
        parts["confirming the winner"] += confirming
    rest = wall - sum(parts.values())
    if rest > 0:
        parts["Ray, and between evaluations"] += rest
    return [Cost(part, seconds, seconds / wall if wall else 0.0) for part, seconds in sorted(parts.items(), key=lambda item: -item[1]) if seconds > 0]


PARTS = ("measured under load", "starting engines", "starting Whisper", "waiting for stable memory", "importing the engine", "warming up", "stopping")
_START_NAMES = {"vllm": PARTS[1], "whisper": PARTS[2], "memory_stable": PARTS[3], "imports": PARTS[4], "engine_stop": PARTS[6]}


def cost_parts(line: Line) -> dict[str, float]:
    """Return the seconds of one evaluation by their use."""
    spent = line.duration_s
    parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for name, seconds in (spent.start_by_part or {"vllm": spent.start}).items():
        label = _START_NAMES.get(name, f"starting: {name}")
        parts[label] = parts.get(label, 0.0) + seconds
    for label, seconds in ((PARTS[0], spent.load), (PARTS[5], spent.warm), (PARTS[6], spent.stop)):
        parts[label] += seconds
    return {label: seconds for label, seconds in parts.items() if seconds > 0}


def _short(line: Line) -> dict[str, Any]:
    return {name: value for name, value in line.metrics.items() if name != "device_trace"}
