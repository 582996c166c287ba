"""The log-ratio plant from closed-loop data: output error with a noise model, through instruments.

The model, per step, is

    y = rho x(a, delay) + level + trend + noise,    x = -(1-a) z^-(1+delay) / (1 - a z^-1) u.

In closed loop u is correlated with past noise, so least squares on u is biased as soon as the
noise model is a little wrong. The known excitation is not: all quantities are whitened by the
noise model and projected on filtered copies of the excitation (instruments), which leaves a
handful of numbers q_y = rho q_x(a, delay) + noise, with white noise of known variance. This is the
refined instrumental-variable scheme (P. C. Young, "Recursive Estimation and Time-Series
Analysis", 2011; M. Gilson and P. Van den Hof, Automatica 41, 2005, for closed loop): noise model,
instruments and estimate are iterated a few times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gabactl.identification.noise import NoiseModel, fit_noise
from gabactl.identification.signals import ExcitedRun

Array = NDArray[np.float64]

_NODES = 24
_PASSES = 2
_INSTRUMENT_LAGS = (0.0, 2.0, 5.0, 12.0, 30.0)
#: Relative size below which a direction of the instruments is dropped as a copy of the others.
_COPY = 1e-6


def lag_response(values: Array, a: float, delay: int = 0) -> Array:
    """Response of -(1-a) z^-(1+delay) / (1 - a z^-1) from rest, along the last axis.

    Parameters
    ----------
    values : array, shape (..., steps)
        Input.
    a : float in [0, 1)
        Pole of the lag.
    delay : int, at least 0
        Extra steps beyond the built-in one.

    Returns
    -------
    array, of the shape of ``values``

    Examples
    --------
    >>> lag_response(np.array([1.0, 0.0, 0.0, 0.0]), 0.5, 1).tolist()
    [0.0, 0.0, -0.5, -0.25]
    """
    from scipy.signal import lfilter

    return np.asarray(lfilter([*[0.0] * (1 + delay), a - 1.0], [1.0, -a], values, axis=-1))


@dataclass(frozen=True)
class OutputErrorFit:
    """Point estimate, and the few numbers that everything else is computed from.

    Parameters
    ----------
    rho, a, delay : float, float, int
        Least-squares estimate.
    noise : NoiseModel
        Of the residual.
    nodes : array, shape (m,)
        What was searched, even in s = -log(1 - a) from a = 0 to the longest lag: fine enough for a
        cubic spline.
    regressors : array, shape (max_delay + 1, m, J)
        q_x at the nodes, in units of the innovation's standard deviation.
    response : array, shape (J,)
        q_y, in the same units.
    residual : array, shape (readings,)
        y - rho x, level and drift still in it.
    whitened : array, shape (readings,)
        The same, whitened, level and trend removed.
    instrument : array, shape (steps,)
        The part of u that the excitation explains.
    """

    rho: float
    a: float
    delay: int
    noise: NoiseModel
    nodes: Array
    regressors: Array
    response: Array
    residual: Array
    whitened: Array
    instrument: Array


def fit_output_error(signals: ExcitedRun, max_lag: float, max_delay: int) -> OutputErrorFit:
    """Estimate rho, a and the delay by refined instrumental variables.

    Parameters
    ----------
    signals : ExcitedRun
        One run (or a difference of twins).
    max_lag : float
        Longest lag looked for, in steps.
    max_delay : int
        Largest extra delay looked for, in steps.

    Examples
    --------
    >>> from gabactl.identification.synthetic import simulate_excited
    >>> run = simulate_excited(rho=-2.0, a=0.8, delay=1, steps=3000, seed=1).run(0)
    >>> fit = fit_output_error(run, max_lag=50.0, max_delay=5)
    >>> round(fit.rho, 1), round(fit.a, 1), fit.delay
    (-2.1, 0.8, 1)
    """
    problem = _Problem(signals, max_lag, max_delay)
    noise = NoiseModel(np.zeros(0), 0.05, 1.0)
    instrument = signals.excitation
    for _ in range(_PASSES - 1):
        regressors, response = problem.reduce(noise, instrument)
        rho, a, delay = _least_squares(problem.nodes, regressors, response)
        noise = fit_noise(problem.residual(rho, a, delay))
        instrument = problem.instrument(rho, a, delay)
    regressors, response = problem.reduce(noise, instrument)
    rho, a, delay = _least_squares(problem.nodes, regressors, response)
    residual = problem.residual(rho, a, delay)
    whitened = noise.whiten_without_trend(residual)
    freedom = len(residual) - 5 - noise.ar.size
    scale = float(np.sqrt(whitened @ whitened / freedom))
    return OutputErrorFit(
        rho=rho,
        a=a,
        delay=delay,
        noise=NoiseModel(noise.ar, noise.drift_pole_gap, scale),
        nodes=problem.nodes,
        regressors=regressors / scale,
        response=response / scale,
        residual=residual,
        whitened=whitened,
        instrument=instrument,
    )


class _Problem:
    """One run, with what does not change between the passes computed once."""

    def __init__(self, signals: ExcitedRun, max_lag: float, max_delay: int) -> None:
        self.signals, self.max_lag, self.max_delay = signals, max_lag, max_delay
        self.nodes = np.linspace(0.0, -np.log1p(-np.exp(-1.0 / max_lag)), _NODES)
        self.rows = np.flatnonzero(signals.measured)
        self.y = signals.log_ratio[self.rows]
        self.lagged = np.stack([lag_response(signals.actuation, a) for a in -np.expm1(-self.nodes)])
        self.controller = _controller(signals)

    def residual(self, rho: float, a: float, delay: int) -> Array:
        return self.y - rho * lag_response(self.signals.actuation, a, delay)[self.rows]

    def reduce(self, noise: NoiseModel, instrument: Array) -> tuple[Array, Array]:
        """q_x, shape (max_delay + 1, m, J), and q_y, shape (J,)."""
        basis = self._basis(noise, instrument)
        # <basis, W S D L u> = <(W S D)' basis, L u>: the transpose is applied to the few rows of
        # the basis, instead of the filters to every node and delay.
        spread = np.zeros((len(basis), len(self.signals.actuation)))
        spread[:, self.rows] = noise.whiten_adjoint(basis)
        steps = spread.shape[1]
        regressors = np.stack(
            [
                self.lagged[:, : steps - delay] @ spread[:, delay:].T
                for delay in range(self.max_delay + 1)
            ]
        )
        return regressors, basis @ noise.whiten(self.y)

    def _basis(self, noise: NoiseModel, instrument: Array) -> Array:
        """Orthonormal instruments, orthogonal to level and trend, shape (J, readings)."""
        late = self.max_delay
        copies = []
        for lag in (*_INSTRUMENT_LAGS, self.max_lag):
            a = np.exp(-1.0 / lag) if lag > 0 else 0.0
            delays = range(late + 1) if lag == 0 else sorted({0, late})
            copies += [lag_response(instrument, a, delay)[self.rows] for delay in delays]
        rows = noise.whiten_without_trend(np.stack(copies))
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        values, vectors = np.linalg.eigh(rows @ rows.T)
        kept = values > _COPY * values[-1]
        return np.asarray((vectors[:, kept] / np.sqrt(values[kept])).T @ rows)

    def instrument(self, rho: float, a: float, delay: int) -> Array:
        """The actuation without noise: excitation through the loop, as far as it is known."""
        from scipy.signal import lfilter

        pole, gain = self.controller
        forward = np.convolve([1.0, -pole], [1.0, -a])
        loop = np.zeros(max(forward.size, 2 + delay))
        loop[: forward.size] = forward
        loop[1 + delay] += gain * rho * (1.0 - a)
        if np.abs(np.roots(loop)).max() >= 1.0:
            return self.signals.excitation
        return np.asarray(lfilter(forward, loop, self.signals.excitation))


def _controller(signals: ExcitedRun) -> tuple[float, float]:
    """Pole and gain of the controller as it acted: v = pole v_1 + gain y, by least squares.

    At the floor its gain is nearly 0 and away from balance it differs from 1 - beta, so the
    settings alone do not give it. An error here costs precision only: the instruments stay valid.
    """
    rows = np.flatnonzero(signals.measured[1:]) + 1
    v = signals.actuation - signals.excitation
    design = np.stack([v[rows - 1], signals.log_ratio[rows], np.ones(rows.size)], axis=1)
    pole, gain, _ = np.linalg.lstsq(design, v[rows], rcond=None)[0]
    return float(np.clip(pole, 0.0, 1.0)), float(gain)


def _least_squares(nodes: Array, regressors: Array, response: Array) -> tuple[float, float, int]:
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(nodes, regressors, axis=1)
    low, high, kept = nodes[0], nodes[-1], np.arange(len(regressors))
    for points in (200, 60, 60):
        s = np.linspace(low, high, points)
        q = spline(s)[kept]
        explained = (q @ response) ** 2 / np.square(q).sum(-1)
        d, j = np.unravel_index(int(np.argmax(explained)), explained.shape)
        low, high, kept = s[max(int(j) - 2, 0)], s[min(int(j) + 2, points - 1)], kept[[d]]
        best = q[int(d), int(j)]
    return float(best @ response / (best @ best)), float(-np.expm1(-s[j])), int(kept[0])
