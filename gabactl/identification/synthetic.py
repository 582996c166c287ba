"""Closed-loop records of a known plant: to check the estimator, and to plan an experiment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.identification.signals import ExcitedRun
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, raw_weights, saturate

__all__ = ["simulate_excited"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExcitedRuns:
    """Records of a known log-ratio plant with GABA in the loop, excited.

    Parameters
    ----------
    log_ratio, actuation, excitation : arrays, shape (runs, steps)
        As in :class:`gabactl.identification.ExcitedRun`.
    spec : GabaSpec
        The controller.
    seed : int
        What the randomness came from.

    Examples
    --------
    >>> simulate_excited(rho=-0.2, steps=500, runs=3).log_ratio.shape
    (3, 500)
    """

    log_ratio: Array
    actuation: Array
    excitation: Array
    spec: GabaSpec
    seed: int

    def run(self, index: int) -> ExcitedRun:
        """One of the runs, to be identified.

        Parameters
        ----------
        index : int
            From 0 to runs - 1.
        """
        return ExcitedRun(
            self.log_ratio[index],
            self.actuation[index],
            self.excitation[index],
            spec=self.spec,
            name=f"synthetic run {index}",
        )


def simulate_excited(
    rho: float,
    a: float = 0.9,
    delay: int = 0,
    *,
    steps: int = 4000,
    runs: int = 1,
    seed: int = 0,
    spec: GabaSpec | None = None,
    amplitude: float = 0.5,
    block: int = 50,
    noise_std: float = 0.5,
    noise_pole: float = 0.4,
    drift_std: float = 0.005,
    log_imbalance: float | Array = 0.0,
    excitation_seed: int | None = None,
    inverted: bool = False,
) -> ExcitedRuns:
    """Simulate y = -rho (1-a) z^-(1+delay) / (1 - a z^-1) u + disturbance with GABA in the loop.

    The defaults are what gradient norms of recorded training runs look like: noise of 0.44 to 0.60
    per step with a correlation time of 1 to 1.5 steps, on a slow drift.

    Parameters
    ----------
    rho : float
        Feedback gain; positive starves the louder task, 1 and above is unstable.
    a : float in [0, 1)
        Pole of the lag, per step.
    delay : int, at least 0
        Extra steps beyond the built-in one.
    steps, runs, seed : int
        Length and number of the runs, and what the randomness comes from.
    spec : GabaSpec, optional
        Controller with two tasks; the default is the published one without warm-up.
    amplitude, block : float (nats), int (steps)
        Excitation: +-amplitude, drawn anew every ``block`` steps, added to log(w_1/w_2).
    noise_std, noise_pole : float
        Standard deviation (nats) and pole of the AR(1) noise of log(g_1/g_2).
    drift_std : float
        Standard deviation of the random walk's increment, nats per step.
    log_imbalance : float or array, shape (steps,)
        Level of log(g_1/g_2) at equal weights, nats; an array makes it a profile.
    excitation_seed : int, optional
        Of the excitation; default: ``seed``. Two runs that share it, one of them ``inverted``, are
        twins.
    inverted : bool
        Whether to turn the excitation round.

    Returns
    -------
    ExcitedRuns
        Arrays of shape (runs, steps).

    Raises
    ------
    InputError
        Settings of more than two tasks, or a number out of range.

    Examples
    --------
    >>> runs = simulate_excited(rho=0.0, steps=1000, runs=2, drift_std=0.0)
    >>> float(runs.log_ratio.std().round(1))
    0.5
    """
    settings = GabaSpec(warmup=0) if spec is None else spec
    if settings.n_tasks != 2:
        raise InputError(f"spec has n_tasks = {settings.n_tasks}: this plant has two tasks")
    if not 0.0 <= a < 1.0 or delay < 0 or block < 1 or steps < 1 or runs < 1:
        raise InputError(
            f"a = {a}, delay = {delay}, block = {block}, steps = {steps}, runs = {runs}: a must be "
            "in [0, 1), delay >= 0, the others >= 1"
        )
    coin = np.random.default_rng([1, seed if excitation_seed is None else excitation_seed])
    signs = coin.choice([-1.0, 1.0], size=(-(-steps // block), runs))
    excitation = (-amplitude if inverted else amplitude) * np.repeat(signs, block, axis=0)[:steps]
    noise = _noise(np.random.default_rng([0, seed]), steps, runs, noise_std, noise_pole, drift_std)
    disturbance = np.broadcast_to(np.transpose(log_imbalance), (steps,))[:, None] + noise
    return _close_loop(settings, rho, a, delay, excitation, disturbance, seed)


def _noise(
    rng: np.random.Generator, steps: int, runs: int, std: float, pole: float, drift: float
) -> Array:
    from scipy.signal import lfilter

    shocks = std * np.sqrt(1.0 - pole**2) * rng.standard_normal((steps, runs))
    shocks[0] /= np.sqrt(1.0 - pole**2)
    walk = np.cumsum(drift * rng.standard_normal((steps, runs)), axis=0)
    return np.asarray(lfilter([1.0], [1.0, -pole], shocks, axis=0) + walk)


def _close_loop(
    spec: GabaSpec, rho: float, a: float, delay: int, excitation: Array, noise: Array, seed: int
) -> ExcitedRuns:
    steps, runs = excitation.shape
    ema = np.full((runs, 2), 0.5)
    lagged = np.zeros(runs)
    log_ratio = np.full((steps, runs), np.nan)
    # Row t + 1 + delay holds the actuation of step t; the first rows are uniform weights.
    actuation = np.zeros((steps + 1 + delay, runs))
    for t in range(steps):
        lagged = a * lagged - (1.0 - a) * actuation[t]
        applied = np.zeros(runs)
        if t >= spec.warmup:
            if (t - spec.warmup) % spec.interval == 0:
                log_ratio[t] = rho * lagged + noise[t]
                half = 0.5 * log_ratio[t]
                norms = np.exp(np.stack([half, -half], axis=1))
                raw = raw_weights(norms, spec.law)
                ema = follow(ema, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode)
            weights = saturate(ema, spec.floor, spec.floor_mode)
            applied = np.log(weights[:, 0] / weights[:, 1])
        actuation[t + 1 + delay] = applied + excitation[t]
    return ExcitedRuns(log_ratio.T, actuation[1 + delay :].T, excitation.T, spec, seed)
