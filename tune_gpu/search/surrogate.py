"""A Gaussian process that predicts the measurement of a configuration, with its uncertainty.

It has a Matérn 5/2 kernel with one length scale per parameter, and is fitted by maximum a posteriori with analytic gradients (Rasmussen and
Williams 2006, ch. 4 and 5). `priors.py` has its priors, and `targets.py` the values that it is fitted to.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, special

from tune_gpu.search import priors

Array = NDArray[np.float64]
_SQRT5 = math.sqrt(5.0)
_FIT_ROWS = 128
_JITTER = 1e-8


class GaussianProcess:
    """A Gaussian process: `tune` sets its hyperparameters, `condition` its measurements, and `predict` applies it.

    Args:
        groups: feature column -> parameter. The columns of a parameter share a length scale.
    """

    def __init__(self, groups: NDArray[np.int64]) -> None:
        self._groups = groups
        self._n = int(groups.max()) + 1
        self.theta = np.concatenate([np.zeros(self._n), [0.0, math.log(1e-2)]])
        """Logarithms of the length scales, the signal variance, and the noise variance of one evaluation."""
        self.prior = priors.log_normal(groups)
        """Prior of `theta`, used by `tune`."""

    @property
    def length_scales(self) -> Array:
        """Return one length scale per parameter. A parameter with a large one hardly matters."""
        return np.asarray(np.exp(self.theta[: self._n]))

    def tune(self, x: Array, y: Array, repeats: Array, rng: np.random.Generator, max_iterations: int) -> None:
        """Set `theta` to its maximum a posteriori, starting from its present value. Use at most 128 of the rows, including the best
        ones."""
        if len(x) > _FIT_ROWS:
            order = np.argsort(-y, kind="stable")
            chosen = np.concatenate([order[: _FIT_ROWS // 2], rng.choice(order[_FIT_ROWS // 2:], _FIT_ROWS // 2, replace=False)])
            x, y, repeats = x[chosen], y[chosen], repeats[chosen]
        distances = np.stack([_squared(x[:, self._groups == i]) for i in range(self._n)]).reshape(self._n, -1)
        bounds = [(math.log(0.05), math.log(50.0))] * self._n + [(math.log(0.1), math.log(10.0)), (math.log(1e-5), math.log(1.0))]
        found = optimize.minimize(
            self._loss, self.theta, args=(distances, y, repeats), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": max_iterations, "maxfun": 2 * max_iterations})
        if np.isfinite(found.x).all():
            self.theta = found.x

    def _loss(self, theta: Array, distances: Array, y: Array, repeats: Array) -> tuple[float, Array]:
        n = len(y)
        inverse_squares = np.exp(-2.0 * theta[: self._n])
        signal, noise = np.exp(theta[self._n]), np.exp(theta[self._n + 1])
        r = np.sqrt(inverse_squares @ distances).reshape(n, n)
        decay = np.exp(-_SQRT5 * r)
        kernel = signal * (1.0 + _SQRT5 * r + 5.0 / 3.0 * r * r) * decay
        full = kernel + np.diag(noise / repeats + _JITTER)
        try:
            factor = linalg.cholesky(full, lower=True, check_finite=False)
        except linalg.LinAlgError:
            return 1e25, np.zeros_like(theta)
        inverse = linalg.lapack.dpotri(factor, lower=1)[0]
        inverse = inverse + np.tril(inverse, -1).T
        alpha = inverse @ y
        weight = np.outer(alpha, alpha) - inverse
        slope = signal * (5.0 / 3.0) * (1.0 + _SQRT5 * r) * decay
        gradient = np.empty_like(theta)
        gradient[: self._n] = 0.5 * (distances @ (weight * slope).ravel()) * inverse_squares
        gradient[self._n] = 0.5 * np.sum(weight * kernel)
        gradient[self._n + 1] = 0.5 * np.sum(np.diag(weight) * noise / repeats)
        log_likelihood = -0.5 * y @ alpha - np.log(np.diag(factor)).sum()
        prior, slope_of_prior = self.prior(theta)
        return -(log_likelihood + prior), -(gradient + slope_of_prior)

    def condition(self, x: Array, y: Array, repeats: Array) -> None:
        """Condition the process on these measurements, with the present `theta`."""
        self._scale = 1.0 / self.length_scales[self._groups]
        self._signal = float(np.exp(self.theta[self._n]))
        self._x = x * self._scale
        self._noise = float(np.exp(self.theta[self._n + 1]))
        nugget = self._noise / repeats + _JITTER
        self._whiten = _inverse_factor(self._kernel(self._x, self._x) + np.diag(nugget))
        self._alpha = self._whiten.T @ (self._whiten @ y)
        self.fitted = y - nugget * self._alpha
        """The mean at each of these rows: K alpha, as (K + nugget) alpha = y."""
        left_out = self._alpha / np.einsum("ij,ij->j", self._whiten, self._whiten)
        self.error = float(np.mean(left_out**2))
        """Mean squared error of predicting each measurement from the others (Rasmussen and Williams 2006, 5.4.2)."""

    def believe(self, x: Array) -> None:
        """Condition as if each of these rows had been measured once with its predicted value. Only the uncertainty changes (the kriging
        believer of Ginsbourger et al. 2010)."""
        rows = x * self._scale
        cross = self._kernel(rows, self._x)
        white = self._whiten @ cross.T
        corner = _inverse_factor(self._kernel(rows, rows) + (self._noise + _JITTER) * np.eye(len(rows)) - white.T @ white)
        n, more = len(self._x), len(rows)
        whiten = np.zeros((n + more, n + more), order="F")
        whiten[:n, :n], whiten[n:, n:], whiten[n:, :n] = self._whiten, corner, -corner @ (white.T @ self._whiten)
        self.fitted = np.concatenate([self.fitted, cross @ self._alpha])
        self._x, self._whiten, self._alpha = np.concatenate([self._x, rows]), whiten, np.concatenate([self._alpha, np.zeros(more)])

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return the mean and the standard deviation (of the noise-free value) at each row."""
        cross = self._kernel(x * self._scale, self._x)
        white = linalg.blas.dtrmm(1.0, self._whiten, cross.T, lower=1).T  # the matrix is triangular, which needs half the work of a full product
        explained = np.einsum("ij,ij->i", white, white)
        return cross @ self._alpha, np.sqrt(np.maximum(self._signal - explained, 1e-12))

    def _kernel(self, x: Array, z: Array) -> Array:
        square = x @ (-2.0 * z.T)
        square += (x * x).sum(1)[:, None]
        square += (z * z).sum(1)[None, :]
        np.maximum(square, 0.0, out=square)
        r = np.sqrt(5.0 * square)
        square *= 5.0 / 3.0
        square += r
        square += 1.0
        np.negative(r, out=r)
        square *= np.exp(r, out=r)
        square *= self._signal
        return square


def _inverse_factor(covariance: Array) -> Array:
    """Return the inverse of the covariance's Cholesky factor (lower, in Fortran's order)."""
    return np.asarray(linalg.lapack.dtrtri(linalg.cholesky(covariance, lower=True, check_finite=False), lower=1)[0])


def _squared(columns: Array) -> Array:
    return np.asarray(((columns[:, None, :] - columns[None, :, :]) ** 2).sum(axis=2))


def log_expected_improvement(mean: Array, sd: Array, best: float) -> Array:
    """Return the logarithm of E[max(0, value - best)] (Jones et al. 1998), stable far below `best` (Ament et al. 2023)."""
    z = (mean - best) / sd
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.log(np.maximum(np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) + z * special.ndtr(z), 1e-300))
        # h(z) = phi(z) + z Phi(z) ~ phi(z) / z^2 for z -> -inf
        far = -0.5 * z * z - 0.5 * math.log(2.0 * math.pi) - 2.0 * np.log(np.maximum(-z, 1e-9))
    return np.asarray(np.log(sd) + np.where(z > -8.0, near, far))
