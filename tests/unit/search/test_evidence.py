"""The model of a run's measurements: what it must keep to, whatever the measurements are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_gpu.search.evidence import Deployment, Evidence

values = st.floats(-10.0, 10.0).map(lambda value: round(value, 6))
errors = st.floats(0.01, 5.0)
deployments = st.builds(Deployment, st.integers(0, 5), values, errors, st.sampled_from([2.0, 5.0, math.inf]), st.floats(0.0, 100.0))
runs = st.lists(deployments, min_size=1, max_size=25)


def near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


@given(runs, st.randoms(use_true_random=False))
def test_the_order_of_the_deployments_does_not_count(run: list[Deployment], rng: object) -> None:
    shuffled = list(run)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Evidence(run), Evidence(shuffled)
    for key in one.keys:
        a, b = one.estimate(key), other.estimate(key)
        assert near(a.mean, b.mean)
        assert near(a.stderr, b.stderr)


@pytest.mark.parametrize("scale", [1e-250, 1e-3, 1e3, 1e250])
@given(run=runs)
@settings(max_examples=25)
def test_a_change_of_unit_changes_nothing_but_the_unit(run: list[Deployment], scale: float) -> None:
    scaled = Evidence(replace(each, value=each.value * scale, stderr=(each.stderr or 0.0) * scale) for each in run)
    plain = Evidence(run)
    for key in plain.keys:
        a, b = plain.prediction(key), scaled.prediction(key)
        assert near(a.mean, b.mean / scale)
        assert near(a.stderr, b.stderr / scale)
        assert near(a.freedom, b.freedom)


@given(runs)
def test_a_comparison_seen_from_the_other_side_is_its_opposite(run: list[Deployment]) -> None:
    evidence = Evidence(run)
    for a in evidence.keys:
        for b in evidence.keys:
            one, other = evidence.difference(a, b), evidence.difference(b, a)
            assert near(one.mean, -other.mean)
            assert near(one.stderr, other.stderr)
            assert evidence.differ(a, b) == evidence.differ(b, a)
        assert not evidence.differ(a, a)


@given(runs)
def test_the_next_deployment_is_less_certain_than_the_mean(run: list[Deployment]) -> None:
    evidence = Evidence(run)
    for key in evidence.keys:
        assert evidence.prediction(key).stderr > evidence.estimate(key).stderr > 0.0


@given(runs, st.integers(0, 5))
def test_the_best_of_the_ranking_is_never_told_apart_as_worse(run: list[Deployment], at: int) -> None:
    evidence = Evidence(run)
    best = evidence.ranked()[0]
    other = evidence.keys[at % len(evidence.keys)]
    assert evidence.difference(best, other).mean >= -1e-9
    assert evidence.estimate(best).mean == max(evidence.estimates.means)


@given(st.lists(st.tuples(values, errors), min_size=3, max_size=12))
def test_what_is_nearer_and_less_certain_is_tied_if_the_other_is(once: list[tuple[float, float]]) -> None:
    """The report told 0.615 ± 0.020 apart from the best and not 0.505 ± 0.047: ranks and ties must use one error."""
    evidence = Evidence(Deployment(i, value, error) for i, (value, error) in enumerate(once))
    best = int(str(evidence.ranked()[0]))
    tied = set(evidence.tied_with(best))
    for far in tied:
        for i, (value, error) in enumerate(once):
            if i != best and value >= once[int(str(far))][0] and error >= once[int(str(far))][1]:
                assert i in tied


def test_one_deployment_carries_the_spread_that_repeats_of_others_show() -> None:
    quiet = [Deployment("a", 1.0, 0.01), Deployment("b", 1.0, 0.01), Deployment("b", 1.001, 0.01), Deployment("b", 0.999, 0.01)]
    loud = [Deployment("a", 1.0, 0.01), Deployment("b", 1.0, 0.01), Deployment("b", 1.5, 0.01), Deployment("b", 0.5, 0.01)]
    assert Evidence(loud).estimate("a").stderr > 10.0 * Evidence(quiet).estimate("a").stderr > 0.1


def test_without_repeats_the_error_is_the_priors() -> None:
    found = Evidence([Deployment("a", 1.0, 0.01), Deployment("b", 1.1, 0.01)])
    assert 1.5 < found.estimate("a").stderr / 0.01 < 3.0
    assert found.estimate("a").freedom < 5.0


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), min_size=1, max_size=12), st.sampled_from([0.0, None]))
def test_without_noise_values_are_kept_to_the_bit(pairs: list[tuple[int, float]], error: float | None) -> None:
    known = dict(pairs)
    repeats = [key for key, _ in pairs]
    evidence = Evidence(Deployment(key, known[key], error) for key in [*repeats, repeats[0], repeats[0]])
    assert evidence.noise_free
    for key in evidence.keys:
        found = evidence.estimate(key)
        assert (found.mean, found.stderr) == (known[int(str(key))], 0.0)
        assert evidence.prediction(key).interval() == (found.mean, found.mean)
    best = evidence.ranked()[0]
    assert {key for key in evidence.keys if known[int(str(key))] == known[int(str(best))]} == {best, *evidence.tied_with(best)}


def test_nothing_is_claimed_where_nothing_is_known_of_the_noise() -> None:
    evidence = Evidence([Deployment("a", 1.0), Deployment("b", 9.0)])
    assert not evidence.known
    assert evidence.estimate("a").stderr == math.inf
    assert evidence.tied_with("b") == ["a"]
    assert evidence.ranked() == ["b", "a"]


def test_no_evidence_has_no_keys() -> None:
    assert Evidence([]).ranked() == []


@pytest.mark.parametrize("wrong", [{"value": math.nan}, {"stderr": -1.0}, {"stderr": math.inf}, {"at": math.inf}, {"freedom": 0.0}])
def test_a_deployment_that_is_no_measurement_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not a result"):
        replace(Deployment("a", 1.0, 0.1), **wrong)  # type: ignore[arg-type]


def anchored(anchors: int, drift: float) -> Evidence:
    """Anchors over the whole run; `early` and `late` are equal, but for the drift between them."""
    rng = np.random.default_rng(1)
    times = np.linspace(0.0, 10.0, anchors)
    measured: Callable[[float], float] = lambda at: 5.0 + drift * at + float(rng.normal(0.0, 0.01))  # noqa: E731
    run = [Deployment("base", measured(at), 0.01, at=at, anchor=True) for at in times]
    return Evidence([*run, Deployment("early", measured(0.5), 0.01, at=0.5), Deployment("late", measured(9.5), 0.01, at=9.5)])


def test_four_anchors_take_the_drift_out() -> None:
    evidence = anchored(4, 0.1)
    assert evidence.drift is not None
    assert evidence.drift.mean == pytest.approx(0.1, abs=0.01)
    assert not evidence.differ("early", "late")
    assert abs(evidence.difference("early", "late").mean) < 0.1
    assert evidence.prediction("base", 10.0).mean - evidence.prediction("base", 0.0).mean == pytest.approx(1.0, abs=0.1)


def test_drift_seen_by_fewer_anchors_only_widens_the_intervals() -> None:
    drifting, steady = anchored(3, 0.1), anchored(3, 0.0)
    assert drifting.drift is None
    assert drifting.difference("late", "early").mean == pytest.approx(0.9, abs=0.05)
    assert drifting.estimate("late").stderr > 5.0 * steady.estimate("late").stderr
    assert not drifting.differ("early", "late")


def test_an_error_from_few_windows_has_heavier_tails() -> None:
    def of(freedom: float) -> Evidence:
        return Evidence(Deployment(key, float(i % 2), 1.0, freedom) for i, key in enumerate("aabbccddeeff"))

    assert of(2.0).estimate("a").freedom < of(math.inf).estimate("a").freedom
    assert of(2.0).estimate("a").stderr == of(math.inf).estimate("a").stderr


def test_the_intervals_of_a_plain_anova_come_out_of_many_repeats() -> None:
    """With errors of no account and many repeats the pooled variance decides, as in Fisher's analysis of variance."""
    rng = np.random.default_rng(2)
    data = {key: rng.normal(key, 1.0, 40) for key in range(4)}
    evidence = Evidence(Deployment(key, float(value), 1e-4) for key, sample in data.items() for value in sample)
    pooled = math.sqrt(np.mean([sample.var(ddof=1) for sample in data.values()]))
    found = evidence.estimate(2)
    assert found.stderr == pytest.approx(pooled / math.sqrt(40), rel=0.02)
    assert found.freedom == pytest.approx(156, rel=0.05)
    assert evidence.between == pytest.approx(pooled, rel=0.02)


