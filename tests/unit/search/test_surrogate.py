"""What the surrogates predict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from tune_gpu.search import priors
from tune_gpu.search.feasibility import Feasibility
from tune_gpu.search.forest import Forest
from tune_gpu.search.surrogate import GaussianProcess, log_expected_improvement
from tune_gpu.search.targets import normal_scores, power_scores

WITH_EITHER_PRIOR = pytest.mark.parametrize("prior", [priors.log_normal(np.arange(3)), priors.noisy(3)], ids=["log-normal", "noisy"])


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_scores_keep_the_order_and_only_the_order(values: list[float]) -> None:
    data = np.array(values)
    scores = normal_scores(data)
    order = np.argsort(data, kind="stable")
    assert (np.diff(scores[order]) >= 0).all()
    assert all((scores[i] == scores[j]) == (data[i] == data[j]) for i in range(len(data)) for j in range(len(data)))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_power_scores_keep_the_order_too_and_are_numbers(values: list[float]) -> None:
    data = np.array(values)
    scores = power_scores(data)
    order = np.argsort(data, kind="stable")
    assert np.isfinite(scores).all()
    assert (np.diff(scores[order]) >= 0).all()
    assert all((scores[i] == scores[j]) == (data[i] == data[j]) for i in range(len(data)) for j in range(len(data)))


def test_power_scores_are_without_skew_and_keep_distances() -> None:
    """They take the skew out, and say how near the best a value is."""
    values = -np.random.default_rng(0).lognormal(3.0, 1.5, 60)
    scores = power_scores(values)
    assert abs(stats.skew(scores)) < 0.25 * abs(stats.skew(values))
    assert (scores.mean(), scores.std()) == pytest.approx((0.0, 1.0), abs=1e-9)
    near = np.array([-5.0, -4.0, -3.0, -2.0, -1.0, -0.9])
    assert np.diff(power_scores(near))[-1] < 0.3 * np.diff(normal_scores(near))[-1], "ranks call the last two as far apart as any"


def _data(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).random((n, 3))
    return x, np.sin(5 * x[:, 0]) + 0.5 * x[:, 1]


@WITH_EITHER_PRIOR
def test_the_gradient_is_the_derivative_of_the_loss(prior: priors.Prior) -> None:
    x, y = _data(15)
    process = GaussianProcess(np.arange(3))
    process.prior = prior
    distances = np.stack([((x[:, None, i] - x[None, :, i]) ** 2).ravel() for i in range(3)])
    theta = np.array([-0.3, 0.2, 0.5, 0.1, -3.0])
    numeric = optimize.approx_fprime(theta, lambda t: process._loss(t, distances, y, np.ones(15))[0], 1e-6)
    assert process._loss(theta, distances, y, np.ones(15))[1] == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_the_process_predicts_what_it_has_not_seen_and_tells_what_matters() -> None:
    x, y = _data()
    process = GaussianProcess(np.arange(3))
    process.tune(x[:30], y[:30], np.ones(30), np.random.default_rng(0), max_iterations=50)
    process.condition(x[:30], y[:30], np.ones(30))
    mean, sd = process.predict(x[30:])
    assert np.corrcoef(mean, y[30:])[0, 1] > 0.95
    assert process.predict(x[:30])[1].mean() < sd.mean()
    assert process.length_scales[0] < process.length_scales[2]


@WITH_EITHER_PRIOR
def test_before_much_is_measured_no_parameter_is_taken_for_indifferent(prior: priors.Prior) -> None:
    """Three measurements of a constant say nothing: the length scales stay near the width of the space."""
    process = GaussianProcess(np.arange(3))
    process.prior = prior
    process.tune(_data(3)[0], np.zeros(3), np.ones(3), np.random.default_rng(0), max_iterations=50)
    assert (process.length_scales > 0.8).all()
    assert (process.length_scales < 4.0).all()


def test_noisy_prior_allows_short_and_long_scales_and_has_its_slope() -> None:
    """The prior under noise allows short and long length scales alike, and its slope is its derivative."""
    prior = priors.noisy(2)
    rest = [0.1, -3.0]
    assert prior(np.array([1.2, -0.4, *rest]))[0] == pytest.approx(prior(np.array([-1.2, 0.4, *rest]))[0])
    near, further, far = (prior(np.array([logarithm, 0.0, *rest]))[0] for logarithm in (0.0, 1.0, 2.0))
    assert near - further < 1.0 < further - far
    theta = np.array([0.7, -0.9, 0.4, -4.0])
    assert prior(theta)[1] == pytest.approx(optimize.approx_fprime(theta, lambda t: prior(t)[0], 1e-7), rel=1e-4)


def test_believed_rows_change_the_process_like_measured_ones() -> None:
    x, y = _data()
    process, conditioned = GaussianProcess(np.arange(3)), GaussianProcess(np.arange(3))
    repeats = np.array([1.0, 2.0, 3.0] * 7)[:20]
    process.condition(x[:20], y[:20], repeats)
    expected = process.predict(x[20:24])[0]
    process.believe(x[20:24])
    conditioned.condition(x[:24], np.concatenate([y[:20], expected]), np.concatenate([repeats, np.ones(4)]))
    assert np.array(process.predict(x)) == pytest.approx(np.array(conditioned.predict(x)), abs=1e-6)
    assert process.fitted == pytest.approx(conditioned.fitted, abs=1e-6)
    assert conditioned.fitted == pytest.approx(conditioned.predict(x[:24])[0], abs=1e-6)


def test_few_measurements_in_ten_dimensions_leave_the_process_unsure() -> None:
    """Three quarters of a bowl are within three standard deviations of what is predicted; with a prior made for hundreds of dimensions half are."""
    off = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.random((60, 10))
        value = -((x - 0.5) ** 2).sum(axis=1)
        y = (value - value[:10].mean()) / value[:10].std()
        process = GaussianProcess(np.arange(10))
        process.tune(x[:10], y[:10], np.ones(10), rng, max_iterations=30)
        process.condition(x[:10], y[:10], np.ones(10))
        mean, sd = process.predict(x[10:])
        off.append(np.abs(y[10:] - mean) / sd)
    assert np.mean(np.array(off) < 3.0) > 0.75


def test_a_repeated_measurement_is_trusted_more() -> None:
    x, y = np.array([[0.2], [0.8]]), np.array([1.0, -1.0])
    process = GaussianProcess(np.zeros(1, dtype=int))
    process.theta[-1] = 0.0
    process.condition(x, y, np.array([20.0, 1.0]))
    _, sd = process.predict(x)
    assert sd[0] < sd[1]


def test_the_forest_sees_a_jump() -> None:
    x = np.random.default_rng(0).random((60, 2))
    forest = Forest()
    forest.fit(x, (x[:, 0] > 0.5).astype(float), np.ones(60), seed=0)
    mean, sd = forest.predict(np.array([[0.1, 0.5], [0.9, 0.5]]))
    assert mean[0] < 0.2 < 0.8 < mean[1]
    assert (sd > 0).all()


@pytest.mark.parametrize("z", [-3.0, 0.0, 2.0])
def test_expected_improvement_is_the_integral_that_it_stands_for(z: float) -> None:
    wanted = integrate.quad(lambda v: max(0.0, v) * stats.norm.pdf(v, z, 1.0), -12, 12, points=[0.0])[0]
    assert np.exp(log_expected_improvement(np.array([z]), np.array([1.0]), 0.0))[0] == pytest.approx(wanted, rel=1e-5)


def test_expected_improvement_still_orders_the_hopeless() -> None:
    values = log_expected_improvement(np.array([-40.0, -20.0, -9.0, -7.0]), np.ones(4), 0.0)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()


def test_near_a_failure_success_is_less_likely() -> None:
    model = Feasibility()
    x = np.array([[0.1, 0.1], [0.9, 0.9]])
    model.learn(x, np.array([True, True]))
    assert model.log_probability(x).tolist() == [0.0, 0.0]
    model.learn(x, np.array([False, True]))
    near_failure, near_success = model.log_probability(x)
    assert near_failure < near_success


def test_failures_that_share_one_parameter_are_recognised() -> None:
    """However far apart they are."""
    rng = np.random.default_rng(0)
    x = rng.random((40, 6))
    model = Feasibility()
    model.learn(x, x[:, 2] < 0.5)
    far = rng.random((200, 6))
    runs = model.log_probability(far)
    assert np.mean(runs[far[:, 2] < 0.4]) > np.log(0.75)
    assert np.mean(runs[far[:, 2] > 0.6]) < np.log(0.5)
