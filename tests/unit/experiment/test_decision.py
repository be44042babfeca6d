"""The last page: deploy it, keep the current configuration, or measure longer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runs import MISLEADING, OFF_ITS_FRONT
from tune_gpu.artifacts.reading import read_run
from tune_gpu.artifacts.records.comparison import ArmRecord, Comparison
from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.findings import EffectRecord, FindingRecord
from tune_gpu.config.loader import load_run_config
from tune_gpu.config.schema import ConfirmSettings, PromoteSettings
from tune_gpu.evaluation.targets import missed_targets
from tune_gpu.experiment.decision import Case, decide, rounds_needed, targets_missed
from tune_gpu.promote.gate import gain, no_worse

CONFIRM, PROMOTE = ConfirmSettings(), PromoteSettings()
WINNER, BASELINE = {"x": 1}, {"x": 0}
UNITS = {"fitness": ("fitness", True, 0.01), "voice_turn_ms.p95": ("%", False, 10.0), "wer": ("WER", False, 0.01), "capacity": ("callers", True, 0.5)}


def finding(metric: str, estimate: float | None, half: float | None = 0.0, n_rounds: int = 4) -> FindingRecord:
    """Return a finding as `compare` would make it of this effect and the half width of its interval."""
    unit, more, tolerance = UNITS[metric]
    if estimate is None:
        return FindingRecord(metric=metric, verdict="no difference shown", unit=unit, higher_is_better=more, effect=None, tolerance=tolerance)
    low, high = (None, None) if half is None else (estimate - half, estimate + half)
    shown = low is not None and high is not None and not low <= 0.0 <= high
    verdict = "no difference shown" if not shown else "better" if (estimate > 0) == more else "worse"
    within = low is not None and high is not None and -tolerance <= low and high <= tolerance
    effect = EffectRecord(estimate=estimate, low=low, high=high, ours=1.0, theirs=1.0, n_rounds=n_rounds, n_pairs=40, confidence=0.95)
    return FindingRecord(
        metric=metric, verdict=verdict, unit=unit, higher_is_better=more, effect=effect, tolerance=tolerance, within_tolerance=within
    )  # fmt: skip


def compared(*findings: FindingRecord, n_rounds: int = 4, ended: str = "rounds") -> Comparison:
    decisive = next((each for each in findings if each.metric == CONFIRM.metric), None)
    arms = {name: ArmRecord(params=params, n_deployments=n_rounds, n_turns=40) for name, params in (("winner", WINNER), ("baseline", BASELINE))}
    return Comparison(
        run_id="r", device=DeviceRecord(), ended_at="", ours="winner", theirs="baseline", arms=arms, sentence="", findings=findings, n_rounds=n_rounds,
        ended=ended, confidence=0.95, interval_confidence=0.95, wall_s=60.0 * n_rounds, confirmed=bool(decisive and decisive.verdict == "better"),
        confirmed_why="because",
    )  # fmt: skip


def decided(comparison: Comparison | None, **change: Any) -> Decision:
    values = {"run_id": "r", "place": "", "winner": WINNER, "baseline": BASELINE, "comparison": comparison, "deployment_s": 30.0, **change}
    return decide(Case(**values), CONFIRM, PROMOTE)


def test_a_winner_that_is_better_and_nowhere_worse_is_deployed() -> None:
    found = decided(compared(finding("fitness", 0.05, 0.02), finding("voice_turn_ms.p95", -30.0, 5.0), finding("wer", 0.0, 0.005)))
    assert found.sentence == "deploy it: its voice turn at p95 is 30 % better than the current one, and no metric is worse beyond its tolerance."
    assert found.command == "tune-gpu promote r"
    assert [each.metric for each in found.better] == ["fitness", "voice_turn_ms.p95"]
    assert [each.metric for each in found.same] == ["wer"]


def test_a_price_beyond_its_tolerance_is_named_and_keeps_what_runs() -> None:
    found = decided(compared(finding("fitness", 0.05, 0.02), finding("voice_turn_ms.p95", -30.0, 5.0), finding("wer", 0.11, 0.04)))
    assert found.verdict is DecisionVerdict.KEEP
    assert found.reason == (
        "it transcribes worse (11.0 more errors in 100 words), beyond the tolerance. To accept that price, compare again with confirm.tolerances.wer=0.11."
    )
    assert found.command is None


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        ([finding("fitness", -0.05, 0.02)], "the winner is shown to be worse than the current configuration: its fitness is 0.05 worse."),
        ([finding("fitness", 0.001, 0.002)], "no difference that matters: fitness +0.001 (-0.001 to +0.003; 4 rounds), within the tolerance of 0.01."),
        (
            [finding("fitness", 0.05, 0.02), finding("voice_turn_ms.p95", -4.0, 3.0)],
            "the gain is smaller than promote.min_gain_pct=10: voice turn at p95 -4 % (-7 to -1; 4 rounds, 40 turns).",
        ),
    ],
    ids=["worse", "the same", "too small a gain"],
)
def test_what_runs_is_kept_where_nothing_is_gained(findings: list[FindingRecord], reason: str) -> None:
    found = decided(compared(*findings))
    assert (found.verdict, found.reason, found.command) == (DecisionVerdict.KEEP, reason, None)


def test_an_open_comparison_asks_for_the_rounds_that_would_settle_it() -> None:
    """Half the width at four times the rounds: 0.04 +- 0.06 over 4 rounds needs 9."""
    found = decided(compared(finding("fitness", 0.04, 0.06), finding("voice_turn_ms.p95", -30.0, 5.0)))
    assert found.verdict is DecisionVerdict.MEASURE_LONGER
    assert found.reason == "4 rounds leave open whether the winner is better: fitness +0.04 (-0.02 to +0.1; 4 rounds)."
    assert found.about_s == 9 * 60
    assert found.command == "tune-gpu compare r --budget-s 660"


def test_a_comparison_that_used_all_its_rounds_gets_more() -> None:
    """With confirm.max_rounds=12 the command must ask for more, or it would measure nothing."""
    found = decided(compared(finding("fitness", 0.02, 0.03, n_rounds=12), finding("voice_turn_ms.p95", -30.0, 5.0), n_rounds=12))
    assert found.command == "tune-gpu compare r --budget-s 1920 --rounds 27"


def test_the_suggested_budget_is_that_of_the_forecast() -> None:
    """A forecast of 60.4 s asked for 120 s, and the decision beside it for 60 s."""
    found = decided(None, needed_s=60.4)
    assert (found.command, found.about_s) == ("tune-gpu compare r --budget-s 120", 60)


def test_one_round_decides_nothing() -> None:
    found = decided(compared(finding("fitness", 0.3, None, n_rounds=1), finding("voice_turn_ms.p95", -55.9, None, n_rounds=1), n_rounds=1))
    assert found.verdict is DecisionVerdict.MEASURE_LONGER
    assert found.about_s == CONFIRM.min_rounds * 60


@pytest.mark.parametrize("comparison", [None, compared(n_rounds=0), compared(finding("fitness", 0.05), ended="failed")], ids=["none", "no round", "failed"])
def test_without_a_comparison_it_says_why_and_how_to_get_one(comparison: Comparison | None) -> None:
    found = decided(comparison, why_not_compared="confirm.enabled=false", place=" run.artifacts_dir=there")
    assert found.reason == "the winner is not confirmed: confirm.enabled=false."
    assert found.verdict is DecisionVerdict.MEASURE_LONGER
    assert found.command is not None
    assert found.command.startswith("tune-gpu compare r run.artifacts_dir=there --budget-s ")


def test_without_winner_or_baseline_there_is_nothing_to_deploy() -> None:
    assert decided(None, winner=None).sentence == "keep the current configuration: no feasible configuration was found."
    assert decided(None, winner=BASELINE).sentence == "keep the current configuration: it is the best configuration that was found."
    found = decided(None, baseline={})
    assert (found.verdict, found.command) == (DecisionVerdict.MEASURE_LONGER, "tune-gpu compare r --baseline KEY=VALUE,…")


def test_a_percentile_asks_for_the_rounds_that_have_enough_turns() -> None:
    """It asked for the fewest rounds again, which had not been enough."""
    few = replace(finding("voice_turn_ms.p95", -30.0, None), verdict="unknown")
    assert few.effect is not None
    enough = replace(few, effect=replace(few.effect, n_rounds=5, n_pairs=20))
    few = replace(few, effect=replace(few.effect, n_rounds=5, n_pairs=12))
    assert "5 rounds, 12 turns: too few for p95" in few.figures
    assert rounds_needed(few, CONFIRM) == 9
    assert rounds_needed(enough, CONFIRM) == CONFIRM.min_rounds
    assert "too few" not in enough.figures


def test_a_target_that_the_winner_misses_comes_first() -> None:
    record = read_run(MISLEADING, OFF_ITS_FRONT)
    config = load_run_config(record.folder.path, [], trust=True)
    assert record.summary is not None
    assert record.summary.best is not None
    missed = targets_missed(record.lines, record.summary.best.params, config.baseline, config)
    assert [each.metric.name for each in missed] == ["ttft_ms"], "both meet the other targets"
    found = decided(compared(finding("fitness", -0.05, 0.02)), missed=missed)
    first = "keep the current configuration: by the weights of the objective the winner is the best, but its first token at p95 is 6758 ms, far outside the target of 500 ms"
    assert found.sentence.startswith(first)
    assert found.sentence.endswith("The winner is shown to be worse than the current configuration: its fitness is 0.05 worse.")
    assert targets_missed(record.lines, config.baseline, config.baseline, config) == ()


@given(st.floats(1e-3, 1e3), st.none() | st.floats(1e-3, 1e3))
def test_a_target_that_is_met_is_never_missed(value: float, theirs: float | None) -> None:
    other = None if theirs is None else {"wer": theirs}
    missed = missed_targets({"wer": value}, other, {"wer_target": 1.0})
    assert bool(missed) == (value > max(1.0, theirs or 0.0) and (value > 2.0 or theirs is None or theirs <= 1.0))


def findings_of(metric: str) -> st.SearchStrategy[FindingRecord]:
    scale = UNITS[metric][2]
    numbers = st.floats(-8.0 * scale, 8.0 * scale)
    return st.builds(finding, st.just(metric), st.none() | numbers, st.none() | st.floats(0.0, 8.0 * scale), st.integers(1, 12))


@given(st.tuples(*(findings_of(metric) for metric in UNITS)), st.integers(1, 12))
def test_a_decision_follows_from_what_is_shown(findings: tuple[FindingRecord, ...], n_rounds: int) -> None:
    comparison = compared(*findings, n_rounds=n_rounds)
    found = decided(comparison)
    accepted = comparison.confirmed and gain(comparison, PROMOTE).holds and no_worse(comparison).holds
    assert (found.verdict is DecisionVerdict.DEPLOY) == accepted, "promote accepts exactly what is to be deployed"
    listed = [*found.better, *found.worse, *found.same, *found.undecided]
    assert sorted(each.metric for each in listed) == sorted(each.metric for each in findings), "every metric stands in one place"
    assert (found.command is None) == (found.verdict is DecisionVerdict.KEEP)
    if found.verdict is DecisionVerdict.MEASURE_LONGER:
        assert found.about_s is not None
        assert 0 < found.about_s <= 60 * max(CONFIRM.max_rounds, 4 * 12)
    assert Decision.parse(found.dump(), "here") == found


@given(st.floats(0.02, 1.0), st.floats(0.0, 1.0), st.integers(2, 12))
def test_wider_intervals_never_need_fewer_rounds(estimate: float, half: float, n_rounds: int) -> None:
    narrow, wide = (rounds_needed(finding("fitness", estimate, width, n_rounds), CONFIRM) for width in (half, 2 * half))
    assert CONFIRM.min_rounds <= narrow <= wide <= max(CONFIRM.max_rounds, 4 * n_rounds)
    assert not math.isnan(wide)
