"""Stability margins that are right in discrete time, each with the perturbation that proves it.

Only a stable loop has margins. An unstable one is told which gains would stabilise it.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from gabactl.base import plots
from gabactl.base.checks import check_real
from gabactl.base.errors import InputError
from gabactl.control._rational import Rational, Stability, root_counter, roots_of, stability_of
from gabactl.control.linear import ClosedLoop, Loop, as_loop, format_roots

__all__ = ["Margins", "confirm_witnesses", "margins", "stabilising_gains"]

_MOST_DELAY = 1_000_000
#: A loop whose gain only touches 1 does so at single frequencies: a few delays tell.
_MOST_DELAY_TOUCHING = 256
#: A closed-loop pole this close to the circle, as |1 + L z^-n| at a gain crossing, is on it; and a
#: loop gain this close to 1 touches it.
_TOUCHING = 1e-9
#: Told in decibels too.
_FACTORS = ("gain_margin_up", "gain_margin_down", "disk_gain_up", "disk_gain_down", "ms", "mt")


@dataclass(frozen=True)
class Witness:
    """The smallest perturbation that takes stability away.

    Attributes
    ----------
    factor : complex
        What multiplies the loop (1 for a delay).
    frequency_rad_per_step : float or None
        Where the closed loop then has a pole on the unit circle.
    stable_steps, unstable_steps : int or None
        For the delay margin: extra steps that are, and that are no longer, stable.
    """

    factor: complex = 1.0
    frequency_rad_per_step: float | None = None
    stable_steps: int | None = None
    unstable_steps: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that apply."""
        if self.stable_steps is not None:
            return {"stable_steps": self.stable_steps, "unstable_steps": self.unstable_steps}
        return {
            "factor": complex(self.factor),
            "frequency_rad_per_step": self.frequency_rad_per_step,
        }


