"""The disturbance of the imbalance: short memory plus slow drift, and the filter that whitens it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseModel:
    """ARIMA(p, 1, 1) noise: an AR(p) process plus a random walk, per reading.

    A(z) (1 - z^-1) n = (1 - (1 - k) z^-1) eps, so that k = 0 is no drift at all.

    Parameters
    ----------
    ar : array, shape (p,)
        Coefficients of A(z) = 1 - sum ar_i z^-i.
    drift_pole_gap : float in [0, 1)
        k, one minus the moving-average zero.
    innovation_std : float
        Standard deviation of eps, in the unit of the data.

    Examples
    --------
    >>> model = NoiseModel(np.array([0.5]), 0.0, 1.0)
    >>> round(model.step_std, 3), model.drift_std, round(model.correlation_time, 2)
    (1.155, 0.0, 1.44)
    """

    ar: Array
    drift_pole_gap: float
    innovation_std: float

    @cached_property
    def whitener(self) -> tuple[Array, Array]:
        """Filter from noise to eps, as polynomials in z^-1.

        Returns
        -------
        numerator, denominator : array, shape (p + 1,) or (p + 2,), and (1,) or (2,)
            The longer ones with drift.
        """
        numerator = np.concatenate(([1.0], -self.ar))
        if self.drift_pole_gap == 0:
            return numerator, np.ones(1)
        return np.convolve(numerator, [1.0, -1.0]), np.array([1.0, self.drift_pole_gap - 1.0])

    def whiten(self, values: Array) -> Array:
        """The filter from noise to innovations, from rest, along the last axis.

        Parameters
        ----------
        values : array, shape (..., readings)
            In the unit of the data.

        Returns
        -------
        array, of the same shape
        """
        from scipy.signal import lfilter

        return np.asarray(lfilter(*self.whitener, values, axis=-1))

    def whiten_without_trend(self, values: Array) -> Array:
        """The same, with (whitened) level and trend projected out.

        Parameters
        ----------
        values : array, shape (..., readings)
            In the unit of the data.

        Returns
        -------
        array, of the same shape
        """
        slow, whitened = self.whiten(slow_terms(values.shape[-1])), self.whiten(values)
        return np.asarray(whitened - (whitened @ slow.T) @ np.linalg.solve(slow @ slow.T, slow))

    def whiten_adjoint(self, values: Array) -> Array:
        """Transpose of :meth:`whiten` as a matrix, along the last axis.

        Parameters
        ----------
        values : array, shape (..., readings)
            Any.

        Returns
        -------
        array, of the same shape
        """
        return self.whiten(values[..., ::-1])[..., ::-1]

    @property
    def step_std(self) -> float:
        """Standard deviation of the short-memory part, per reading."""
        from scipy.signal import lfilter

        impulse = np.zeros(2000)
        impulse[0] = 1.0
        response = lfilter([1.0], np.concatenate(([1.0], -self.ar)), impulse)
        return float(self.innovation_std * np.sqrt((response**2).sum()))

    @property
    def drift_std(self) -> float:
        """Standard deviation of the drift's increment per reading (random walk)."""
        return float(self.innovation_std * self.drift_pole_gap / (1.0 - self.ar.sum()))

    @property
    def correlation_time(self) -> float:
        """Readings after which the short-memory part has decayed to 1/e (slowest root of A)."""
        if self.ar.size == 0:
            return 0.0
        slowest = float(np.abs(np.roots(np.concatenate(([1.0], -self.ar)))).max())
        return -1.0 / math.log(slowest) if slowest > 0 else 0.0


def slow_terms(readings: int) -> Array:
    """Level and linear trend, which every fit removes.

    Parameters
    ----------
    readings : int, at least 1
        Length of the record.

    Returns
    -------
    array, shape (2, readings)
        Ones, and a line from -1 to 1.

    Examples
    --------
    >>> slow_terms(3).tolist()
    [[1.0, 1.0, 1.0], [-1.0, 0.0, 1.0]]
    """
    return np.stack([np.ones(readings), np.linspace(-1.0, 1.0, readings)])


def fit_noise(residual: Array, max_order: int = 6) -> NoiseModel:
    """Fit the noise model, by restricted likelihood.

    The order p and the drift are chosen by the Bayesian information criterion and by the
    likelihood of what is left once level and trend are projected out (restricted likelihood,
    Patterson and Thompson, Biometrika 58, 1971). The plain likelihood finds too little drift, and
    intervals built on it are too short for slow plants.

    Parameters
    ----------
    residual : array, shape (readings,)
        Noise, or data in which everything else is small.
    max_order : int
        Largest p.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> from scipy.signal import lfilter
    >>> noise = lfilter([1.0], [1.0, -0.4], 0.5 * rng.standard_normal(20_000))
    >>> model = fit_noise(noise + np.cumsum(0.01 * rng.standard_normal(20_000)))
    >>> model.ar.round(2), round(model.innovation_std, 2), round(model.drift_std, 3)
    (array([0.4]), 0.5, 0.012)
    """
    n = residual.size
    values = residual - residual[:20].mean()
    gaps = np.geomspace(2.0 / n, 0.3, 9)
    scores = [_score(values, gap, max_order) for gap in gaps]
    best = int(np.argmin([score for score, _, _ in scores]))
    (least, ar, variance), x = scores[best], float(np.log(gaps[best]))
    step = float(np.log(gaps[1] / gaps[0]))
    for _ in range(4):
        step /= 2
        for candidate in (x - step, x + step):
            trial = _score(values, float(np.exp(candidate)), max_order)
            if trial[0] < least:
                (least, ar, variance), x = trial, candidate
                break
    return NoiseModel(ar, float(np.exp(x)), float(np.sqrt(variance)))


def _score(values: Array, gap: float, max_order: int) -> tuple[float, Array, float]:
    """Criterion (smaller is better), AR coefficients and innovation variance for one drift.

    The criterion is twice the negative restricted log-likelihood, up to a constant.
    """
    n = values.size
    high_pass = NoiseModel(np.zeros(0), gap, 1.0)
    noise, slow = high_pass.whiten_without_trend(values), high_pass.whiten(slow_terms(n))
    covariance = np.array([noise[: n - j] @ noise[j:] / n for j in range(max_order + 1)])
    ar, variance = _best_ar(covariance, n)
    # Whitened, the slow terms are A(1) times as large; their determinant is what restricted
    # likelihood adds to the plain one.
    log_det = float(np.linalg.slogdet(slow @ slow.T)[1]) + 4.0 * np.log(1.0 - ar.sum())
    score = (n - 2) * np.log(variance) + log_det + ar.size * np.log(n)
    return score, ar, variance * n / (n - 2 - ar.size)


def _best_ar(covariance: Array, n: int) -> tuple[Array, float]:
    """Yule and Walker's coefficients, and what they leave, of the order that the criterion likes."""
    from scipy.linalg import solve_toeplitz

    fits = [(np.zeros(0), float(covariance[0]))]
    for order in range(1, covariance.size):
        ar = solve_toeplitz(covariance[:order], covariance[1 : order + 1])
        fits.append((ar, float(covariance[0] - ar @ covariance[1 : order + 1])))
    return min(fits, key=lambda fit: n * math.log(fit[1]) + fit[0].size * math.log(n))
