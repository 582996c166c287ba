"""How much noise of the readings reaches the weights: linear gains, spectra, and the Jensen bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import signal

from gabactl.base import plots
from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.control.linear import as_loop
from gabactl.law.filter import filter_facts
from gabactl.law.spec import GabaSpec

__all__ = [
    "JensenBias",
    "NoiseReport",
    "autocovariance",
    "jensen_bias",
    "noise_gain",
    "noise_report",
]

Array = NDArray[np.float64]

#: Readings of an impulse response that are summed at most.
_LONGEST = 5_000_000


def impulse_response(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    signal_name: str = "weights",
    tolerance: float = 1e-9,
) -> Array:
    """Answer of the closed loop to one reading's worth of noise, per reading.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`; stable.
    signal_name : {"weights", "sensitivity", "contributions", "complementary"}
        Which signal of :meth:`~gabactl.control.linear.Loop.closed_loop`.
    tolerance : float
        Where the tail is cut.

    Returns
    -------
    array, shape (n,)

    Raises
    ------
    InputError
        The loop is not stable, or so slow that its tail is longer than five million readings.

    Notes
    -----
    The tail is cut where the slowest mode, of modulus r, has decayed to the tolerance: r^n.

    Examples
    --------
    >>> from gabactl import LogRatio
    >>> impulse_response(GabaSpec(beta=0.5), LogRatio(0.0))[:3].tolist()
    [-0.5, -0.25, -0.125]
    """
    loop = as_loop(loop, plant, ratio, sensor_delay)
    if not loop.closed.stable:
        raise InputError(
            f"the closed loop is {loop.closed.verdict}: noise has no finite gain; see `margins`"
        )
    maps = loop.closed_loop_coefficients()
    if signal_name not in maps:
        raise InputError(f"signal {signal_name!r} is unknown: choose from {', '.join(maps)}")
    num, den = maps[signal_name]
    slowest = max(loop.closed.radius, float(np.abs(loop.filter.poles).max(initial=0.0)))
    decay = math.ceil(math.log(tolerance) / math.log(slowest)) if slowest > 0.0 else 0
    if decay > _LONGEST:
        raise InputError(
            f"the slowest mode of the closed loop takes {decay:.3g} readings to die out, more than "
            f"the {_LONGEST:,} that are summed: choose a smaller beta"
        )
    pulse = signal.unit_impulse(decay + 4 * den.size + 1)
    return np.asarray(signal.lfilter(num, den, pulse), dtype=np.float64)


def noise_gain(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    signal_name: str = "weights",
    autocovariances: ArrayLike | None = None,
) -> float:
    """Variance of a closed-loop signal over the variance of the noise on the log ratio.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`; stable. With a sampled sensor, signals are
        taken at the readings.
    signal_name : str
        As in :func:`impulse_response`.
    autocovariances : array, shape (m,), optional
        Of the noise per step, lags 0, 1, 2, ... (see :func:`autocovariance`); taken as 0 beyond.
        Default: white. A sampled sensor sees every N-th lag: that is aliasing, exactly.

    Returns
    -------
    float
        Power gain.

    Raises
    ------
    InputError
        Autocovariances without a positive variance first.

    Notes
    -----
    ``sum_jk h_j h_k r(j - k) / r(0)``, with h the impulse response and r the autocovariances; that is
    ``sum_k h_k^2`` for white noise.

    Examples
    --------
    >>> from gabactl import LogRatio
    >>> round(noise_gain(GabaSpec(), LogRatio(0.0)), 7)  # (1 - beta)/(1 + beta)
    0.0050251
    """
    loop = as_loop(loop, plant, ratio, sensor_delay)
    h = impulse_response(loop, signal_name=signal_name)
    if autocovariances is None:
        return float(h @ h)
    r = np.asarray(autocovariances, dtype=np.float64)
    if r.ndim != 1 or r.size == 0 or not np.isfinite(r).all() or r[0] <= 0:
        raise InputError("autocovariances: give lags 0, 1, 2, ... with a positive variance first")
    seen = r[:: loop.interval]
    seen = seen[: h.size]
    correlation = np.array([h[: h.size - k] @ h[k:] for k in range(seen.size)])
    total = seen[0] * correlation[0] + 2.0 * (seen[1:] @ correlation[1:])
    return float(total / r[0])


def autocovariance(series: ArrayLike, max_lag: int) -> Array:
    """Autocovariances of a measured series, tapered so that they belong to some spectrum.

    Parameters
    ----------
    series : array, shape (n,)
        For example the log norm ratio of a recorded run, less its drift. NaN is refused.
    max_lag : int in [0, n)
        Lags kept; Bartlett's taper keeps every spectrum estimate non-negative.

    Returns
    -------
    array, shape (max_lag + 1,)

    Raises
    ------
    InputError
        Fewer than two finite numbers, or ``max_lag`` out of range.

    Notes
    -----
    c_k = (1 - k/(M + 1)) (1/n) sum_t x_t x_(t+k), with M = ``max_lag`` and x less its mean
    (Bartlett, Biometrika 37, 1950).

    Examples
    --------
    >>> autocovariance([1.0, -1.0, 1.0, -1.0], 1).tolist()
    [1.0, -0.375]
    """
    x = np.asarray(series, dtype=np.float64)
    if x.ndim != 1 or x.size < 2 or not np.isfinite(x).all():
        raise InputError("series: give at least two finite numbers in a row")
    if not 0 <= max_lag < x.size:
        raise InputError(f"max_lag = {max_lag} is not in [0, {x.size}): choose fewer lags")
    x = x - x.mean()
    raw = np.array([x[: x.size - k] @ x[k:] for k in range(max_lag + 1)]) / x.size
    return np.asarray(raw * (1.0 - np.arange(max_lag + 1) / (max_lag + 1.0)))


@dataclass(frozen=True)
class JensenBias(Result):
    """Where the average of noisy weights settles, against the weight of the average reading.

    Attributes
    ----------
    log_ratio, noise_std : float
        Mean mu and standard deviation s of y = log(g_1/g_2), in nats.
    mean_ema : float
        Mean of ema_1.
    noise_free_ema : float
        1/(1 + e^mu).
    log_bias : float
        Log odds of the one less those of the other: what the noise alone shifts u by.
    asymptote : float
        exp(-mu + s^2/2), approached where mu - s^2 >> 1.
    """

    log_ratio: float
    noise_std: float
    mean_ema: float
    noise_free_ema: float
    log_bias: float
    asymptote: float

    title = "Bias of averaging weights"

    def rows(self) -> list[tuple[str, ...]]:
        """Mean, noise-free value, shift."""
        return [
            ("mean of ema_1", f"{self.mean_ema:.6g}"),
            ("without noise", f"{self.noise_free_ema:.6g}"),
            ("shift of u", f"{self.log_bias:+.4g} nats"),
        ]


def jensen_bias(log_ratio: float, noise_std: float) -> JensenBias:
    """Mean of the ema under Gaussian noise of the log ratio (K = 2, before the floor).

    The ema averages weights 1/(1 + e^y), not log weights; for a quiet weight noise lifts the mean.

    Parameters
    ----------
    log_ratio : float
        Mean mu of y, in nats.
    noise_std : float, at least 0
        Standard deviation s, in nats; 0.44 to 0.60 per step was measured on C-MAPSS.

    Returns
    -------
    JensenBias

    Raises
    ------
    InputError
        A value that is not finite, or a negative ``noise_std``.

    Notes
    -----
    E[1/(1 + e^y)] by Gauss-Hermite quadrature of 120 nodes. Where mu - s^2 is large the weight is
    about e^-y, whose mean is that of a log-normal variable, exp(-mu + s^2/2).

    Examples
    --------
    >>> bias = jensen_bias(6.0, 0.5)
    >>> round(bias.mean_ema, 6), round(bias.asymptote, 6)
    (0.002799, 0.002809)
    """
    if not (math.isfinite(log_ratio) and math.isfinite(noise_std) and noise_std >= 0):
        raise InputError("jensen_bias: give a finite log_ratio and a noise_std >= 0")
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    y = np.clip(log_ratio + noise_std * nodes, -700, 700)
    first = float(weights @ (1.0 / (1.0 + np.exp(y))) / weights.sum())
    second = float(weights @ (1.0 / (1.0 + np.exp(-y))) / weights.sum())
    shift = math.log(first / second) + log_ratio
    return JensenBias(
        log_ratio=log_ratio,
        noise_std=noise_std,
        mean_ema=first,
        noise_free_ema=1.0 / (1.0 + math.exp(min(log_ratio, 700.0))),
        log_bias=0.0 if abs(shift) < 1e-14 else shift,
        asymptote=math.exp(min(-log_ratio + noise_std**2 / 2, 700.0)),
    )


@dataclass(frozen=True)
class NoiseReport(Result):
    """Noise on the readings, and what is left of it on the weights.

    Attributes
    ----------
    spec : GabaSpec
        The settings.
    noise_std : float
        Standard deviation of y per reading, in nats.
    filter_noise_power_gain, noise_power_gain : float
        Power gains to u: of the filter alone, and of the closed loop.
    coloured : bool
        Whether the noise was given by autocovariances.
    weights_std : float
        Standard deviation of u = log(w_1/w_2), in nats, small signals.
    jensen : JensenBias
        What the noise does to the mean of the average.
    """

    spec: GabaSpec
    noise_std: float
    filter_noise_power_gain: float
    noise_power_gain: float
    coloured: bool
    weights_std: float
    jensen: JensenBias

    title = "Noise that reaches the weights"
    told = (
        *("noise_std", "coloured", "noise_power_gain", "noise_power_gain_db"),
        *("filter_noise_power_gain", "weights_std", "jensen"),
    )

    @property
    def noise_power_gain_db(self) -> float:
        """In decibels of power; minus infinity where nothing is left."""
        gain = self.noise_power_gain
        return 10 * math.log10(gain) if gain > 0 else -math.inf

    def headline(self) -> str:
        """What is left of the noise on the weights."""
        return f"{self.weights_std:.4g} nats on the weights of {self.noise_std:.4g} on the readings"

    def _draw(self, ax: Any) -> None:
        """Standard deviations from the reading to the weights."""
        names = ("on the readings", "after the filter alone", "on the weights")
        values = (
            self.noise_std,
            self.noise_std * math.sqrt(self.filter_noise_power_gain),
            self.weights_std,
        )
        bars = ax.barh(names, values, color=plots.PALETTE[:3])
        ax.bar_label(bars, [f" {value:.3g}" for value in values])
        ax.invert_yaxis()
        ax.margins(x=0.15)
        ax.set(xlabel="standard deviation, nats", title=self.title)

    def rows(self) -> list[tuple[str, ...]]:
        """Noise in, noise out, shift."""
        db = self.noise_power_gain_db
        return [
            ("noise of the log ratio", f"{self.noise_std:.4g} nats per reading"),
            ("power gain, filter alone", f"x {self.filter_noise_power_gain:.5g}"),
            ("power gain, closed loop", f"x {self.noise_power_gain:.5g} ({db:.2f} dB)"),
            ("noise of the log weights", f"{self.weights_std:.4g} nats"),
            ("shift by averaging", f"{self.jensen.log_bias:+.4g} nats"),
        ]


def noise_report(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    noise_std: float = 0.5,
    log_ratio: float | None = None,
    autocovariances: ArrayLike | None = None,
) -> NoiseReport:
    """How much of the readings' noise reaches the weights.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`; stable.
    noise_std : float
        Of y per reading, in nats.
    log_ratio : float, optional
        Mean of y, for the Jensen bias; default that of the loop's ratio.
    autocovariances : array, shape (m,), optional
        As in :func:`noise_gain`.

    Returns
    -------
    NoiseReport

    Notes
    -----
    The standard deviation of u is ``noise_std`` times the root of :func:`noise_gain`.

    Examples
    --------
    >>> from gabactl import LogRatio
    >>> round(noise_report(GabaSpec(), LogRatio(0.0)).weights_std, 4)
    0.0354
    """
    loop = as_loop(loop, plant, ratio, sensor_delay)
    gain = noise_gain(loop, autocovariances=autocovariances)
    return NoiseReport(
        spec=loop.spec,
        noise_std=noise_std,
        filter_noise_power_gain=filter_facts(loop.spec).noise_power_gain,
        noise_power_gain=gain,
        coloured=autocovariances is not None,
        weights_std=noise_std * math.sqrt(gain),
        jensen=jensen_bias(math.log(loop.ratio) if log_ratio is None else log_ratio, noise_std),
    )