@dataclass(frozen=True)
class Margins(ClosedLoop):
    """Margins of a negative-feedback loop L, or the verdict where it has none.

    Infinite values mean that no such perturbation takes stability away; ``reasons`` says why.

    Attributes
    ----------
    closed : Stability
        Closed-loop poles and verdict.
    interval : int
        Steps per sample of L; 1 for a python-control system.
    disk_skew : float
        Skew of the disk margin.
    gain_margin_up, gain_margin_down : float or None
        Nearest factors above and below 1 at which stability is lost (infinite, or 0, if none).
    phase_margin_deg : float or None
        Smallest rotation e^jx of the loop, either way, that takes stability away.
    delay_margin_steps : int, math.inf or None
        Largest n such that 0, 1, ..., n extra steps are all stable.
    disk_margin : float or None
        alpha = 1/max|S + (skew - 1)/2|: complex factors (1 + (1-skew)/2 d)/(1 - (1+skew)/2 d) with
        \\|d\\| < alpha keep the loop stable (Seiler, Packard and Gahinet, "An Introduction to Disk
        Margins", IEEE Control Systems Magazine 40(5), 2020).
    disk_gain_down, disk_gain_up, disk_phase_deg : float or None
        Real gains, and rotations, that the disk contains.
    ms, mt : float or None
        Peaks of the sensitivity 1/(1+L) and of L/(1+L).
    witnesses : dict of str to Witness
        By name of the margin: the perturbation that takes stability away.
    stabilising_gains : tuple of (float, float)
        For an unstable loop: ranges of a real factor that stabilise it (negative: sign reversed).
    reasons : dict of str to str
        Why a value is null or infinite.
    """

    closed: Stability
    interval: int
    disk_skew: float
    gain_margin_up: float | None = None
    gain_margin_down: float | None = None
    phase_margin_deg: float | None = None
    delay_margin_steps: float | None = None
    disk_margin: float | None = None
    disk_gain_down: float | None = None
    disk_gain_up: float | None = None
    disk_phase_deg: float | None = None
    ms: float | None = None
    mt: float | None = None
    witnesses: dict[str, Witness] = field(default_factory=dict)
    stabilising_gains: tuple[tuple[float, float], ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)

    title = "Margins"
    told = (
        *("stable", "verdict", "poles", "spectral_radius"),
        *("gain_margin_up", "gain_margin_down", "disk_gain_up", "disk_gain_down"),
        *("phase_margin_deg", "delay_margin_steps", "disk_margin", "disk_phase_deg"),
        *("disk_skew", "ms", "mt", "witnesses", "stabilising_gains", "reasons"),
    )

    def headline(self) -> str:
        """The verdict; of a stable loop, the margins too."""
        if not self.stable:
            return self.verdict
        return (
            f"stable, gain margin up {_gain(self.gain_margin_up)}, "
            f"phase margin {_degrees(self.phase_margin_deg)}, delay margin {self._delay_text()}"
        )

    def _draw(self, ax: Any) -> None:
        """Gain and phase errors that the loop stands at once, and each alone."""
        if not self.stable or self.disk_margin is None:
            plots.unit_circle(self.poles, f"no margins: the loop is {self.verdict}", ax)
            return
        turn = np.exp(1j * np.linspace(0, 2 * np.pi, 721)[:-1])
        radius = min(self.disk_margin, 0.999 * 2 / (1 + abs(self.disk_skew)))
        edge = np.array([disk_factor(radius * z, self.disk_skew) for z in turn])
        gain, phase = 20 * np.log10(np.abs(edge)), np.degrees(np.angle(edge))
        ax.fill(gain, phase, alpha=0.25, color=plots.PALETTE[0], label="disk margin")
        for value in (self.gain_margin_down, self.gain_margin_up):
            if value is not None and 0 < value < math.inf:
                ax.plot(20 * np.log10(value), 0, "o", color=plots.PALETTE[1])
        turns = self.phase_margin_deg
        if turns is not None and math.isfinite(turns):
            ax.plot([0, 0], [turns, -turns], "s", color=plots.PALETTE[2])
        ax.plot([], [], "o", color=plots.PALETTE[1], label="gain margins")
        ax.plot([], [], "s", color=plots.PALETTE[2], label="phase margin")
        ax.set(xlabel="gain error, dB", ylabel="phase error, degrees", title=self.title)
        ax.legend()

    def facts(self) -> dict[str, Any]:
        """The attributes, each gain also in dB (``_db``), ``reasons`` beside nulls."""
        told: dict[str, Any] = {}
        for name, value in super().facts().items():
            told[name] = value
            if name in _FACTORS:
                told[name + "_db"] = _db(value)
        ranges = [[lo, hi if hi < math.inf else None] for lo, hi in self.stabilising_gains]
        witnesses = {name: w.to_dict() for name, w in self.witnesses.items()}
        return told | {"witnesses": witnesses, "stabilising_gains": ranges}

    def rows(self) -> list[tuple[str, ...]]:
        """Verdict, then every margin with its witness; or what would stabilise the loop."""
        rows: list[tuple[str, ...]] = [
            ("closed loop", self.verdict, f"largest pole {self.spectral_radius:.6g}")
        ]
        if not self.stable:
            rows.append(("margins", "none", self.reasons["margins"]))
            if self.verdict == "unstable":
                ranges = " or ".join(_range(lo, hi) for lo, hi in self.stabilising_gains)
                rows.append(("stable with the gain times", ranges or "nothing (no factor does)"))
            return rows
        rows += [
            ("gain margin up", _gain(self.gain_margin_up), self._where("gain_margin_up")),
            ("gain margin down", _gain(self.gain_margin_down), self._where("gain_margin_down")),
            ("phase margin", _degrees(self.phase_margin_deg), self._where("phase_margin_deg")),
            ("delay margin", self._delay_text(), self.reasons.get("delay_margin_steps", "")),
            (
                f"disk margin (skew {self.disk_skew:g})",
                f"{self.disk_margin:.4g}",
                f"gain {_plain(self.disk_gain_down)} to {_plain(self.disk_gain_up)}, "
                f"phase +-{_degrees(self.disk_phase_deg)}",
            ),
            ("peak of S (Ms)", _gain(self.ms), self._where("ms")),
            ("peak of T (Mt)", _gain(self.mt), self._where("mt")),
        ]
        return rows

    def _where(self, name: str) -> str:
        witness = self.witnesses.get(name)
        if witness is None or witness.frequency_rad_per_step is None:
            return self.reasons.get(name, "")
        return f"at {witness.frequency_rad_per_step:.5g} rad/step"

    def _delay_text(self) -> str:
        n = self.delay_margin_steps
        return "none needed (any delay)" if n is None or math.isinf(n) else f"{int(n)} steps"


