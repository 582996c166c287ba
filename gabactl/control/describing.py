"""Describing functions with bias, and the limit cycles they predict, in discrete time.

Two models, and every result says which: the saturation in a linear loop (:func:`saturation_limit_cycle`,
for any python-control system), and the exact loop of a log-ratio plant (:func:`limit_cycles`), where
the only approximation is that the stored average is a sinusoid with a bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.control._rational import Rational
from gabactl.control.linear import as_setting, open_loop, plant_rational
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import saturate

__all__ = ["LimitCycles", "limit_cycles"]

_SAMPLES = 256
# Above this much of other harmonics in the average the sinusoid is no longer a fair picture; the
# value is where predictions were seen to leave 10 % of simulated amplitudes.
_TRUSTED_DISTORTION = 0.1


def saturation_describing_function(
    amplitude: float, bias: float = 0.0, limit: float = 1.0
) -> tuple[float, float]:
    """Mean and gain of unit-slope saturation for bias + amplitude cos.

    Parameters
    ----------
    amplitude : float > 0
        Amplitude of the sinusoid.
    bias : float
        Its mean.
    limit : float > 0
        Where the saturation sets in, on both sides.

    Returns
    -------
    (mean, gain) : (float, float)
        Mean of the output, and its first harmonic over the amplitude.

    Raises
    ------
    InputError
        An amplitude or a limit that is not positive.

    Notes
    -----
    Gelb and Vander Velde, "Multiple-Input Describing Functions and Nonlinear System Design",
    McGraw-Hill (1968), appendix B.

    Examples
    --------
    >>> mean, gain = saturation_describing_function(2.0)
    >>> round(mean, 6), round(gain, 6)
    (0.0, 0.608998)
    """
    if not (amplitude > 0 and limit > 0):
        raise InputError("saturation_describing_function: amplitude and limit must be positive")
    high, low = (limit + bias) / amplitude, (limit - bias) / amplitude
    mean = amplitude / 2 * (_half_mean(high) - _half_mean(low))
    return mean, (_half_gain(high) + _half_gain(low)) / 2


def _half_gain(x: float) -> float:
    if abs(x) >= 1.0:
        return math.copysign(1.0, x)
    return 2.0 / math.pi * (math.asin(x) + x * math.sqrt(1.0 - x * x))


def _half_mean(x: float) -> float:
    if abs(x) >= 1.0:
        return abs(x)
    return 2.0 / math.pi * (x * math.asin(x) + math.sqrt(1.0 - x * x))


def saturation_limit_cycle(system: Any, limit: float = 1.0) -> tuple[float, float] | None:
    """Oscillation of a linear system under negative feedback through a unit-slope saturation.

    Parameters
    ----------
    system : control.TransferFunction or control.StateSpace
        Discrete L; the loop is y = -L sat(y).
    limit : float > 0
        Where the saturation sets in.

    Returns
    -------
    (amplitude, frequency) or None
        Of y, in rad per sample, for the largest amplitude predicted; None where L does not cross
        the negative real axis beyond -1.

    Notes
    -----
    An oscillation has 1 + N(A) L(e^jw) = 0, with N of :func:`saturation_describing_function`. N is
    real, so w is where L crosses the negative real axis, and N(A) = -1/L there (Gelb and Vander
    Velde, "Multiple-Input Describing Functions and Nonlinear System Design", 1968).

    Examples
    --------
    >>> import control
    >>> amplitude, w = saturation_limit_cycle(control.TransferFunction([1.8], [1, -0.5, 0, 0], 1))
    >>> round(amplitude, 2), round(w, 3)
    (2.88, 0.876)
    """
    rational = system if isinstance(system, Rational) else Rational.from_lti(system)
    best: tuple[float, float] | None = None
    for w, value in _crossings_beyond(rational):
        gain = -1.0 / value

        def gap(log_amplitude: float, gain: float = gain) -> float:
            return saturation_describing_function(math.exp(log_amplitude))[1] - gain

        amplitude = limit * math.exp(optimize.brentq(gap, 0.0, math.log(4.0 / gain)))
        if best is None or amplitude > best[0]:
            best = (amplitude, w)
    return best


def _crossings_beyond(rational: Rational) -> list[tuple[float, float]]:
    """Where the loop is real and beyond -1, with its value; at w = 0 is a rest, no oscillation."""
    crossings = rational.phase_crossings()
    values = np.real(rational.at(crossings))
    return [
        (float(w), float(value))
        for w, value in zip(crossings, values, strict=True)
        if w > 0.0 and -math.inf < value < -1.0
    ]


@dataclass(frozen=True)
class LimitCycle:
    """A predicted oscillation of the exact loop.

    Attributes
    ----------
    ema_bias, ema_amplitude : float
        Mean and amplitude of the stored average of task 1.
    log_ratio_bias, log_ratio_amplitude : float
        Mean, and half the peak-to-peak swing, of y = log(g_1/g_2).
    frequency_rad_per_step, period_steps : float
        Of the oscillation: w in (0, pi], and 2 pi/w.
    distortion : float
        Size of the harmonics of the average that the method ignores, over its amplitude.
    trusted : bool
        Whether the method's assumption (a nearly sinusoidal average) holds.
    reason : str
        Why, or why not.
    """

    ema_bias: float
    ema_amplitude: float
    log_ratio_bias: float
    log_ratio_amplitude: float
    frequency_rad_per_step: float
    period_steps: float
    distortion: float
    trusted: bool
    reason: str


@dataclass(frozen=True)
class LimitCycles(Result):
    """Predicted oscillations of the exact loop.

    Attributes
    ----------
    model : str
        What was assumed, in words.
    limit_cycles : tuple of LimitCycle
        The largest first; empty where none is predicted.
    """

    model: str
    limit_cycles: tuple[LimitCycle, ...]

    title = "Predicted oscillations"
    told = ("model", "limit_cycles")

    def rows(self) -> list[tuple[str, ...]]:
        """One row per oscillation."""
        rows: list[tuple[str, ...]] = [("model", self.model)]
        if not self.limit_cycles:
            return [*rows, ("none", "the loop is predicted to come to rest, or to drift")]
        rows += [
            (
                f"period {c.period_steps:.4g} steps",
                f"ema_1 {c.ema_bias:.4g} +- {c.ema_amplitude:.4g}",
                f"y {c.log_ratio_bias:.4g} +- {c.log_ratio_amplitude:.4g}",
                ("trusted: " if c.trusted else "not trusted: ") + c.reason,
            )
            for c in self.limit_cycles
        ]
        return rows


def limit_cycles(loop: Any, plant: Any = None, *, disturbance: float = 0.0) -> LimitCycles:
    """Predict the oscillations of the exact loop, bias included.

    The stored average is taken to be B + A cos(wt). Floor, logarithm, plant (every harmonic of its
    input) and law are then exact; mean and first harmonic of the filtered raw weights must give B
    and A back. At w = pi this is not an approximation: an oscillation of period 2 has no other
    harmonics.

    Parameters
    ----------
    loop, plant
        A setting of two tasks and its plant, or their loop:
        :func:`~gabactl.control.linear.as_setting`. The interval is 1.
    disturbance : float
        Constant d, in nats, which biases the oscillation.

    Returns
    -------
    LimitCycles

    Raises
    ------
    InputError
        An interval above 1, or ``clamp_state``.

    Examples
    --------
    >>> from gabactl.plants import LogRatio
    >>> cycle = limit_cycles(GabaSpec(), LogRatio(-40.0, delay=5)).limit_cycles[0]
    >>> round(cycle.period_steps), cycle.trusted
    (22, True)
    """
    spec, plant = as_setting(loop, plant)
    if spec.interval != 1:
        raise InputError(f"interval = {spec.interval}: predicted for interval = 1; simulate others")
    if FLOORS[spec.floor_mode].replaces_state:
        raise InputError(
            f"floor_mode = {spec.floor_mode!r} clamps inside the filter: simulate it instead"
        )
    balance = _Balance(spec, plant_rational(plant), disturbance)
    rational = open_loop(spec, plant).rational
    cycles: list[LimitCycle] = []
    # The balance at rest has the slope 1 at most, so only crossings beyond -1 can oscillate.
    for w, _ in _crossings_beyond(rational):
        for found in balance.alternating() if w == math.pi else balance.sinusoidal(w):
            if not any(_same(found, old) for old in cycles):
                cycles.append(found)
    cycles.sort(key=lambda c: -c.ema_amplitude)
    return LimitCycles("exact loop, first harmonic of the stored average", tuple(cycles))


def _same(one: LimitCycle, other: LimitCycle) -> bool:
    return (
        abs(one.ema_amplitude - other.ema_amplitude) < 1e-4 * other.ema_amplitude
        and abs(one.frequency_rad_per_step - other.frequency_rad_per_step) < 1e-5
    )


class _Balance:
    """Harmonic balance of the exact loop."""

    def __init__(self, spec: GabaSpec, plant: Rational, disturbance: float) -> None:
        self._spec, self._plant, self._d = spec, plant, disturbance
        self._phases = 2 * math.pi * np.arange(_SAMPLES) / _SAMPLES

    def _log_weights(self, ema: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.clip(ema, 1e-12, 1.0 - 1e-12)
        w = saturate(np.stack([x, 1.0 - x], axis=-1), self._spec.floor, self._spec.floor_mode)
        return np.asarray(np.log(w[..., 0] / w[..., 1]))

    def _filter(self, w: Any) -> Any:
        return (1.0 - self._spec.beta) / (1.0 - self._spec.beta * np.exp(-1j * w))

    def _answer(self, bias: float, amplitude: float, w: float) -> tuple[Any, Any]:
        """Harmonics 0, 1, 2, ... of the raw weight, and the waveform of y, for one guess."""
        u = self._log_weights(bias + amplitude * np.cos(self._phases))
        harmonics = np.fft.rfft(u) / _SAMPLES
        orders = np.arange(harmonics.size)
        with np.errstate(all="ignore"):
            response = self._plant.at(orders * w)
        y = self._d + np.fft.irfft(harmonics * response, _SAMPLES) * _SAMPLES
        raw = 1.0 / (1.0 + np.exp(np.clip(y, -600, 600)))
        return np.fft.rfft(raw) / _SAMPLES, y

    def sinusoidal(self, first: float) -> Iterator[LimitCycle]:
        def residual(unknown: NDArray[np.float64]) -> NDArray[np.float64]:
            bias, amplitude, w = _squash(unknown)
            raw, _ = self._answer(bias, amplitude, w)
            error = 2.0 * raw[1] * self._filter(w) / amplitude - 1.0
            return np.array([(raw[0].real - bias) / 0.1, error.real, error.imag])

        centre = 1.0 / (1.0 + math.exp(min(max(self._d, -30), 30)))
        biases = {0.5, min(max(centre, 0.02), 0.98)}
        sizes = np.geomspace(1e-3, 0.45, 10)
        for bias, amplitude, w in _solutions(residual, sizes, biases, first):
            if amplitude > 1e-6 and 1e-4 < w < math.pi - 1e-6:
                yield self._describe(bias, amplitude, w)

    def _describe(self, bias: float, amplitude: float, w: float) -> LimitCycle:
        raw, y = self._answer(bias, amplitude, w)
        orders = np.arange(2, min(raw.size, 9))
        others = 2.0 * np.abs(raw[orders] * self._filter(orders * w)) / amplitude
        distortion = float(np.sqrt((others**2).sum()))
        inside = bias - amplitude > 0.0 and bias + amplitude < 1.0
        trusted = distortion < _TRUSTED_DISTORTION and inside
        reason = f"other harmonics are {100 * distortion:.2g} % of the average's swing"
        if not inside:
            reason = "the sinusoid would leave the simplex"
        return LimitCycle(
            ema_bias=bias,
            ema_amplitude=amplitude,
            log_ratio_bias=float(y.mean()),
            log_ratio_amplitude=float(y.max() - y.min()) / 2,
            frequency_rad_per_step=w,
            period_steps=2 * math.pi / w,
            distortion=distortion,
            trusted=trusted,
            reason=reason,
        )

    def alternating(self) -> Iterator[LimitCycle]:
        """Period 2, exactly: the average alternates between bias +- amplitude."""
        dc, flip = (float(np.real(self._plant(z))) for z in (1.0, -1.0))

        def answer(bias: float, amplitude: float) -> tuple[NDArray[np.float64], Any]:
            u = self._log_weights(np.array([bias + amplitude, bias - amplitude]))
            y = self._d + dc * u.mean() + flip * (u[0] - u[1]) / 2 * np.array([1.0, -1.0])
            return 1.0 / (1.0 + np.exp(np.clip(y, -600, 600))), y

        def residual(unknown: NDArray[np.float64]) -> NDArray[np.float64]:
            bias, amplitude, _ = _squash(unknown)
            raw, _ = answer(bias, amplitude)
            swing = np.real(self._filter(math.pi)) * (raw[0] - raw[1]) / 2
            return np.array([(raw.mean() - bias) / 0.1, swing / amplitude - 1.0])

        sizes = np.geomspace(1e-4, 0.45, 12)
        for bias, amplitude, _ in _solutions(residual, sizes, (0.5, 0.1, 0.9)):
            if amplitude < 1e-9:
                continue
            _, y = answer(bias, amplitude)
            yield LimitCycle(
                ema_bias=bias,
                ema_amplitude=amplitude,
                log_ratio_bias=float(y.mean()),
                log_ratio_amplitude=abs(float(y[0] - y[1])) / 2,
                frequency_rad_per_step=math.pi,
                period_steps=2.0,
                distortion=0.0,
                trusted=True,
                reason="period 2 has no other harmonics",
            )


def _solutions(
    residual: Callable[..., Any], amplitudes: Any, biases: Iterable[float], *frequency: float
) -> Iterator[tuple[float, float, float]]:
    """Where the residual vanishes: searched from every amplitude and bias, and one frequency."""
    for amplitude, bias in product(amplitudes, biases):
        fractions = np.array([bias, 2 * amplitude, *(w / math.pi for w in frequency)])
        p = np.clip(fractions, 1e-9, 1 - 1e-9)
        guess = np.log(p / (1.0 - p))
        solution, info, ok, _ = optimize.fsolve(residual, guess, full_output=True)
        if ok == 1 and np.abs(info["fvec"]).max() <= 1e-8:
            yield _squash(solution)


def _squash(unknown: NDArray[np.float64]) -> tuple[float, float, float]:
    """Any numbers to a bias in (0, 1), an amplitude in (0, 1/2) and a frequency in (0, pi)."""
    squashed = 1.0 / (1.0 + np.exp(-np.clip([*unknown, 0.0][:3], -40.0, 40.0)))
    bias, amplitude, w = squashed
    return float(bias), float(amplitude) / 2, float(w) * math.pi
