"""A verdict needs enough rounds, turns and words; what it rests on is said beside it."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.support.traffic import rounds, turn
from tune_gpu.common.metric import least_samples, least_trials
from tune_gpu.compare.bootstrap import Effect, effect_of
from tune_gpu.compare.confirm import confirmed
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.compare.progress import describe_replicate, make_findings_table
from tune_gpu.compare.samples import Pair, Replicate, Turn
from tune_gpu.compare.verdict import ComparisonVerdict, Finding, sentence

METRICS = {metric.name: metric for metric in standard_metrics(95)}
RECORDED = {
    "voice_turn_ms.p95": Effect(66.03092, -21.95128, 253.19306, 6635.8, 3996.7, 12, 35, 0.9725),
    "voice_turn_ms.p50": Effect(89.96626, 21.89515, 196.05099, 2470.9, 1300.7, 12, 35, 0.9725),
}
"""The voice turns of twelve rounds that were really measured: no difference at p95, and a median that is 90 % later."""


def finding(name: str, effect: Effect, tolerance: float = 0.0) -> Finding:
    return Finding(METRICS[name], effect, tolerance)


def spoken(errors: int, words: int, clip: str) -> Turn:
    return replace(turn(600.0, 100.0, 300.0, 1000.0, errors, words), clip=clip)


def transcribed(n_rounds: int, clips: int, words: int = 7, *, worse: bool = False) -> Finding:
    """Both arms hear the same clips in every round."""
    pairs = []
    for number in range(n_rounds):
        theirs = tuple(spoken(0, words, f"clip {i}") for i in range(clips))
        ours = tuple(spoken(1 if worse else 0, words, f"clip {i}") for i in range(clips))
        pairs.append(Pair(Replicate("winner", number, ours), Replicate("baseline", number, theirs)))
    effect = effect_of(pairs, METRICS["wer"], alpha=0.05)
    assert effect is not None
    return finding("wer", effect, 0.01)


@given(seed=st.integers(0, 1000), turns=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_one_or_two_rounds_give_no_interval(seed: int, turns: int) -> None:
    """Two had one, of Student's t with one degree of freedom."""
    for n, known in ((1, False), (2, False), (3, True)):
        for metric in METRICS.values():
            effect = effect_of(rounds(seed, n, turns), metric, alpha=0.05, resamples=50)
            assert effect is not None
            assert (effect.low is not None, effect.high is not None) == (known, known)
            assert known or finding(metric.name, effect, 1e9).verdict in (ComparisonVerdict.NO_DIFFERENCE, ComparisonVerdict.UNKNOWN)


def test_whole_rounds_are_resampled_not_the_turns_of_a_deployment() -> None:
    """Many turns of three deployments that differ from start to start show nothing."""
    lucky = [0.6, 1.0, 1.6]
    pairs = []
    for number, luck in enumerate(lucky):
        ours = tuple(turn(luck * t, luck * t, luck * t, luck * t) for t in np.linspace(900, 1100, 200))
        theirs = tuple(turn(t, t, t, t) for t in np.linspace(900, 1100, 200))
        pairs.append(Pair(Replicate("winner", number, ours), Replicate("baseline", number, theirs)))
    effect = effect_of(pairs, METRICS["voice_turn_ms.p50"], alpha=0.05)
    assert effect is not None
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < -30
    assert effect.high > 50


@pytest.mark.parametrize(("percentile", "least"), [(50, 2), (90, 10), (95, 20), (99, 100)])
def test_a_percentile_takes_a_sample_that_lies_beyond_it(percentile: int, least: int) -> None:
    assert least_samples(percentile) == least


def test_a_percentile_that_its_turns_do_not_carry_has_no_verdict() -> None:
    few = finding("voice_turn_ms.p95", Effect(-61.4, -84.7, -2.9, 1333.5, 3458.2, 3, 6, 0.9875))
    assert few.verdict is ComparisonVerdict.UNKNOWN
    assert few.text == "(6 turns: too few for p95, which takes 20)", "no p95 of six turns"
    assert few.record().text == "voice turn at p95 (3 rounds, 6 turns: too few for p95)"
    assert not few.decided
    effect = few.record().effect
    assert effect is not None
    assert (effect.low, effect.high, effect.n_rounds, effect.n_pairs) == (None, None, 3, 6)
    assert few.effect is not None
    assert finding("voice_turn_ms.p50", few.effect).verdict is ComparisonVerdict.BETTER
    assert finding("voice_turn_ms.p95", replace(few.effect, n_pairs=20)).verdict is ComparisonVerdict.BETTER


def test_no_difference_at_p95_does_not_hide_the_median() -> None:
    message = sentence([finding(name, effect, 10.0) for name, effect in RECORDED.items()])
    assert message == "winner shows no difference in speed at p95 (-22 … +253 %) and answers 90 % later at p50 (22 … 196)"


def test_a_confirmation_tells_every_percentile_of_its_latency() -> None:
    found = [finding(name, effect, 10.0) for name, effect in RECORDED.items()]
    assert "no difference shown at p95: +66.0 % (-22.0 … +253.2)" in confirmed(found, "voice_turn_ms.p50", "")[1]
    assert "worse at p50: +90.0 % (+21.9 … +196.1)" in confirmed(found, "voice_turn_ms.p95", "")[1]


