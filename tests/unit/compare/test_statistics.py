"""An interval says what it promises: equal arms differ in the nominal share of comparisons only, looks included; real differences are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.traffic import rounds, turn
from tune_gpu.compare.bootstrap import effect_of, rounds_resampled, turns_resampled
from tune_gpu.compare.metrics import ComparedMetric, percentile_of, standard_metrics
from tune_gpu.compare.samples import Pair, Replicate, Turn, pairs_of
from tune_gpu.compare.sequential import final_alpha, interim_alpha, order_of_round
from tune_gpu.compare.verdict import ComparisonVerdict, Finding

ALPHA = 0.05
CLAIMS = (ComparisonVerdict.BETTER, ComparisonVerdict.WORSE)
METRICS = standard_metrics(95)
P95 = METRICS[0]
WATCHED = [P95, *(metric for metric in METRICS if metric.name in ("wer", "capacity", "fitness"))]


def claims(pairs: list[Pair], metric: ComparedMetric, alpha: float) -> ComparisonVerdict:
    return Finding(metric, effect_of(pairs, metric, alpha=alpha, resamples=200), 0.0).verdict


def test_equal_arms_differ_in_the_nominal_share_of_comparisons_only() -> None:
    n = 120
    for n_rounds, turns in ((8, 3), (6, 5)):
        found = [[claims(rounds(seed, n_rounds, turns), metric, ALPHA) for metric in WATCHED] for seed in range(n)]
        for column, metric in enumerate(WATCHED):
            share = np.mean([row[column] in CLAIMS for row in found])
            assert share <= ALPHA + 2.5 * (ALPHA * (1 - ALPHA) / n) ** 0.5, (metric.name, n_rounds, share)


def test_looking_after_every_round_claims_no_more() -> None:
    n, fooled = 150, 0
    fitness = METRICS[-1]
    for seed in range(n):
        pairs = rounds(1000 + seed, 8, 2)
        looks = [claims(pairs[:upto], fitness, interim_alpha(look, ALPHA)) for look, upto in enumerate(range(3, 8), 1)]
        looks.append(claims(pairs, fitness, final_alpha(5, ALPHA)))
        fooled += any(verdict is not ComparisonVerdict.NO_DIFFERENCE for verdict in looks)
    assert fooled / n <= ALPHA + 2.5 * (ALPHA * (1 - ALPHA) / n) ** 0.5, fooled


def test_a_real_difference_is_found_and_measured() -> None:
    found = [effect_of(rounds(seed, 8, 12, speed=0.6), P95, alpha=ALPHA) for seed in range(40)]
    assert sum(effect is not None and effect.high is not None and effect.high < 0 for effect in found) >= 36
    assert np.median([effect.estimate for effect in found if effect]) == pytest.approx(-40, abs=4)


def test_the_interval_covers_the_truth_as_often_as_promised() -> None:
    covered = 0
    for seed in range(120):
        effect = effect_of(rounds(seed, 6, 5, speed=0.7), METRICS[1], alpha=ALPHA, resamples=200)
        assert effect is not None
        assert effect.low is not None
        assert effect.high is not None
        covered += effect.low <= -30.0 <= effect.high
    assert covered >= 108


@given(seed=st.integers(0, 10_000), n=st.integers(2, 6), turns=st.integers(1, 6), speed=st.floats(0.5, 2.0))
@settings(max_examples=20, deadline=None)
def test_who_is_called_ours_decides_the_sign_and_nothing_else(seed: int, n: int, turns: int, speed: float) -> None:
    pairs = rounds(seed, n, turns, speed=speed)
    swapped = [Pair(pair.theirs, pair.ours) for pair in pairs]
    opposite = {verdict: verdict for verdict in ComparisonVerdict} | dict(zip(CLAIMS, reversed(CLAIMS), strict=True))
    for metric in METRICS:
        one, other = (effect_of(side, metric, alpha=ALPHA, resamples=100) for side in (pairs, swapped))
        assert one is not None
        assert other is not None
        if metric.relative:
            assert (1 + one.estimate / 100) * (1 + other.estimate / 100) == pytest.approx(1.0)
        else:
            assert one.estimate == pytest.approx(-other.estimate, abs=1e-12)
        assert Finding(metric, one, 0.0).verdict is opposite[Finding(metric, other, 0.0).verdict]


@given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 100.0))
@settings(max_examples=30, deadline=None)
def test_a_faster_clock_changes_no_percentage(seed: int, factor: float) -> None:
    pairs = rounds(seed, 4, 4, speed=0.8)

    def scaled(replicate: Replicate) -> Replicate:
        return replace(replicate, turns=tuple(replace(turn, values={key: (value or 0.0) * factor for key, value in turn.values.items()}) for turn in replicate.turns))

    one = effect_of(pairs, P95, alpha=ALPHA)
    other = effect_of([Pair(scaled(pair.ours), scaled(pair.theirs)) for pair in pairs], P95, alpha=ALPHA)
    assert one is not None
    assert other is not None
    assert (one.estimate, one.low, one.high) == pytest.approx((other.estimate, other.low, other.high), rel=1e-6)


@given(seed=st.integers(0, 10_000), n=st.integers(3, 6))
@settings(max_examples=30, deadline=None)
def test_arms_that_are_the_same_deployment_do_not_differ_at_all(seed: int, n: int) -> None:
    pairs = [Pair(pair.ours, pair.ours) for pair in rounds(seed, n, 3)]
    for metric in METRICS:
        effect = effect_of(pairs, metric, alpha=ALPHA, resamples=50)
        assert effect is not None
        assert (effect.estimate, effect.low, effect.high) == (0.0, 0.0, 0.0)


@given(alpha=st.floats(0.001, 0.5), looks=st.integers(0, 50))
def test_all_looks_together_spend_what_is_allowed(alpha: float, looks: int) -> None:
    spent = sum(interim_alpha(look, alpha) for look in range(1, looks + 1))
    assert spent + final_alpha(looks, alpha) == pytest.approx(alpha)
    assert final_alpha(looks, alpha) >= alpha / 2


@given(arms=st.integers(2, 5), seed=st.integers(0, 1000), number=st.integers(0, 20))
def test_every_second_round_is_the_one_before_in_reverse(arms: int, seed: int, number: int) -> None:
    names = [f"arm-{i}" for i in range(arms)]
    first, second = order_of_round(names, 2 * number, seed), order_of_round(names, 2 * number + 1, seed)
    assert sorted(first) == sorted(names)
    assert second == first[::-1]


def test_the_seed_decides_who_begins() -> None:
    assert {tuple(order_of_round(["a", "b"], 0, seed)) for seed in range(20)} == {("a", "b"), ("b", "a")}


@given(
    values=st.lists(st.floats(0.1, 1e4), min_size=1, max_size=12),
    percentile=st.sampled_from([50.0, 90.0, 95.0, 99.0]),
    seed=st.integers(0, 1000),
)
def test_a_percentile_from_counts_is_the_percentile_of_the_resample(values: list[float], percentile: float, seed: int) -> None:
    sample = np.asarray(values)
    for counts in (turns_resampled([len(values)], 3, np.random.default_rng(seed)), np.ones((1, len(values)), dtype=np.int64)):
        expected = [np.percentile(np.repeat(sample, row), percentile) for row in counts]
        assert percentile_of(sample, counts, percentile) == pytest.approx(expected)


def test_rounds_are_drawn_whole() -> None:
    counts = rounds_resampled([2, 3], 50, np.random.default_rng(0))
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 2] == counts[:, 4]).all()
    assert (counts[:, 0] + counts[:, 2] == 2).all()


def test_a_turn_that_failed_in_one_arm_is_no_latency_pair() -> None:
    """It counts as a failure of that arm."""
    good = turn(100.0, 10.0, 50.0, 110.0, 0, 5)
    pair = Pair(Replicate("a", 0, (good, Turn(error="stt_timeout"), good)), Replicate("b", 0, (good, good, good)))
    ours, theirs = P95.rows([pair])[0]
    assert len(ours) == len(theirs) == 2
    effect = effect_of([pair], next(m for m in METRICS if m.name == "failed_pct"), alpha=ALPHA)
    assert effect is not None
    assert effect.ours == pytest.approx(100 / 3)
    assert effect.theirs == 0.0
    assert effect.low is None, "one round has no spread"


def test_a_round_counts_only_if_both_arms_were_measured_in_it() -> None:
    alike = turn(1.0, 1.0, 1.0, 1.0, 0, 1)
    replicates = [Replicate("a", 0, (alike,)), Replicate("b", 0, failure={"kind": "oom"}), Replicate("b", 1, (alike,)), Replicate("a", 1, (alike,))]
    assert [pair.ours.round for pair in pairs_of(replicates, "a", "b")] == [1]


def test_two_capacities_at_the_ramps_end_are_not_compared() -> None:
    """"At least 4" beside "at least 4" is neither a difference nor its absence."""
    capacity = next(metric for metric in METRICS if metric.name == "capacity")

    def pair(number: int, ours: bool, theirs: bool) -> Pair:
        replicates = [Replicate(arm, number, capacity=value, capacity_at_ceiling=at) for arm, value, at in (("a", 4.0, ours), ("b", 4.0 if theirs else 2.5, theirs))]
        return Pair(*replicates)

    assert effect_of([pair(number, True, True) for number in range(4)], capacity, alpha=ALPHA) is None
    one = effect_of([pair(number, True, False) for number in range(4)], capacity, alpha=ALPHA)
    assert one is not None
    assert one.estimate == pytest.approx(1.5)
    assert Replicate.from_dict(pair(0, True, True).ours.as_dict()).capacity_at_ceiling