def test_a_mean_leans_on_the_deployment_that_is_known_better() -> None:
    evidence = Evidence([Deployment("a", 0.6, 0.002), Deployment("a", 0.3, 0.2), Deployment("b", 0.6, 0.002)])
    assert evidence.estimate("a").mean > 0.55


def test_clips_that_both_hear_alike_do_not_blur_a_difference() -> None:
    same, other = {"a": 0.05, "b": -0.02, "c": -0.03}, {"a": -0.04, "b": 0.06, "c": -0.02}
    run = [Deployment("x", 0.60, 0.001, clips=same), Deployment("y", 0.65, 0.001, clips=same), Deployment("z", 0.65, 0.001, clips=other)]
    plain = Evidence([replace(each, clips={}) for each in run])
    evidence = Evidence(run)
    assert near(evidence.difference("y", "x").stderr, plain.difference("y", "x").stderr)
    apart = math.dist(same.values(), other.values())
    assert evidence.difference("z", "x").stderr == pytest.approx(math.hypot(apart, plain.difference("z", "x").stderr), rel=0.05)
    assert evidence.estimate("x").stderr > math.hypot(*same.values()) > plain.estimate("x").stderr
    assert near(evidence.prediction("x").stderr, plain.prediction("x").stderr), "the next deployment hears the same clips"


def test_clips_doubt_a_measurement_that_has_no_other_noise() -> None:
    run = [Deployment("x", 0.60, 0.0, clips={"a": 0.1, "b": -0.1}), Deployment("y", 0.65, 0.0, clips={"a": -0.1, "b": 0.1})]
    evidence = Evidence(run)
    assert evidence.noise_free
    assert evidence.prediction("x").stderr == 0.0
    assert near(evidence.estimate("x").stderr, math.hypot(0.1, 0.1))
    assert evidence.tied_with("y") == ["x"]