def test_an_unknown_percentile_confirms_nothing() -> None:
    few = finding("voice_turn_ms.p95", Effect(-61.4, -84.7, -2.9, 1333.5, 3458.2, 3, 6, 0.9875))
    holds, why = confirmed([few], "voice_turn_ms.p95", "the budget ended")
    assert not holds
    assert why.startswith("not known whether it is better than the baseline: voice_turn_ms.p95 (6 turns: too few for p95, which takes 20)")


def test_three_clips_do_not_show_that_transcripts_are_no_worse() -> None:
    """Three clips without a difference were called `transcribes no worse`, however often they were repeated."""
    for n_rounds in (3, 12):
        found = transcribed(n_rounds, 3)
        assert found.verdict is ComparisonVerdict.UNKNOWN
        assert not found.not_worse
        assert not found.within_tolerance
        assert found.n == f"{n_rounds} rounds, {3 * n_rounds} turns, 21 words of 3 clips"
        message = sentence([finding("voice_turn_ms.p50", RECORDED["voice_turn_ms.p50"]), found])
        assert message.endswith("leaves open how it transcribes (21 words of 3 clips: too few for a tolerance of 0.01, which takes 299)")
        assert found.decided, "more rounds repeat the clips"


def failing(n_turns: int, n_failed: int = 0) -> Finding:
    """Rounds of four turns each, of which so many fail in our arm."""
    good, bad = turn(1.0, 1.0, 1.0, 1.0), Turn(error="llm_timeout")
    pairs = []
    for number in range(n_turns // 4):
        ours = tuple(bad if 4 * number + i < n_failed else good for i in range(4))
        pairs.append(Pair(Replicate("winner", number, ours), Replicate("baseline", number, (good,) * 4)))
    effect = effect_of(pairs, METRICS["failed_pct"], alpha=0.05)
    assert effect is not None
    return finding("failed_pct", effect, 0.5)


def test_few_turns_without_a_failure_do_not_show_that_failures_are_rare() -> None:
    """Twelve turns without a failure were a difference "within the tolerance" of half a point, with an interval of +0 to +0."""
    few = failing(12)
    assert (few.verdict, few.within_tolerance) == (ComparisonVerdict.UNKNOWN, False)
    assert few.text == "+0.0 % points (12 turns: too few for a tolerance of 0.5 % points, which takes 598)"
    assert few.record().text == "failed requests from 0 to 0 %, +0 % points (3 rounds, 12 turns: too few for a tolerance of 0.5, which takes 598)"
    assert few.decided, "it takes hundreds of turns to rule out rare failures: no comparison waits for that"
    one = failing(12, 1)
    assert one.verdict is ComparisonVerdict.UNKNOWN
    assert not one.decided, "a failure that has been seen is waited for"
    assert failing(12, 12).verdict is ComparisonVerdict.WORSE, "which is shown however few the turns"
    enough = failing(600)
    assert (enough.verdict, enough.within_tolerance, enough.decided) == (ComparisonVerdict.NO_DIFFERENCE, True, True)


@given(st.floats(1e-4, 0.5), st.sampled_from([0.01, 0.05, 0.1]))
def test_trials_without_an_event_rule_out_a_share_from_the_least_on(share: float, alpha: float) -> None:
    least = least_trials(share, alpha)
    assert (1.0 - share) ** least <= alpha * (1.0 + 1e-9)
    assert least == 1 or (1.0 - share) ** (least - 1) > alpha * (1.0 - 1e-9)


def test_enough_words_show_that_transcripts_are_no_worse() -> None:
    found = transcribed(3, 50)
    assert found.verdict is ComparisonVerdict.NO_DIFFERENCE
    assert found.not_worse
    assert "transcribes no worse" in sentence([finding("voice_turn_ms.p50", RECORDED["voice_turn_ms.p50"]), found])
    record = found.record().effect
    assert record is not None
    assert (record.n_words, record.n_clips, record.n_pairs) == (350, 50, 150)


def test_worse_transcripts_are_told_however_few_the_words() -> None:
    assert transcribed(4, 3, worse=True).verdict is ComparisonVerdict.WORSE


def test_words_of_old_artifacts_are_counted_without_their_clips() -> None:
    pair = Pair(Replicate("winner", 0, (turn(1, 1, 1, 1),)), Replicate("baseline", 0, (turn(1, 1, 1, 1),)))
    effect = effect_of([pair] * 3, METRICS["wer"], alpha=0.05)
    assert effect is not None
    assert (effect.n_words, effect.n_clips) == (30, None)


def test_the_table_has_n_beside_every_metric() -> None:
    pairs = rounds(0, 4, 6)
    found = [Finding(metric, effect_of(pairs, metric, alpha=0.05), 10.0) for metric in METRICS.values()]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(make_findings_table(found, "winner", "baseline"))
    rows = {line.split()[1]: line for line in console.export_text().splitlines() if "│" in line}
    assert all("4 rounds" in rows[each.metric.name] for each in found)
    assert "4 rounds, 24 turns" in rows["voice_turn_ms.p95"]
    assert "24 turns" not in rows["fitness"]


def test_a_deployment_of_three_turns_is_told_without_a_p95() -> None:
    turns = tuple(turn(1.0, 1.0, 1.0, ms) for ms in np.linspace(900.0, 1100.0, 25))
    assert describe_replicate(Replicate("winner", 0, turns[:3])) == "3 turns, p50 908 ms"
    assert describe_replicate(Replicate("winner", 0, turns)).startswith("25 turns, p50/p95 1000 / 1090 ms")
    assert describe_replicate(Replicate("winner", 0, ())) == "0 turns"
