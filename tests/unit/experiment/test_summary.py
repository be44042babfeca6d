"""What a summary and a report say of how sure the winner is: one model, whatever is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.made_run import line
from tune_gpu.artifacts.deployments import error_of, errors_of, evidence_of
from tune_gpu.artifacts.reading import RunRecord, read_run
from tune_gpu.artifacts.records.comparison import ConfirmationSummary
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.summary import RunSummary
from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.experiment.summary import summarise_run, winner_of
from tune_gpu.report.data import report_data
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Tournament

ARTIFACTS = Path(__file__).parents[2] / "data" / "runs"
WHOLE = "20261125-222441"
QUIET = [
    (0, 0.6333, 0.0047), (1, 0.6649, 0.0027), (1, 0.6735, 0.0062), (2, 0.5994, 0.0134), (3, 0.6801, 0.0021), (4, 0.6442, 0.0080), (3, 0.6509, 0.0054),
    (5, 0.6632, 0.0040), (6, 0.5030, 0.0335), (7, 0.6692, 0.0016), (7, 0.6517, 0.0046), (8, 0.6556, 0.0072), (9, 0.5541, 0.0551), (10, 0.6714, 0.0121),
    (10, 0.6690, 0.0083),
]  # fmt: skip
"""A recorded run of the default space on a quiet machine: configuration, fitness and the error within the deployment. 1 is the baseline."""

BUSY = [
    (0, 0.4863, 0.0406), (1, 0.5938, 0.0061), (1, 0.6105, 0.0055), (2, 0.5047, 0.0467), (3, 0.5934, 0.0156), (4, 0.5712, 0.0317), (5, 0.5735, 0.0236),
    (6, 0.5649, 0.0133), (7, 0.3780, 0.0214), (1, 0.5497, 0.0440), (8, 0.6565, 0.0089), (9, 0.6140, 0.0164), (10, 0.6615, 0.0036), (3, 0.5904, 0.0173),
    (10, 0.6005, 0.0072), (8, 0.5737, 0.0115),
]  # fmt: skip
"""Another, while other programs took up to both cores. It named another winner."""


def summary_of(measured: Sequence[tuple[int, float, float | None]], baseline: int = 1) -> tuple[RunSummary, list[EvaluationRecord]]:
    """The summary of a search that measured these configurations in this order."""
    names = sorted({a for a, _, _ in measured})
    tournament = Tournament(SearchSpace.from_specs({"a": ParameterSpec(target="", values=names)}), SearchSettings(initial=len(names), generations=1))
    lines = [
        line(f"g0-c{i}", {"a": a}, fitness, n_windows=3, fitness_stderr=error, started_at=f"2026-11-30T08:{i:02}:00+00:00",
             metrics={"fitness_errors": {"windows": error, "capacity": 0.0, "wer": 0.0}})
        for i, (a, fitness, error) in enumerate(measured)
    ]  # fmt: skip
    for made in lines:
        tournament.add_evaluated(made.params, made.result())
    summary = summarise_run(
        tournament, lines, run_id="r", experiment="e", device="cpu", wall_s=1.0, baseline={"a": baseline}, ended=RunEnd.GENERATIONS
    )
    return summary, lines


def test_the_best_has_its_error_its_interval_and_its_prediction() -> None:
    summary, lines = summary_of(QUIET)
    best, base = summary.best, summary.baseline
    assert best is not None
    assert base is not None
    assert best.fitness is not None
    assert best.fitness_stderr is not None
    assert best.fitness_interval is not None
    assert best.next_deployment is not None
    assert best.next_deployment[0] < best.fitness_interval[0] < best.fitness < best.fitness_interval[1] < best.next_deployment[1]
    assert best.fitness_stderr > 0.0066, "its windows alone said 0.0066"
    assert summary.between_deployments == pytest.approx(0.012, abs=0.004)
    assert RunSummary.parse(summary.dump(), "summary") == summary
    assert len(lines) == len(QUIET)


def test_one_that_is_nearer_and_less_certain_is_tied_if_a_farther_one_is() -> None:
    """The recorded summary told 0.6333 ± 0.0047 apart from its best, and not one that was measured worse: ranks and ties used two statistics."""
    summary, lines = summary_of(QUIET)
    evidence, tied = evidence_of(lines), [params["a"] for params in summary.ties]
    known = {params["a"]: evidence.estimate(evidence.keys[i]) for i, params in enumerate({made.params["a"]: made.params for made in lines}.values())}
    best = tied[0]
    for a in known:
        for b in tied:
            if a != best and known[a].mean >= known[b].mean and known[a].stderr >= known[b].stderr and known[a].freedom <= known[b].freedom:
                assert a in tied
    assert 1 in tied, "the baseline is not told apart"


@pytest.mark.parametrize("measured", [QUIET, BUSY], ids=["quiet", "busy"])
def test_what_two_runs_named_differently_is_told_from_what_runs_in_neither(measured: list[tuple[int, float, float | None]]) -> None:
    """Two runs of the default space named different winners, each by its own windows: 0.6615 ± 0.0036 was 0.6005 ± 0.0072 when it was deployed again."""
    summary, _ = summary_of(measured)
    assert {"a": 1} in summary.ties, "the baseline"
    best = summary.best
    assert best is not None
    assert best.next_deployment is not None
    again = [fitness for a, fitness, _ in measured if a == best.params["a"]]
    assert all(best.next_deployment[0] <= fitness <= best.next_deployment[1] for fitness in again)


def test_a_summary_counts_what_violates_a_constraint_apart_from_ok() -> None:
    """It said "ok: violates max_failed_requests_pct", and counted it as ok, in the table as something else and in the failures as a third."""
    measured = [("g0-c0", 0.5, {}), ("g0-c1", None, {"max_failed_requests_pct": 2.0}), ("g0-c2", 0.6, {})]
    lines = [line(name, {"a": i}, 0.5, n_windows=1, violations=violations) for i, (name, _, violations) in enumerate(measured)]
    lines = [replace(made, fitness=fitness) for made, (_, fitness, _) in zip(lines, measured, strict=True)]
    tournament = Tournament(SearchSpace.from_specs({"a": ParameterSpec(target="", values=[0, 1, 2])}), SearchSettings(initial=3, generations=1))
    for made in lines:
        tournament.add_evaluated(made.params, made.result())
    summary = summarise_run(tournament, lines, run_id="r", experiment="e", device="cpu", wall_s=1.0, baseline={"a": 0}, ended=RunEnd.GENERATIONS)
    assert summary.counts == {"ok": 2, "against a constraint": 1}
    assert summary.failures == {}
    assert sum(summary.counts.values()) == summary.n_evaluations


def test_the_winner_file_says_which_evaluation_its_metrics_are_of() -> None:
    """Its fitness is the mean of two evaluations, and its metrics are those of the last."""
    summary, lines = summary_of(QUIET)
    last = replace(lines[-1], metrics={**lines[-1].metrics, "oom_events": 7})
    said = ConfirmationSummary(confirmed=False, confirmed_why="nothing was compared")
    made = winner_of(replace(summary, best=replace(summary.best, params=last.params) if summary.best else None), [*lines[:-1], last], DeviceRecord(), 0.0, said)
    assert made.best_metrics_of == last.candidate_id
    assert made.best_metrics == last.metrics
    assert len(made.evidence.evaluations) >= 1


def test_without_an_error_and_without_repeats_nothing_is_told_apart() -> None:
    summary, lines = summary_of([(1, 0.5, None), (2, 0.9, None)])
    assert summary.best is not None
    assert summary.best.params == {"a": 2}
    assert (summary.best.fitness_stderr, summary.best.fitness_interval) == (None, None)
    assert summary.ties == ({"a": 2}, {"a": 1})
    assert errors_of(lines) == {}


def test_a_zero_error_of_a_run_that_did_not_resample_its_ramp_is_unknown() -> None:
    """A recorded run of `weights: {capacity: 1}` printed "0.6604 ± 0.0000 … a difference that these windows show"."""
    lines = [line(f"g0-c{i}", {"a": i}, fitness, n_windows=2, fitness_stderr=0.0) for i, fitness in enumerate((0.6604, 0.6527, 0.6097))]
    evidence = evidence_of(lines)
    assert len(evidence.tied_with(evidence.ranked()[0])) == 2
    assert errors_of(lines) == {}


def test_without_noise_the_best_stands_alone_at_its_value() -> None:
    summary, _ = summary_of([(1, 0.5, 0.0), (2, 0.9, 0.0), (1, 0.5, 0.0)])
    assert summary.best is not None
    assert (summary.best.fitness, summary.best.fitness_stderr) == (0.9, 0.0)
    assert summary.ties == ()


def test_a_difference_beyond_what_deployments_differ_by_is_told() -> None:
    summary, _ = summary_of([(1, 0.30, 0.002), (2, 0.70, 0.002), (1, 0.31, 0.002), (2, 0.69, 0.002), (1, 0.305, 0.002), (2, 0.695, 0.002)])
    assert summary.ties == ()


def test_the_error_of_a_line_holds_what_differs_between_deployments() -> None:
    _, lines = summary_of(QUIET)
    evidence = evidence_of(lines)
    assert evidence.between is not None
    for made in lines:
        error = error_of(made, evidence)
        assert error is not None
        assert error >= max(evidence.between, made.fitness_stderr or 0.0)
    assert error_of(replace(lines[0], fitness=None), evidence) is None


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return read_run(ARTIFACTS, WHOLE)


def test_the_report_says_whether_the_baseline_is_among_the_tied(record: RunRecord) -> None:
    summary = record.summary
    assert summary is not None
    assert summary.baseline is not None
    caveat = next(each for each in report_data(record).caveats if each.startswith("Not distinguishable"))
    assert "other configuration" in caveat
    nothing_known = replace(record, lines=tuple(replace(made, fitness_stderr=None) for made in {str(m.params): m for m in record.lines}.values()))
    caveat = next(each for each in report_data(nothing_known).caveats if each.startswith("Not distinguishable"))
    assert caveat.endswith("the baseline among them.")


def test_the_starts_of_named_services_are_counted_each() -> None:
    def starts_of(*parts: dict[str, float]) -> int | None:
        lines = [line(f"g0-c{i}", {"a": i}, 0.5, duration_s={"start": 1.0, "load": 3.0, "stop": 1.0, "start_by_part": part}) for i, part in enumerate(parts)]
        tournament = Tournament(SearchSpace.from_specs({"a": ParameterSpec(target="", values=[0, 1])}), SearchSettings(initial=2, generations=1))
        summary = summarise_run(tournament, lines, run_id="r", experiment="e", device="cpu", wall_s=1.0, baseline={}, ended=RunEnd.GENERATIONS)
        return summary.costs.service_starts

    assert starts_of({"stt": 1.0, "memory_stable": 0.3, "llm": 4.0}, {"stt": 1.0, "llm": 0.0}) == 3
    assert starts_of({"whisper": 1.0, "vllm": 4.0}, {"whisper": 1.0, "vllm": 0.0}) is None, "the default pair counts its engine's"
