"""Inference that rests on the coin alone: re-randomised blocks, and a placebo from the future."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gabactl.identification.output_error import OutputErrorFit, lag_response
from gabactl.identification.signals import ExcitedRun

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Randomisation:
    """Interval for rho from re-drawing the signs of the excitation's blocks.

    It assumes nothing of the noise, only that the signs were drawn by fair coins; lag and delay
    are kept at their estimates.

    Parameters
    ----------
    low, high : float
        All rho that the re-drawn sequences do not reject; infinite where they reject none.
    p_value : float
        Of rho = 0.
    sequences, blocks : int
        Sign sequences drawn, and blocks in each.

    Examples
    --------
    >>> Randomisation(-0.3, -0.1, 0.001, 1999, 80).blocks
    80
    """

    low: float
    high: float
    p_value: float
    sequences: int
    blocks: int


@dataclass(frozen=True)
class Placebo:
    """What the same estimator says of the excitation of the future, which cannot act yet.

    Parameters
    ----------
    rho, low, high : float
        Estimate and interval; 0 must be in it (in 95 % of sound experiments).
    p_value : float
        Of 0, two-sided.
    advance : int
        How far in the future, steps.

    Examples
    --------
    >>> Placebo(0.01, -0.05, 0.07, 0.7, 150).passed
    True
    """

    rho: float
    low: float
    high: float
    p_value: float
    advance: int

    @property
    def passed(self) -> bool:
        """Whether the interval covers 0."""
        return bool(self.low <= 0.0 <= self.high)


def randomise(
    signals: ExcitedRun,
    fit: OutputErrorFit,
    *,
    sequences: int = 1999,
    seed: int = 0,
    level: float = 0.95,
) -> Randomisation:
    """Randomisation test of each rho, inverted (R. A. Fisher's test; blocks drawn anew).

    Parameters
    ----------
    signals, fit
        The run and its fit.
    sequences : int
        Sign sequences drawn.
    seed : int
        For the draws.
    level : float in (0, 1)
        Confidence level.

    Examples
    --------
    >>> from gabactl.identification.output_error import fit_output_error
    >>> from gabactl.identification.synthetic import simulate_excited
    >>> run = simulate_excited(rho=-1.0, steps=2000, seed=1).run(0)
    >>> found = randomise(run, fit_output_error(run, 50.0, 5))
    >>> found.low < -1.0 < found.high, found.blocks
    (True, 40)
    """
    rows = np.flatnonzero(signals.measured)
    model = lag_response(signals.actuation, fit.a, fit.delay)[rows]
    sums = np.stack(
        [_block_sums(signals, fit, rows, values) for values in (signals.log_ratio[rows], model)]
    )
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(sequences, sums.shape[1]))
    drawn_y, drawn_x = signs @ sums[0], signs @ sums[1]
    # The block sums carry the signs that were used, so the statistic that happened is their sum.
    seen_y, seen_x = sums.sum(1)

    def p_value(rho: float) -> float:
        extreme = np.abs(drawn_y - rho * drawn_x) >= abs(seen_y - rho * seen_x)
        return float((1 + extreme.sum()) / (1 + sequences))

    centre = seen_y / seen_x
    scale = float(np.std(drawn_y - centre * drawn_x) / abs(seen_x))
    low, high = (
        _rejected_from(p_value, centre, sign * 2.0 * scale, 1.0 - level) for sign in (-1.0, 1.0)
    )
    return Randomisation(low, high, p_value(0.0), sequences, sums.shape[1])


def _block_sums(
    signals: ExcitedRun, fit: OutputErrorFit, rows: NDArray[np.intp], values: Array
) -> Array:
    """Inner products of whitened values with each block's own whitened response."""
    spread = np.zeros(len(signals.excitation))
    spread[rows] = fit.noise.whiten_adjoint(fit.noise.whiten_without_trend(values))
    gradient = lag_response(spread[::-1], fit.a, fit.delay)[::-1]
    block = signals.block
    index = (np.arange(spread.size) - signals.first_change) // block
    # The signs that were used are kept inside: a re-drawn sign flips a block relative to them.
    return np.asarray(np.bincount(index - index[0], weights=signals.excitation * gradient), float)


def _rejected_from(
    p_value: Callable[[float], float], centre: float, step: float, alpha: float
) -> float:
    for _ in range(40):
        if p_value(centre + step) <= alpha:
            break
        step *= 2.0
    else:
        return float(np.copysign(np.inf, step))
    inside, outside = centre, centre + step
    for _ in range(40):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if p_value(middle) > alpha else (inside, middle)
    return float(inside)


def placebo(signals: ExcitedRun, fit: OutputErrorFit, *, level: float = 0.95) -> Placebo:
    """Estimate the "effect" of weights that are still to come.

    Parameters
    ----------
    signals, fit
        The run and its fit. The advance is two blocks and three lags, so that neither the block in
        force nor the response to it is part of the future.
    level : float in (0, 1)
        Confidence level.

    Examples
    --------
    >>> from gabactl.identification.output_error import fit_output_error
    >>> from gabactl.identification.synthetic import simulate_excited
    >>> run = simulate_excited(rho=-1.0, steps=2000, seed=1).run(0)
    >>> placebo(run, fit_output_error(run, 50.0, 5)).passed
    True
    """
    from scipy.special import ndtr, ndtri

    rows = np.flatnonzero(signals.measured)
    lag = -1.0 / np.log(fit.a) if fit.a > 0 else 0.0
    advance = min(int(2 * signals.block + np.ceil(3.0 * lag)), rows[-1] // 2)
    response = lag_response(fit.instrument, fit.a, fit.delay)
    future = np.concatenate([response[advance:], np.zeros(advance)])[rows]
    z = fit.noise.whiten_without_trend(future)
    power = float(z @ z)
    rho = float(z @ fit.whitened / power)
    error = fit.noise.innovation_std / np.sqrt(power)
    half = float(ndtri(0.5 + 0.5 * level)) * error
    return Placebo(rho, rho - half, rho + half, float(2.0 * ndtr(-abs(rho) / error)), advance)
