"""How far noise and drift take the weights from where they should be: exact, linear."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gabactl.identification import loop_radius
from gabactl.law.spec import GabaSpec

Array = NDArray[np.float64]

#: The random walk is given this much pull to its mean, so that its variance exists.
_PULL = 1e-7


@dataclass(frozen=True)
class LoopErrors:
    """How far the weights are from where they should be, in nats (linear loop, K = 2).

    Parameters
    ----------
    jitter : float
        Standard deviation of log(w_1/w_2) that the noise of the readings causes.
    lag_error : float
        Standard deviation of the contribution ratio's logarithm that drift leaves.
    total : float
        Root of the sum of both squares (the jitter with the plant's answer to it).

    Examples
    --------
    >>> LoopErrors(0.03, 0.04, 0.05).total
    0.05
    """

    jitter: float
    lag_error: float
    total: float


def loop_errors(
    spec: GabaSpec,
    noise_std: float,
    noise_pole: float,
    drift_std: float,
    rho: float = 0.0,
    a: float = 0.0,
    delay: int = 0,
) -> LoopErrors:
    """Exact stationary errors of the linear loop around balance, averaged over steps.

    Parameters
    ----------
    spec : GabaSpec
        Controller; beta and interval matter.
    noise_std, noise_pole : float (nats), float in [0, 1)
        AR(1) noise of log(g_1/g_2) per step.
    drift_std : float (nats)
        Increment of the random walk under it.
    rho, a, delay : float, float, int
        Log-ratio plant.

    Returns
    -------
    LoopErrors
        All infinite where the loop is unstable.

    Notes
    -----
    Derivation: the steps from one reading to the next are multiplied out to one linear system per
    period, whose stationary covariance solves a discrete Lyapunov equation.

    Examples
    --------
    White noise of 0.5 passes with (1-beta)/(1+beta) of its power; drift leaves
    beta drift_std / sqrt(1 - beta^2):

    >>> errors = loop_errors(GabaSpec(), 0.5, 0.0, 0.005)
    >>> round(errors.jitter, 5), round(errors.lag_error, 5)
    (0.03544, 0.03509)
    """
    from scipy.linalg import solve_discrete_lyapunov

    if loop_radius(spec, rho, a, delay) >= 1.0:
        return LoopErrors(math.inf, math.inf, math.inf)
    pole = spec.beta**spec.interval
    reading, shocks = _period_step(rho, a, delay, pole, noise_pole)
    holding, held_shocks = _period_step(rho, a, delay, None, noise_pole)
    # For v, for v with the plant's answer, and for that with the drift.
    jitter_row, answer, drift = np.eye(5 + delay)[[1, 0, -1]]
    noise_row = jitter_row + rho * answer
    drift_row = noise_row + drift
    variances = []
    for which, std, rows in (
        (0, noise_std * math.sqrt(1.0 - noise_pole**2), np.stack([jitter_row, noise_row])),
        (1, drift_std, drift_row[None]),
    ):
        first, later = (std**2 * np.outer(b[:, which], b[:, which]) for b in (shocks, held_shocks))
        period, added = reading, first
        for _ in range(spec.interval - 1):
            period, added = holding @ period, holding @ added @ holding.T + later
        covariance = solve_discrete_lyapunov(period, added)
        sums = np.zeros(len(rows))
        covariance = reading @ covariance @ reading.T + first
        for _ in range(spec.interval):
            sums += np.diag(rows @ covariance @ rows.T)
            covariance = holding @ covariance @ holding.T + later
        variances += list(np.maximum(sums / spec.interval, 0.0))
    jitter, noise, drift = variances
    return LoopErrors(math.sqrt(jitter), math.sqrt(drift), math.sqrt(noise + drift))


def _period_step(
    rho: float, a: float, delay: int, pole: float | None, noise_pole: float
) -> tuple[Array, Array]:
    """State (x, v, u_1, ..., u_(1+delay), noise, drift): its matrix and shocks, for one step."""
    size = 5 + delay
    step, shocks = np.zeros((size, size)), np.zeros((size, 2))
    step[0, 0], step[0, 1 + 1 + delay] = a, a - 1.0
    step[-2, -2], shocks[-2, 0] = noise_pole, 1.0
    step[-1, -1], shocks[-1, 1] = 1.0 - _PULL, 1.0
    if pole is None:
        step[1, 1] = 1.0
    else:
        for matrix in (step, shocks):
            matrix[1] = -(1.0 - pole) * (rho * matrix[0] + matrix[-2] + matrix[-1])
        step[1, 1] += pole
    step[2], shocks[2] = step[1], shocks[1]
    step[3:-2, 2 : 2 + delay] = np.eye(delay)
    return step, shocks