def margins(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    skew: float = 0.0,
) -> Margins:
    """Every margin of a loop under negative feedback, or the reason why it has none.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`. With a sampled sensor the loop is lifted, and delays
        count in optimisation steps; with a python-control system they count in its samples.
    skew : float
        Skew of the disk margin: 0 balances S and T, 1 uses S alone (alpha = 1/Ms), -1 T alone
        (alpha = 1/Mt).

    Returns
    -------
    Margins

    Raises
    ------
    InputError
        A skew that is not finite, or a loop with 1 + L = 0 at infinity.

    Notes
    -----
    Gain margins are at the real points of L on the whole circle, z = 1 and z = -1 included; the
    phase and delay margins at |L| = 1; peaks by branch and bound. All are found by bisection with
    interval bounds on the factored loop, so no grid can miss one; what remains is rounding of the
    coefficients. The delay margin counts closed-loop poles with the argument principle.

    Examples
    --------
    The gain margin that is at z = -1:

    >>> import control
    >>> loop = control.TransferFunction([0.01 * 50], [1, -0.99], 1)
    >>> round(margins(loop).gain_margin_up, 6)  # 199/50
    3.98
    """
    check_real("skew", skew, "such as 0 (balanced)")
    found = as_loop(loop, plant, ratio, sensor_delay)
    rational, interval = found.rational, found.interval
    if abs(rational.characteristic()[0]) < 1e-14 * abs(rational.denominator[0]):
        raise InputError(
            "1 + L vanishes at infinity (an algebraic loop): add a delay of one step to the loop"
        )
    closed = rational.closed()
    if not closed.stable:
        return _without_margins(rational, closed, interval, skew)
    witnesses: dict[str, Witness] = {}
    reasons: dict[str, str] = {}
    up, down = _gain_margins(rational, interval, witnesses, reasons)
    phase = _phase_margin(rational, interval, witnesses, reasons)
    delay, why = delay_margin(partial(_delayed, found), interval)
    if why:
        reasons["delay_margin_steps"] = why
    else:
        n = int(delay)
        witnesses["delay_margin_steps"] = Witness(stable_steps=n, unstable_steps=n + 1)
    ms, at = sensitivity_peak(rational, closed)
    witnesses["ms"] = Witness(frequency_rad_per_step=at / interval)
    mt, at = complementary_peak(rational, closed)
    witnesses["mt"] = Witness(frequency_rad_per_step=at / interval)
    alpha, factor, at = disk_margin(rational, closed, skew)
    if math.isinf(alpha):
        what = "constant: no factor in a disk of this skew" if rational.gain else "open: nothing"
        reasons["disk_margin"] = f"the loop is {what} can destabilise it"
    else:
        witnesses["disk_margin"] = Witness(factor, at / interval)
    gain_down, gain_up, disk_phase = disk_contents(alpha, skew)
    if math.isinf(gain_up):
        reasons["disk_gain_up"] = "the disk holds every larger gain"
    return Margins(
        closed=closed,
        interval=interval,
        disk_skew=skew,
        gain_margin_up=up,
        gain_margin_down=down,
        phase_margin_deg=phase,
        delay_margin_steps=delay,
        disk_margin=alpha,
        disk_gain_down=gain_down,
        disk_gain_up=gain_up,
        disk_phase_deg=disk_phase,
        ms=ms,
        mt=mt,
        witnesses=witnesses,
        reasons=reasons,
    )


