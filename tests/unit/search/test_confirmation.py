"""What is measured again, and who is named as winner, under noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import f_oneway

from tune_gpu.config.schema import ParameterSpec, SearchSettings
from tune_gpu.search.confirmation import Confirmation
from tune_gpu.search.evaluations import Result
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Tournament


def observe(confirmation: Confirmation, name: str, *values: float, stderr: float | None = None) -> None:
    for value in values:
        confirmation.observe(name, {"name": name}, Result("ok", value, stderr=stderr, n_windows=1))


def test_a_lucky_evaluation_is_measured_again_and_does_not_win() -> None:
    confirmation = Confirmation()
    observe(confirmation, "good", 1.00, 1.04, 0.96, 1.02)
    observe(confirmation, "lucky", 1.02)
    observe(confirmation, "poor", 0.2, 0.22)
    assert confirmation.contenders()[0] == {"name": "lucky"}
    assert confirmation.winner() == {"name": "good"}
    observe(confirmation, "lucky", 0.7, 0.72, 0.71)
    assert confirmation.winner() == {"name": "good"}


EQUAL = [1.0, 1.02, 0.97, 1.01, 0.99, 1.03]


def test_what_differs_less_than_its_repetitions_is_no_signal() -> None:
    confirmation = Confirmation()
    for at, value in enumerate(EQUAL):
        observe(confirmation, str(at), value)
    assert not confirmation.no_signal, "nothing is known of the noise"
    observe(confirmation, "5", 0.9, 0.97)
    assert confirmation.no_signal
    observe(confirmation, "6", 0.2)
    assert not confirmation.no_signal, "one of them is another"


def test_equal_values_without_noise_are_not_flat_by_this_measure() -> None:
    confirmation = Confirmation()
    for name in "abc":
        observe(confirmation, name, 1.0, 1.0)
    assert not confirmation.no_signal


def test_what_evaluations_say_of_their_noise_may_be_what_all_share() -> None:
    confirmation = Confirmation()
    for at, value in enumerate(EQUAL):
        observe(confirmation, str(at), value, stderr=0.1)
    assert not confirmation.no_signal


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(-5.0, 5.0)), min_size=1, max_size=30))
def test_no_signal_is_the_f_test_of_scipy(measured: list[tuple[int, float]]) -> None:
    confirmation, groups = Confirmation(), dict[int, list[float]]()
    for at, value in measured:
        observe(confirmation, str(at), value)
        groups.setdefault(at, []).append(value)
    if confirmation.noisy:
        theirs = f_oneway(*groups.values())
        assert confirmation.no_signal == (theirs.pvalue > 0.8) or abs(theirs.pvalue - 0.8) < 1e-6


def test_absence_of_noise_is_known_only_from_an_agreeing_repetition() -> None:
    confirmation = Confirmation()
    observe(confirmation, "a", 0.1)
    observe(confirmation, "b", 0.3)
    assert not confirmation.noise_free
    observe(confirmation, "b", 0.3)
    assert confirmation.noise_free
    observe(confirmation, "a", 0.2)
    assert not confirmation.noise_free


def test_leader_without_noise_is_measured_twice_and_never_again() -> None:
    confirmation = Confirmation(probe_after=3)
    observe(confirmation, "a", 0.1)
    observe(confirmation, "b", 0.3)
    assert confirmation.contenders() == []
    observe(confirmation, "c", 0.2)
    assert confirmation.contenders()[0] == {"name": "b"}
    observe(confirmation, "b", 0.3)
    assert not confirmation.noisy
    assert confirmation.contenders() == []
    assert confirmation.winner() == {"name": "b"}


def test_reported_standard_errors_need_no_second_evaluation_to_be_believed() -> None:
    confirmation = Confirmation()
    observe(confirmation, "a", 1.0, stderr=0.1)
    observe(confirmation, "b", 1.05, stderr=0.1)
    assert confirmation.noise is not None
    assert 0.1 < confirmation.noise < 0.3, "what differs between deployments is not in a reported error"
    assert confirmation.contenders()[0] in ({"name": "a"}, {"name": "b"})


def test_a_leader_far_ahead_is_left_alone() -> None:
    confirmation = Confirmation()
    observe(confirmation, "a", 10.0, 10.1, 9.9, 10.05, 9.95)
    observe(confirmation, "b", 1.0, 1.1)
    assert confirmation.contenders() == []


def test_failures_say_nothing_here() -> None:
    confirmation = Confirmation()
    confirmation.observe("a", {}, Result("failed", violation=1.0))
    assert confirmation.winner() is None
    assert confirmation.contenders() == []


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-100, 100)), min_size=1, max_size=40))
def test_the_noise_is_the_pooled_deviation_within_configurations(measured: list[tuple[int, float]]) -> None:
    confirmation = Confirmation()
    groups: dict[int, list[float]] = {}
    for name, value in measured:
        observe(confirmation, str(name), value)
        groups.setdefault(name, []).append(value)
    freedom = sum(len(values) - 1 for values in groups.values())
    if freedom:
        squares = sum(float(np.var(values)) * len(values) for values in groups.values())
        assert confirmation.noise == pytest.approx((squares / freedom) ** 0.5, rel=1e-3, abs=1e-6)
    else:
        assert confirmation.noise is None


def test_under_noise_the_named_winner_is_close_to_the_best() -> None:
    """40 configurations, 10 % noise, each measured once and then 20 contenders: the named one is within 2 % of the best, in the median."""
    lost, luckiest = [], []
    for seed in range(40):
        rng, confirmation = np.random.default_rng(seed), Confirmation()
        true = 10.0 - rng.exponential(3.0, size=40)

        def measure(i: int, true: np.ndarray = true, rng: np.random.Generator = rng, confirmation: Confirmation = confirmation) -> float:
            value = float(true[i] * (1.0 + 0.1 * rng.normal()))
            confirmation.observe(i, {"i": i}, Result("ok", value, n_windows=1))
            return value

        first = [measure(i) for i in range(40)]
        for _ in range(20):
            if again := next(iter(confirmation.contenders()), None):
                measure(again["i"])
        winner = confirmation.winner()
        assert winner is not None
        lost.append(1.0 - true[winner["i"]] / true.max())
        luckiest.append(1.0 - true[int(np.argmax(first))] / true.max())
    assert float(np.median(lost)) <= 0.02
    assert float(np.mean(lost)) < float(np.mean(luckiest)), "better than the luckiest single evaluation"


def test_guided_search_repeats_its_elite_often_only_under_noise() -> None:
    def repeats(noise: float) -> int:
        space = SearchSpace.from_specs({f"x{i}": ParameterSpec(target="", values=list(range(8))) for i in range(3)})
        rng, again = np.random.default_rng(0), 0
        tournament = Tournament(space, SearchSettings(algorithm="rzero", generations=9))
        while (candidate := tournament.ask()) is not None:
            value = 10.0 - sum((v - 4) ** 2 for v in candidate.params.values()) / 5.0
            again += candidate.origin == "elite"
            tournament.tell(candidate.candidate_id, Result("ok", value * (1 + noise * rng.normal()), n_windows=1))
        return again

    assert repeats(0.1) >= 3
    assert repeats(0.0) == 1
