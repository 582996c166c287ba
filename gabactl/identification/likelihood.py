"""Confidence intervals for the plant, by profile likelihood with simulated critical values.

The usual chi-squared value fails here: at rho = 0 the lag and the delay mean nothing, so the best
of many lags is compared with none, and near 0 they are barely known (R. B. Davies, Biometrika 64,
1977). So each hypothesis rho = rho_0 is tested against the distribution its own statistic has
under it, simulated with the lag and delay that fit best under it (B. E. Hansen, Econometrica 64,
1996). After whitening and projection the model is q_y = rho q_x(a, delay) + N(0, I) in about ten
dimensions, so that a simulation is a few small matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.identification.output_error import OutputErrorFit

Array = NDArray[np.float64]

_POINTS = 32
#: Hypotheses this much worse than the best are nowhere near any interval.
_IRRELEVANT = 25.0


class ProfileLikelihood:
    """The concentrated likelihood of a fit, and the intervals read off it.

    Parameters
    ----------
    fit : OutputErrorFit
        From :func:`gabactl.identification.output_error.fit_output_error`.
    draws : int
        Simulated data sets per hypothesis.
    seed : int
        For the simulation.
    level : float in (0, 1)
        Confidence level.

    Raises
    ------
    InputError
        Too few draws for the level.

    Examples
    --------
    >>> from gabactl.identification.output_error import fit_output_error
    >>> from gabactl.identification.synthetic import simulate_excited
    >>> run = simulate_excited(rho=-2.0, a=0.8, steps=3000, seed=2).run(0)
    >>> low, high = ProfileLikelihood(fit_output_error(run, 50.0, 5), seed=0).rho_interval()
    >>> low < -2.0 < high
    True
    """

    def __init__(
        self, fit: OutputErrorFit, *, draws: int = 399, seed: int = 0, level: float = 0.95
    ) -> None:
        from scipy.interpolate import CubicSpline
        from scipy.special import ndtri

        if draws < 1.0 / (1.0 - level) - 1.0:
            raise InputError(
                f"draws = {draws} cannot show a level of {level:g}: give at least "
                f"{math.ceil(1.0 / (1.0 - level))}, better ten times as many"
            )
        self._level = level
        self._chi2 = float(ndtri(0.5 + 0.5 * level) ** 2)
        spline = CubicSpline(fit.nodes, fit.regressors, axis=1)
        self._s, self._delays, self._q = _candidates(spline, fit)
        self._gram = self._q @ self._q.T
        self._power = np.diag(self._gram).copy()
        self._cross = self._q @ fit.response
        self._best = (self._cross**2 / self._power).max()
        noise = np.random.default_rng(seed).standard_normal((draws, fit.response.size))
        self._noise = noise @ self._q.T

    def rho_interval(self) -> tuple[float, float]:
        """Interval for rho, whatever the lag and delay."""

        def critical(rho: float, candidate: int) -> float:
            cross = rho * self._gram[candidate] + self._noise
            free = (cross**2 / self._power).max(1)
            fixed = (rho * rho * self._power - 2.0 * rho * cross).min(1)
            return self._quantile(fixed + free)

        low, high = (self._endpoint(critical, sign) for sign in (-1.0, 1.0))
        # Near 0 the critical value rises steeply, so the ends alone can miss that 0 is not rejected.
        if self.p_value_without_feedback() > 1.0 - self._level:
            return min(low, 0.0), max(high, 0.0)
        return low, high

    def a_interval(self) -> tuple[float, float]:
        """Interval for the pole a, whatever rho and the delay; all of the range if rho may be 0."""
        gain = self._cross**2 / self._power
        order = np.unique(self._s)
        members = [np.flatnonzero(self._s == s) for s in order]
        chosen = np.array([m[gain[m].argmax()] for m in members])
        misfit = self._best - gain[chosen]

        def critical(k: int) -> float:
            j = chosen[k]
            rho = self._cross[j] / self._power[j]
            cross = rho * self._gram[j] + self._noise
            explained = cross**2 / self._power
            return self._quantile(explained.max(1) - explained[:, members[k]].max(1))

        inside = [
            k
            for k in range(order.size)
            if misfit[k] <= self._chi2 or (misfit[k] < _IRRELEVANT and misfit[k] <= critical(k))
        ]
        low, high = max(inside[0] - 1, 0), min(inside[-1] + 1, order.size - 1)
        return float(-np.expm1(-order[low])), float(-np.expm1(-order[high]))

    def delays(self) -> tuple[int, ...]:
        """Extra delays that the data do not reject (chi-squared, one degree of freedom)."""
        gain = self._cross**2 / self._power
        return tuple(
            int(d)
            for d in np.unique(self._delays)
            if self._best - gain[self._delays == d].max() <= self._chi2
        )

    def misfit_without_feedback(self) -> float:
        """Twice the log-likelihood ratio of the best fit against rho = 0."""
        return float(self._best)

    def p_value_without_feedback(self) -> float:
        """Share of simulated data without feedback that show as much of it as these do."""
        explained = (self._noise**2 / self._power).max(1)
        return float((1 + (explained >= self._best).sum()) / (1 + explained.size))

    def _endpoint(self, critical: Callable[[float, int], float], sign: float) -> float:
        """The farthest rho, below or above all estimates, that is not rejected.

        Of a candidate, rho**2 power - 2 rho cross + best is within a threshold up to its larger
        root; the threshold is the one simulated where the last one ended.
        """
        threshold, end = self._chi2, 0.0
        for _ in range(6):
            spread = self._cross**2 - self._power * (self._best - threshold)
            ends = np.where(
                spread >= 0.0, sign * self._cross + np.sqrt(np.maximum(spread, 0.0)), -np.inf
            )
            farthest = int((ends / self._power).argmax())
            end = float(sign * ends[farthest] / self._power[farthest])
            value = critical(end, farthest)
            if abs(value - threshold) < 0.02 * threshold:
                break
            threshold = value
        return end

    def _quantile(self, values: Array) -> float:
        rank = int(np.ceil(self._level * (values.size + 1))) - 1
        return float(np.partition(values, min(rank, values.size - 1))[rank])


def _candidates(
    spline: Callable[[Array], Array], fit: OutputErrorFit
) -> tuple[Array, NDArray[np.intp], Array]:
    """Lags, delays and regressors that could be in an interval, on a grid fitted to the data."""
    nodes = fit.nodes
    low, high = nodes[0], nodes[-1]
    delays = np.arange(len(fit.regressors))
    for _ in range(3):
        s = np.linspace(low, high, _POINTS)
        q = spline(s)[delays]
        gain = (q @ fit.response) ** 2 / np.square(q).sum(-1)
        near = gain >= gain.max() - _IRRELEVANT
        columns = np.flatnonzero(near.any(0))
        kept = np.flatnonzero(near.any(1))
        wide = columns[-1] - columns[0] > _POINTS // 2
        low, high = s[max(columns[0] - 1, 0)], s[min(columns[-1] + 1, _POINTS - 1)]
        delays, q = delays[kept], q[kept]
        if wide:
            break
    flat_s = np.tile(s, len(delays))
    flat_d = np.repeat(delays, _POINTS)
    return flat_s, flat_d, q.reshape(flat_s.size, -1)