def stabilising_gains(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
) -> tuple[tuple[float, float], ...]:
    """Ranges of a positive factor on the loop for which the closed loop is stable.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`.

    Returns
    -------
    tuple of (float, float)
        Open ranges, in order; the last may end at infinity.

    Notes
    -----
    Poles cross the circle only at the gains k with k L = -1 on it, so one look inside each range
    between them decides the range.

    Examples
    --------
    >>> import control
    >>> stabilising_gains(control.TransferFunction([3.0], [1, -2], 1))  # stable for 1 < 3k < 3
    ((0.333..., 1.0),)
    """
    rational = as_loop(loop, plant, ratio, sensor_delay).rational
    edges = [0.0]
    for k in sorted(k for k, _ in _critical_gains(rational)):
        # Where a pair of poles only touches the circle, its factor comes twice, within rounding.
        if k - edges[-1] > 1e-12 * k:
            edges.append(k)
    ranges: list[tuple[float, float]] = []
    for lo, hi in pairwise([*edges, math.inf]):
        middle = (lo + hi) / 2 if math.isfinite(hi) else 2.0 * lo + 1.0
        if rational.closed(middle).stable:
            if ranges and ranges[-1][1] == lo:
                ranges[-1] = (ranges[-1][0], hi)
            else:
                ranges.append((lo, hi))
    return tuple(ranges)


def confirm_witnesses(
    loop: Any, result: Margins, inside: float = 0.999, outside: float = 1.001
) -> dict[str, bool]:
    """Apply every witness, a little smaller and a little larger, and see stability lost between.

    Parameters
    ----------
    loop : Loop, control.TransferFunction or control.StateSpace
        The loop the margins are of.
    result : Margins
        From :func:`margins`.
    inside, outside : float
        Scales of the perturbation (of log gain, angle, or disk radius).

    Returns
    -------
    dict of str to bool
        True where the loop is stable inside and not stable outside.

    Examples
    --------
    >>> import control
    >>> loop = control.TransferFunction([0.01 * 50], [1, -0.99], 1)
    >>> sorted(confirm_witnesses(loop, margins(loop)).items())
    [('delay_margin_steps', True), ('disk_margin', True), ('gain_margin_up', True), ('phase_margin_deg', True)]
    """
    found = as_loop(loop)
    rational = found.rational
    outcome: dict[str, bool] = {}
    for name, witness in result.witnesses.items():
        if name in ("ms", "mt"):
            continue
        if name == "delay_margin_steps":
            n = witness.stable_steps
            if n is not None and n < 300:  # a polynomial root finder is too slow beyond
                outcome[name] = _confirmed_delay(found, n)
            continue
        within, at, beyond = (
            rational.closed(_scaled(name, witness.factor, result.disk_skew, scale)).stable
            for scale in (inside, 1.0, outside)
        )
        # Where the loop only touches the critical point, stability is lost there and regained.
        outcome[name] = within and not (at and beyond)
    return outcome


def _scaled(name: str, factor: complex, skew: float, scale: float) -> complex:
    """A witness's perturbation, made larger or smaller in its own measure."""
    if name == "disk_margin":
        return disk_factor(scale * disk_delta(factor, skew), skew)
    return cmath.exp(scale * cmath.log(factor))


def _delayed(loop: Loop, steps: int) -> Rational:
    return loop.delayed(steps).rational


def _without_margins(rational: Rational, closed: Stability, interval: int, skew: float) -> Margins:
    ranges: tuple[tuple[float, float], ...] = ()
    if closed.verdict == "neutral":
        reason = "the closed loop has a pole on the unit circle: any push moves it for good"
    else:
        outside = closed.poles[np.abs(closed.poles) > 1.0]
        reason = f"the closed loop is unstable (poles {format_roots(outside, 3)})"
        ranges = stabilising_gains(rational)
        ranges = ranges or tuple((-hi, -lo) for lo, hi in stabilising_gains(rational * -1.0))
    reasons = {"margins": reason}
    return Margins(closed, interval, skew, stabilising_gains=ranges, reasons=reasons)


def _critical_gains(rational: Rational) -> list[tuple[float, float]]:
    """Positive factors that put a closed-loop pole on the circle, with its frequency."""
    w = rational.phase_crossings()
    # A zero of the loop on the circle, met to rounding, is no crossing at some huge gain.
    numerator = rational.numerator
    rounding = 64 * np.finfo(float).eps * float(np.abs(numerator).sum())
    w = w[np.abs(np.polyval(numerator, np.exp(1j * w))) > rounding]
    factors = -1.0 / np.real(rational.at(w))
    # With open-loop poles on the circle a factor of 0 is itself critical, and no margin.
    least = 0.0
    if stability_of(rational.denominator).verdict == "neutral":
        least = 1e-9
    return [(float(k), float(at)) for k, at in zip(factors, w, strict=True) if k > least]


