"""Forecasts of a recorded run from an identified plant, against the forecasts it must beat.

From every origin t of a run, with all that was seen until then, the imbalance y = log(g_1/g_2) and
the controller are run forward: the plant answers to the weights, the noise model says how the
disturbance goes on, and the controller (where there is one) chooses the next weights. Two baselines:

* the last value, y_(t+k) = y_t;
* the same noise model and controller without the plant (rho = 0). Only this one tells whether
  knowing the plant helps: beating the last value of a noisy signal takes a moving average.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from gabactl.base.errors import InputError
from gabactl.identification.noise import NoiseModel, fit_noise
from gabactl.identification.output_error import lag_response
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, saturate
from gabactl.plants import LogRatio
from gabactl.runs.run import Run

Array = NDArray[np.float64]

HORIZONS = (1, 10, 100)
#: Share of the run that the noise model is fitted on; the rest is forecast.
_TRAINING = 0.5
_LEAST_TRAINING = 200
_LEAST_BLOCKS = 8
_BLOCK = 50
#: Changes of the error power below this many per cent are no difference, however certain.
_NEGLIGIBLE = 0.05
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


@dataclass(frozen=True)
class RunSignals:
    """Imbalance and actuation of a run of two tasks, with a reading at every step.

    Attributes
    ----------
    log_ratio : array, shape (n,)
        y = log(g_1/g_2), nats.
    actuation : array, shape (n,)
        u = log(w_1/w_2) that was applied, nats.
    ema : array, shape (n, 2), or None
        Stored average after each step where GABA is in the loop; None where the weights are given
        in advance (and known to the forecast).
    spec : GabaSpec
        The controller.

    Raises
    ------
    InputError
        Arrays of different lengths, or values that are not finite.
    """

    log_ratio: Array
    actuation: Array
    ema: Array | None
    spec: GabaSpec

    def __post_init__(self) -> None:
        shapes = {self.log_ratio.shape, self.actuation.shape}
        if len(shapes) != 1 or self.log_ratio.ndim != 1:
            raise InputError(f"shapes {shapes} of imbalance and actuation must be one (steps,)")
        if not np.isfinite(self.log_ratio).all() or not np.isfinite(self.actuation).all():
            raise InputError("forecasts need a positive norm of both tasks at every step")


def run_signals(run: Run) -> RunSignals | str:
    """The run as the forecasts take it, or why it cannot be.

    Parameters
    ----------
    run : Run
        Of two tasks; its settings are the controller, where that weighted it.

    Examples
    --------
    >>> from gabactl.traces import Trace
    >>> run_signals(Run(Trace.from_arrays(np.ones((3, 2)))))
    'the weights are not recorded at every step, or not positive'
    """
    trace, spec = run.trace, run.spec
    if spec.interval != 1:
        return f"interval {spec.interval}: forecasts need a reading at every step"
    if not run.positive.any():
        return "no positive norms"
    first = int(np.argmax(run.positive))
    if not run.positive[first:].all() or (np.diff(trace.step) != 1).any():
        return "forecasts need a positive norm of both tasks at every step"
    excited = trace.excitation is not None and bool(np.nan_to_num(trace.excitation).any())
    ema = None
    if run.by_gaba and not excited:
        done = run.replay
        first = max(first, int(np.argmax(done.active)))
        weights, ema = done.weights[first:], done.ema[first:]
    elif trace.weights is None or not (trace.weights > 0).all():
        return "the weights are not recorded at every step, or not positive"
    elif trace.balancer not in (None, "fixed") and not excited:
        return f"the weights were chosen by {trace.balancer}, which is not modelled here"
    else:
        weights = trace.weights[first:]
    y = run.log_ratio()[first:]
    return RunSignals(y, np.log(weights[:, 0]) - np.log(weights[:, 1]), ema, spec)


@dataclass(frozen=True)
class ForecastScore:
    """How good the forecasts k steps ahead are.

    Attributes
    ----------
    signal : {"log_ratio", "log_ema"}
        y, or log of the stored averages' ratio.
    horizon : int
        Steps ahead.
    origins : int
        Forecasts made, one per step of the last half of the run.
    fit_percent, last_value_fit_percent, open_loop_fit_percent : float
        100 (1 - rms error/standard deviation): of the plant in the loop, of the last value, and of
        the loop without plant.
    gain_over_last_value, gain_over_open_loop : (float, float, float) or None
        Reduction of the mean squared error in per cent of the baseline's, with its 95 % interval by
        block bootstrap; None with too few blocks for one.
    """

    signal: Literal["log_ratio", "log_ema"]
    horizon: int
    origins: int
    fit_percent: float
    last_value_fit_percent: float
    open_loop_fit_percent: float
    gain_over_last_value: tuple[float, float, float] | None
    gain_over_open_loop: tuple[float, float, float] | None

    @property
    def beats_last_value(self) -> bool | None:
        """Whether the interval of the gain is above 0 (True), below (False), or covers it (None)."""
        return _sign(self.gain_over_last_value)

    @property
    def beats_open_loop(self) -> bool | None:
        """The same against the loop without plant."""
        return _sign(self.gain_over_open_loop)

    def to_dict(self) -> dict[str, Any]:
        """The attributes, and both verdicts."""
        return {
            **vars(self),
            "beats_last_value": self.beats_last_value,
            "beats_open_loop": self.beats_open_loop,
        }


def _sign(gain: tuple[float, float, float] | None) -> bool | None:
    if gain is None or gain[1] <= 0 <= gain[2] or abs(gain[0]) < _NEGLIGIBLE:
        return None
    return gain[1] > 0


def score_forecasts(
    run: RunSignals,
    plant: LogRatio,
    *,
    horizons: tuple[int, ...] = HORIZONS,
    start: int | None = None,
    seed: int = 0,
) -> list[ForecastScore]:
    """Forecast the later part of a run from every step of it.

    Parameters
    ----------
    run : RunSignals
        At least 600 steps, or none is made.
    plant : LogRatio
        y = P u + disturbance; identified elsewhere, or on the steps before ``start``.
    horizons : tuple of int
        Steps ahead.
    start : int, optional
        First step that is forecast; the noise model is fitted on the half before it. Default: the
        middle of the run.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of ForecastScore
        Of the imbalance, and, with GABA in the loop, of its average. Empty for a run too short.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> u = np.repeat(rng.choice([-0.5, 0.5], 60), 25)
    >>> y = -2.0 * lag_response(u, 0.5) + 0.1 * rng.standard_normal(u.size)
    >>> run = RunSignals(y, u, None, GabaSpec())
    >>> one = score_forecasts(run, LogRatio(-2.0, 0.5), horizons=(1,))[0]
    >>> one.beats_last_value, one.beats_open_loop
    (True, True)
    """
    n = run.log_ratio.size
    first = int(_TRAINING * n) if start is None else start
    if first < 2 * _LEAST_TRAINING or n - first < _LEAST_TRAINING:
        return []
    ahead, open_loop = (
        _Loop(run, system, first).forecast(max(horizons), horizons)
        for system in (plant, LogRatio(0.0))
    )
    targets: dict[Literal["log_ratio", "log_ema"], Array] = {"log_ratio": run.log_ratio}
    if run.ema is not None:
        targets["log_ema"] = _log_odds(run.ema)
    scores = []
    for name, values in targets.items():
        for k in horizons:
            origins = np.arange(first - 1, n - k)
            if origins.size < _LEAST_TRAINING // 2:
                continue
            truth = values[origins + k]
            errors = [
                truth - ahead[name][k][: origins.size],
                truth - values[origins],
                truth - open_loop[name][k][: origins.size],
            ]
            ours, last, without = (_fit_percent(truth, error) for error in errors)
            gains = (_gain(errors[0], base, max(_BLOCK, k), seed) for base in errors[1:])
            scores.append(ForecastScore(name, k, origins.size, ours, last, without, *gains))
    return scores


def free_run_fits(
    run: RunSignals, plant: LogRatio, *, seen: int = 20
) -> tuple[float, float, float]:
    """How well the whole run's log(ema_1/ema_2) is foretold from its first readings.

    Parameters
    ----------
    run : RunSignals
        With GABA in the loop.
    plant : LogRatio
        What answers to the weights.
    seen : int
        Readings that are known; the disturbance is taken to stay at their mean.

    Returns
    -------
    tuple of three floats
        100 (1 - rms error/standard deviation) of the loop with the plant, of the loop without it,
        and of the last value that was seen.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> half = 0.3 + 0.1 * rng.random(60)
    >>> run = RunSignals(np.zeros(60), np.zeros(60), np.stack([half, 1 - half], 1), GabaSpec())
    >>> len(free_run_fits(run, LogRatio(-0.2)))
    3
    """
    if run.ema is None:
        raise InputError("no average in the loop")
    truth, last = _log_odds(run.ema[seen:]), float(_log_odds(run.ema[seen - 1 : seen])[0])
    steps = range(1, truth.size + 1)
    fits = []
    for system in (plant, LogRatio(0.0)):
        loop = _Loop(run, system, seen, constant=True)
        ahead = loop.forecast(truth.size, steps, only=seen - 1)["log_ema"]
        fits.append(_fit_percent(truth, truth - np.concatenate([ahead[k] for k in steps])))
    return fits[0], fits[1], _fit_percent(truth, truth - last)


def _fit_percent(truth: Array, error: Array) -> float:
    return 100.0 * (1.0 - float(np.sqrt(np.mean(error**2))) / float(np.std(truth)))


class _Loop:
    """The loop at every origin at once."""

    def __init__(
        self, run: RunSignals, plant: LogRatio, first: int, *, constant: bool = False
    ) -> None:
        self.run, self.plant, self.first = run, plant, first
        # A constant weight moves the level, which the noise model carries; only changes matter.
        self.u = run.actuation - (run.actuation[0] if run.ema is None else 0.0)
        self.x = lag_response(self.u, plant.a, plant.delay)
        self.d = run.log_ratio - plant.rho * self.x
        self.constant = constant
        self.noise = (
            NoiseModel(np.zeros(0), 0.0, float(np.std(self.d[:first])))
            if constant
            # Of the quarter before the forecasts: training starts louder than it goes on.
            else fit_noise(self.d[first // 2 : first])
        )

    def forecast(
        self, longest: int, keep: Container[int], only: int | None = None
    ) -> dict[str, dict[int, Array]]:
        run, plant, n = self.run, self.plant, self.run.log_ratio.size
        origins = np.arange(self.first - 1, n - 1) if only is None else np.array([only])
        disturbance, step_std = self._disturbance(origins, longest), self.noise.step_std
        x = self.x[origins].copy()
        ema = None if run.ema is None else run.ema[origins].copy()
        # u of the last steps after the origin, as far as the plant has not answered to them.
        chosen: deque[Array] = deque(maxlen=plant.delay + 1)
        found: dict[str, dict[int, Array]] = {"log_ratio": {}, "log_ema": {}}
        for j, expected in enumerate(disturbance, 1):
            back = j - 1 - plant.delay
            if back <= 0 or run.ema is None:
                # Excitations and constant weights are known in advance.
                at = np.clip(origins + back, 0, n - 1)
                u = self.u[at]
            else:
                u = chosen[0]
            x = plant.a * x - (1.0 - plant.a) * u
            y = plant.rho * x + expected
            if ema is not None:
                # The average takes in weights of noisy readings: their mean, not that of the mean.
                # Drift is left out, so that the forecast is the middle one and not the mean.
                nodes = np.clip(y[:, None] + step_std * _NODES, -700, 700)
                quiet = (1.0 / (1.0 + np.exp(nodes))) @ _WEIGHTS / _WEIGHTS.sum()
                raw, spec = np.stack([quiet, 1.0 - quiet], axis=1), run.spec
                ema = follow(ema, raw, spec.beta, 1, spec.floor, spec.floor_mode)
                weights = saturate(ema, spec.floor, spec.floor_mode)
                chosen.append(np.log(weights[:, 0] / weights[:, 1]))
            if j in keep:
                found["log_ratio"][j] = y
                if ema is not None:
                    found["log_ema"][j] = _log_odds(ema)
        return found

    def _disturbance(self, origins: NDArray[np.intp], longest: int) -> Iterator[Array]:
        """Forecasts of the disturbance, a step ahead at a time, shape (origins,)."""
        if self.constant:
            level = np.full(origins.size, float(self.d[: self.first].mean()))
            yield from itertools.repeat(level, longest)
            return
        numerator, denominator = self.noise.whitener
        begin = self.first // 2
        d = self.d[begin:]
        # From its usual level, so that the filter has nothing to forget.
        start = float(d[: self.first - begin].mean())
        d = d - start
        origins = origins - begin
        innovations = signal.lfilter(numerator, denominator, d)
        # numerator(z) d = denominator(z) eps, both monic: step the recursion with eps = 0 ahead.
        past_d = [d[np.maximum(origins - i, 0)] for i in range(numerator.size - 1)]
        past_eps = [innovations[np.maximum(origins - i, 0)] for i in range(denominator.size - 1)]
        none = np.zeros(origins.size)
        for _ in range(longest):
            value = sum((c * eps for c, eps in zip(denominator[1:], past_eps, strict=True)), none)
            value = value - sum((c * x for c, x in zip(numerator[1:], past_d, strict=True)), none)
            past_d = [value, *past_d][: numerator.size - 1]
            past_eps = [none, *past_eps][: denominator.size - 1]
            yield value + start


def _log_odds(ema: Array) -> Array:
    safe = np.maximum(ema, 1e-300)
    return np.asarray(np.log(safe[:, 0]) - np.log(safe[:, 1]), dtype=np.float64)


def _gain(ours: Array, theirs: Array, block: int, seed: int) -> tuple[float, float, float] | None:
    powers = np.stack([theirs**2 - ours**2, theirs**2])
    found = block_bootstrap(powers, lambda m: 100.0 * m[..., 0] / m[..., 1], block, seed)
    return found if found is not None and math.isfinite(found[0]) else None


def block_bootstrap(
    values: Array, statistic: Any, block: int, seed: int = 0, draws: int = 2000
) -> tuple[float, float, float] | None:
    """A function of means of dependent series, with a 95 % interval by resampling whole blocks.

    Parameters
    ----------
    values : array, shape (series, n)
        Series averaged over time, in step with each other.
    statistic : callable
        From means, shape (..., series), to numbers, shape (...).
    block : int
        Length of a block, steps: several times the memory of the series.
    seed : int
        Of the resampling.
    draws : int
        Resamples.

    Returns
    -------
    (estimate, low, high) or None
        None with fewer than 8 blocks: then nothing can be said.

    Notes
    -----
    Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", Annals of
    Statistics 17, 1989; blocks that do not overlap.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((1, 4000))
    >>> middle, low, high = block_bootstrap(x, lambda m: m[..., 0], 50)
    >>> low < 0 < high
    True
    """
    count = values.shape[1] // block
    if count < _LEAST_BLOCKS:
        return None
    means = values[:, : count * block].reshape(values.shape[0], count, block).mean(axis=2).T
    rng = np.random.default_rng(seed)
    drawn = means[rng.integers(0, count, (draws, count))].mean(axis=1)
    low, high = np.quantile(statistic(drawn), [0.025, 0.975])
    return float(statistic(values.mean(axis=1))), float(low), float(high)