def _gain_margins(
    rational: Rational, interval: int, witnesses: dict[str, Witness], reasons: dict[str, str]
) -> tuple[float, float]:
    critical = _critical_gains(rational)
    up = min(((k, w) for k, w in critical if k > 1.0), default=None)
    down = max(((k, w) for k, w in critical if k < 1.0), default=None)
    if up:
        witnesses["gain_margin_up"] = Witness(complex(up[0]), up[1] / interval)
    else:
        reasons["gain_margin_up"] = "stable for every larger gain"
    if down:
        witnesses["gain_margin_down"] = Witness(complex(down[0]), down[1] / interval)
    else:
        reasons["gain_margin_down"] = "stable for every smaller gain"
    return up[0] if up else math.inf, down[0] if down else 0.0


def _phase_margin(
    rational: Rational, interval: int, witnesses: dict[str, Witness], reasons: dict[str, str]
) -> float | None:
    w = rational.gain_crossings()
    if w.size == 0:
        peak = rational.peak()[0]
        if abs(peak - 1.0) < 1e-12:
            reasons["phase_margin_deg"] = "the loop gain is 1 at every frequency: none stands out"
            return None
        side = "below" if peak < 1.0 else "above"
        reasons["phase_margin_deg"] = f"the loop gain is {side} 1 at every frequency"
        return math.inf
    angles = np.angle(-1.0 / rational.at(w))
    nearest = int(np.abs(angles).argmin())
    angle = float(angles[nearest])
    witnesses["phase_margin_deg"] = Witness(cmath.exp(1j * angle), float(w[nearest]) / interval)
    return abs(math.degrees(angle))


def _confirmed_delay(loop: Loop, n: int) -> bool:
    return _delayed(loop, n).closed().stable and not _delayed(loop, n + 1).closed().stable


def _db(ratio: float | None) -> float | None:
    if ratio is None:
        return None
    return 20.0 * math.log10(ratio) if ratio > 0.0 else -math.inf


def _gain(ratio: float | None) -> str:
    if ratio is None:
        return "none"
    if math.isinf(ratio):
        return "infinite"
    return "any reduction" if ratio == 0.0 else f"{ratio:.5g} ({_db(ratio):.2f} dB)"


def _plain(value: float | None) -> str:
    return "infinite" if value is None or math.isinf(value) else f"{value:.4g}"


def _degrees(value: float | None) -> str:
    if value is None:
        return "none"
    return "infinite" if math.isinf(value) else f"{value:.4g} deg"


def _range(lo: float, hi: float) -> str:
    return f"{lo:.5g} to {'infinity' if math.isinf(hi) else f'{hi:.5g}'}"


def delay_margin(delayed: Callable[[int], Rational], interval: int) -> tuple[float, str | None]:
    """Largest n such that 0, 1, ..., n extra steps are all stable, or infinity with the reason.

    Parameters
    ----------
    delayed : callable
        From extra steps, 0 to ``interval`` - 1, to the loop at its readings. ``interval`` more
        steps are one more reading, z^-1.
    interval : int
        Steps between readings.

    Examples
    --------
    >>> loop = Rational.of([], [0.5], 1.0)  # 1/(z - 1/2), unstable with one step more
    >>> delay_margin(loop.delayed, 1)
    (0, None)
    """
    failing: list[int] = []
    loudest = 0.0
    for extra in range(interval):
        loop = delayed(extra)
        peak = loop.peak()[0]
        loudest = max(loudest, peak)
        if peak < 1.0 - _TOUCHING:
            continue  # small gain: |L| < 1 everywhere, and delays do not change |L|
        most = _MOST_DELAY if peak > 1.0 + _TOUCHING else _MOST_DELAY_TOUCHING
        bad = _first_unstable(root_counter(loop), most)
        if bad is not None:
            failing.append(bad * interval + extra)
    if failing:
        return min(failing) - 1, None
    if loudest <= 1.0 + _TOUCHING:
        return math.inf, "the loop gain does not exceed 1 at any frequency"
    return math.inf, f"stable with any delay up to {_MOST_DELAY} readings"


def _first_unstable(count: Callable[..., Any], most: int) -> int | None:
    """Least delay with a closed-loop pole outside or on the circle."""
    start, size = 0, 64
    while start <= most:
        n = np.arange(start, start + size)
        outside, gap = count(n)
        bad = np.flatnonzero((outside > 0) | (gap < _TOUCHING))
        if bad.size:
            return int(n[bad[0]])
        start, size = start + size, min(size * 4, 65_536)
    return None


def sensitivity_peak(loop: Rational, closed: Stability) -> tuple[float, float]:
    """Largest \\|1/(1 + L)\\| on the circle, and its w."""
    if loop.gain == 0:
        return 1.0, 0.0
    return _over_closed(loop, closed, 1.0, 0.0).peak()


def complementary_peak(loop: Rational, closed: Stability) -> tuple[float, float]:
    """Largest \\|L/(1 + L)\\| on the circle, and its w."""
    return _over_closed(loop, closed, 0.0, 1.0).peak()


def disk_margin(loop: Rational, closed: Stability, skew: float) -> tuple[float, complex, float]:
    """alpha = 1/max|S + (skew - 1)/2|, the factor on its rim that destabilises, and its w.

    Seiler, Packard and Gahinet, "An Introduction to Disk Margins", IEEE Control Systems Magazine
    40(5), 2020. Infinite for an open loop, and for a constant one with S = (1 - skew)/2.
    """
    # S + c = (D + c (D + N))/(D + N)
    c = (skew - 1.0) / 2.0
    height, w = _over_closed(loop, closed, 1.0 + c, c).peak()
    if loop.gain == 0 or height == 0:
        return math.inf, complex(math.inf), 0.0
    delta = 1.0 / (1.0 / (1.0 + complex(loop.at(w))) + c)
    return 1.0 / height, disk_factor(delta, skew), w


def _over_closed(loop: Rational, closed: Stability, d: float, n: float) -> Rational:
    """(d D + n N)/(D + N), with the closed-loop poles for a denominator."""
    combined = np.trim_zeros(np.real(d * loop.denominator + n * loop.numerator), "f")
    if combined.size == 0:
        return Rational.of([], closed.poles, 0.0)
    zeros = loop.poles if n == 0.0 else roots_of(combined)
    leading = np.real(loop.characteristic()[0])
    return Rational.of(zeros, closed.poles, float(combined[0] / leading))


def disk_factor(delta: complex, skew: float) -> complex:
    """The factor (1 + (1-skew)/2 delta)/(1 - (1+skew)/2 delta)."""
    bottom = 1.0 - (1.0 + skew) / 2.0 * delta
    return (1.0 + (1.0 - skew) / 2.0 * delta) / bottom if bottom else complex(math.inf)


def disk_delta(factor: complex, skew: float) -> complex:
    """The delta of a factor: the inverse of :func:`disk_factor`."""
    return (factor - 1.0) / ((1.0 - skew) / 2.0 + (1.0 + skew) / 2.0 * factor)


def disk_contents(alpha: float, skew: float) -> tuple[float, float, float]:
    """Least and greatest real gain, and the angle in degrees, that the disk of factors holds."""
    if math.isinf(alpha):
        return 0.0, math.inf, math.inf
    low, high = (1.0 - skew) / 2.0 * alpha, (1.0 + skew) / 2.0 * alpha
    ends = [
        (1.0 + sign * low) / (1.0 - sign * high) if sign * high != 1.0 else math.inf
        for sign in (1.0, -1.0)
    ]
    # The rim meets the real axis in two places. Where the disk is the outside of a circle
    # (|high| > 1) both are on one side of 1, and the gains on the other side are all in it.
    down = max(end for end in (0.0, *ends) if end < 1.0)
    up = min(end for end in (math.inf, *ends) if end > 1.0)
    return down, up, _disk_phase(alpha, skew)


def _disk_phase(alpha: float, skew: float) -> float:
    """Largest angle x such that e^jx is in the disk."""
    # delta = 2 (f - 1)/((1 - skew) + (1 + skew) f); on f = e^jx: |delta| = 2 t/sqrt(1 + skew^2 t^2),
    # t = tan(x/2).
    rest = 4.0 - (skew * alpha) ** 2
    return math.degrees(2.0 * math.atan(alpha / math.sqrt(rest))) if rest > 0.0 else 180.0
