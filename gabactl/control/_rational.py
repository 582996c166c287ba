"""Rational functions in factored form on the unit circle, with searches that miss nothing.

Everything the margins need is a question about a function R(z) = k prod(z - zero)/prod(z - pole) at
z = e^jw: where its modulus is 1, where its phase is a multiple of pi, where its modulus peaks.
In factored form each is answered by bisection with proof: on an arc the distance from every root
is bounded above and below, which bounds log|R|, and bounds both derivatives of log R; an arc is
dropped only where those bounds exclude what is sought, and a crossing is refined only where they
prove the function monotone. The first grid therefore does not matter. What remains is rounding: the
roots are eigenvalues of a companion matrix, exact for coefficients within a few units of the last
place of the given ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, signal

from gabactl.base.errors import InputError, packages_for

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_HIGHEST_ORDER = 500
#: Arcs shorter than this are points.
_POINT = 1e-13
#: Rounding allowed for in the bounds, so that a crossing on the border of two arcs is in one.
_SLACK = 1e-11
#: More undecided arcs than any loop with separate crossings leaves.
_MOST_ARCS = 100_000


@dataclass(frozen=True)
class Stability:
    """Verdict on a set of closed-loop poles.

    Attributes
    ----------
    verdict : {"stable", "neutral", "unstable"}
        ``neutral``: no pole outside, and at least one on the circle to within rounding.
    poles : array of complex
        Largest modulus first.
    """

    verdict: str
    poles: Complex

    @property
    def stable(self) -> bool:
        """All poles strictly inside the unit circle."""
        return self.verdict == "stable"

    @property
    def radius(self) -> float:
        """Largest modulus (0 without poles)."""
        return float(np.abs(self.poles[0])) if self.poles.size else 0.0


def roots_of(coefficients: ArrayLike) -> Complex:
    """Roots of a polynomial (highest power first); roots at 0 are found exactly.

    Examples
    --------
    >>> roots_of([1.0, -0.5, 0.0, 0.0]).real.tolist()
    [0.5, 0.0, 0.0]
    """
    c = np.trim_zeros(np.atleast_1d(np.asarray(coefficients)), "f")
    trimmed = np.trim_zeros(c, "b")
    if c.size == 0:
        raise InputError("a polynomial that is zero everywhere has no roots: check the system")
    return np.concatenate(
        [np.roots(trimmed).astype(np.complex128), np.zeros(c.size - trimmed.size, np.complex128)]
    )


def stability_of(coefficients: ArrayLike) -> Stability:
    """Verdict on the roots of a (real or complex) characteristic polynomial.

    A root counts as on the circle where a change of the coefficients by rounding could put it
    there: within 32 eps sum|c| / |Q'(root)|, at most 1e-7.

    Examples
    --------
    >>> stability_of([1.0, -0.5]).verdict, stability_of([1.0, -1.0]).verdict
    ('stable', 'neutral')
    """
    c = np.trim_zeros(np.atleast_1d(np.asarray(coefficients)), "f")
    if c.size - 1 > _HIGHEST_ORDER:
        raise InputError(
            f"a closed loop of order {c.size - 1} is beyond {_HIGHEST_ORDER}, where polynomial roots "
            "cannot be trusted: use a shorter delay, or an interval (lifting divides the delay by it)"
        )
    poles = roots_of(c)
    poles = poles[np.argsort(-np.abs(poles), kind="stable")]
    if poles.size == 0:
        return Stability("stable", poles)
    slope = np.abs(np.polyval(np.polyder(c), poles))
    with np.errstate(divide="ignore"):
        slack = np.minimum(32 * _EPS * np.abs(c).sum() / slope, 1e-7)
    excess = np.abs(poles) - 1.0
    if (excess > slack).any():
        return Stability("unstable", poles)
    return Stability("neutral" if (excess >= -slack).any() else "stable", poles)


@dataclass(frozen=True, eq=False)
class Rational:
    """R(z) = gain prod(z - zeros)/prod(z - poles), real on the real axis unless ``gain`` is complex."""

    zeros: Complex
    poles: Complex
    gain: complex

    @classmethod
    def of(cls, zeros: ArrayLike, poles: ArrayLike, gain: complex) -> Rational:
        """From roots; factors z common to both are cancelled (they are delays, not modes)."""
        z = np.asarray(zeros, dtype=np.complex128).ravel()
        p = np.asarray(poles, dtype=np.complex128).ravel()
        common = min(int((z == 0).sum()), int((p == 0).sum()))
        return cls(_drop_zeros(z, common), _drop_zeros(p, common), gain)

    @classmethod
    def from_coefficients(cls, numerator: ArrayLike, denominator: ArrayLike) -> Rational:
        """From coefficients, highest power first."""
        num = np.trim_zeros(np.atleast_1d(np.asarray(numerator, dtype=np.float64)), "f")
        den = np.trim_zeros(np.atleast_1d(np.asarray(denominator, dtype=np.float64)), "f")
        if num.size == 0:
            return cls.of([], roots_of(den), 0.0)
        return cls.of(roots_of(num), roots_of(den), float(num[0] / den[0]))

    @classmethod
    def from_lti(cls, system: Any) -> Rational:
        """From a python-control SISO discrete TransferFunction or StateSpace (or a number)."""
        if isinstance(system, (int, float)):
            return cls.of([], [], float(system))
        if not hasattr(system, "ninputs") or not (hasattr(system, "num") or hasattr(system, "A")):
            raise InputError(
                f"system of type {type(system).__name__}: give a control.TransferFunction or "
                "control.StateSpace"
            )
        if system.ninputs != 1 or system.noutputs != 1:
            raise InputError(
                f"system with {system.ninputs} inputs and {system.noutputs} outputs: give a loop "
                "with one of each"
            )
        if not system.dt:  # None and 0 are python-control's continuous (or unstated) time
            raise InputError(
                f"system with dt = {system.dt!r}: give a discrete-time system, such as dt=1"
            )
        if hasattr(system, "A"):
            return cls.from_coefficients(*_coefficients_of_states(system))
        num, den = system.num[0][0], system.den[0][0]
        if len(np.trim_zeros(num, "f")) > len(np.trim_zeros(den, "f")):
            raise InputError(
                "system with more zeros than poles: it would answer before it is asked"
            )
        return cls.from_coefficients(num, den)

    def __mul__(self, other: Rational | complex) -> Rational:
        if isinstance(other, Rational):
            return Rational.of(
                np.concatenate([self.zeros, other.zeros]),
                np.concatenate([self.poles, other.poles]),
                self.gain * other.gain,
            )
        return Rational(self.zeros, self.poles, self.gain * other)

    def delayed(self, steps: int) -> Rational:
        """R(z) z^-steps."""
        return Rational.of(self.zeros, np.concatenate([self.poles, np.zeros(steps)]), self.gain)

    @cached_property
    def numerator(self) -> NDArray[Any]:
        """Coefficients, padded to the length of the longer of the two polynomials."""
        return self._padded(self.gain * _expand(self.zeros))

    @cached_property
    def denominator(self) -> NDArray[Any]:
        """Coefficients, padded likewise."""
        return self._padded(_expand(self.poles))

    def _padded(self, c: NDArray[Any]) -> NDArray[Any]:
        length = max(self.zeros.size, self.poles.size) + 1
        return np.concatenate([np.zeros(length - c.size), c])

    def to_control(self, dt: int = 1) -> Any:
        """As a python-control transfer function."""
        with packages_for("a python-control system"):
            import control

        num = np.trim_zeros(np.real(self.numerator), "f")
        return control.TransferFunction(
            num if num.size else [0.0], np.trim_zeros(np.real(self.denominator), "f"), dt
        )

    def __call__(self, z: ArrayLike) -> Complex:
        """Value at z (infinite at a pole)."""
        at = np.asarray(z, dtype=np.complex128)[..., None]
        # Interleaved, so that neither product overflows alone at high order.
        with np.errstate(all="ignore"):
            logs = np.log(at - self.zeros).sum(-1) - np.log(at - self.poles).sum(-1)
            return np.asarray(self.gain * np.exp(logs))

    def at(self, w: ArrayLike) -> Complex:
        """Value at e^jw."""
        return self(np.exp(1j * np.asarray(w, dtype=np.float64)))

    def characteristic(self, factor: complex = 1.0) -> NDArray[Any]:
        """Coefficients of D + factor N: closed-loop poles under negative feedback."""
        return np.asarray(self.denominator + factor * self.numerator)

    def pulse(self, steps: int) -> Real:
        """The first answers to a pulse, shape (steps,)."""
        num, den = np.real(self.numerator), np.real(self.denominator)
        return np.asarray(signal.lfilter(num, den, signal.unit_impulse(steps)))

    def closed(self, factor: complex = 1.0) -> Stability:
        """Stability of negative feedback around factor R."""
        return stability_of(self.characteristic(factor))

    # -- bounds on an arc -------------------------------------------------------------------

    @cached_property
    def _roots(self) -> Complex:
        return np.concatenate([self.zeros, self.poles])

    @cached_property
    def _signs(self) -> Real:
        return np.concatenate([np.ones(self.zeros.size), -np.ones(self.poles.size)])

    def _log_modulus(self, w: Real) -> Real:
        with np.errstate(divide="ignore", invalid="ignore"):
            distances = np.abs(np.exp(1j * w)[..., None] - self._roots)
            return np.asarray((self._signs * np.log(distances)).sum(-1) + math.log(abs(self.gain)))

    def _log_slope(self, w: Real) -> Complex:
        """d/dw of log|R| (real part) and of arg R (imaginary part)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            q = 1.0 / (1.0 - self._roots * np.exp(-1j * w)[..., None])
            return np.asarray(1j * (self._signs * q).sum(-1))

    def _arc(self, lo: Real, hi: Real) -> tuple[Real, Real]:
        """Least and greatest distance of every root from each arc, shape (arcs, roots)."""
        angle, radius = np.angle(self._roots), np.abs(self._roots)
        ends = np.stack([lo, hi])[..., None]
        offsets = np.abs((ends - angle + math.pi) % (2 * math.pi) - math.pi)
        inside = _contains(lo[:, None], hi[:, None], angle)
        opposite = _contains(lo[:, None], hi[:, None], angle + math.pi)
        nearest = np.where(inside, 0.0, offsets.min(axis=0))
        farthest = np.where(opposite, math.pi, offsets.max(axis=0))
        return _chord(radius, nearest), _chord(radius, farthest)

    def _modulus_bounds(self, zeros: Real, poles: Real) -> Real:
        """log|R| for distances of the zeros and of the poles: least and most, or most and least."""
        up = self._signs > 0
        with np.errstate(divide="ignore"):
            above, below = np.log(zeros[:, up]).sum(1), np.log(poles[:, ~up]).sum(1)
        return np.asarray(above - below + math.log(abs(self.gain)))

    def _curvature(self, least: Real) -> Real:
        """Bound of |d^2 log R/dw^2| on each arc: sum of |r|/distance^2."""
        with np.errstate(divide="ignore"):
            return np.asarray((np.abs(self._roots) / least**2).sum(1))

    def _turn_bounds(self, least: Real) -> tuple[Real, Real]:
        """Bounds of |d arg R/dw| and |d^2 arg R/dw^2| on each arc.

        A root at radius r turns by 1/2 + (1 - r^2)/(2 d^2) at distance d: by 1/2 exactly if it is on
        the circle, where only its modulus varies. (The jump by pi there is no crossing.)
        """
        radius = np.abs(self._roots)
        off = np.abs(1.0 - radius**2)
        on_circle = off < 4 * _EPS
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.minimum(1.0 / least, 0.5 + off / (2.0 * least**2))
            second = np.minimum(radius / least**2, off * np.sqrt(radius) / least**3)
        first = np.where(on_circle, 0.5, first)
        second = np.where(on_circle, 0.0, second)
        return np.asarray(first.sum(1)), np.asarray(second.sum(1))

    def _first_arcs(self) -> tuple[Real, Real]:
        grid = np.linspace(0.0, math.pi, 4 * self._roots.size + 9)
        return grid[:-1], grid[1:]

    # -- searches ---------------------------------------------------------------------------

    def gain_crossings(self) -> Real:
        """Every w in [0, pi] with |R| = 1, in order (none where that is so everywhere).

        Examples
        --------
        >>> Rational.of([], [0.5], 1.0).gain_crossings().round(4).tolist()  # 1/|z - 1/2| = 1
        [1.3181]
        """
        if self.gain == 0:
            return np.empty(0)
        # |R| = 1 at more places than twice the number of roots: everywhere (as of a pure delay).
        if (np.abs(self._log_modulus(self._first_arcs()[0])) < 1e-13).all():
            return np.empty(0)

        def excluded(lo: Real, hi: Real, least: Real, most: Real) -> NDArray[np.bool_]:
            lower, upper = self._modulus_bounds(least, most), self._modulus_bounds(most, least)
            return np.asarray((lower > _SLACK) | (upper < -_SLACK))

        found = self._search(excluded, self._log_modulus, np.real, math.inf)
        ends = [w for w in (0.0, math.pi) if abs(float(self._log_modulus(np.array(w)))) < 1e-14]
        return _distinct([*found, *ends])

    def phase_crossings(self) -> Real:
        """Every w in [0, pi] with R real: 0, pi, and those between, in order.

        Examples
        --------
        >>> Rational.of([], [0.0, 0.0], 1.0).phase_crossings().round(4).tolist()  # z^-2
        [0.0, 1.5708, 3.1416]
        """
        if self.gain == 0 or self._roots.size == 0:
            return np.array([0.0, math.pi])

        def phase(w: Real) -> Real:
            """arg R less the nearest multiple of pi."""
            e = np.exp(1j * np.asarray(w))[..., None]
            total = (self._signs * np.angle(e - self._roots)).sum(-1)
            return np.asarray((total + math.pi / 2) % math.pi - math.pi / 2)

        def excluded(lo: Real, hi: Real, least: Real, most: Real) -> NDArray[np.bool_]:
            reach = self._turn_bounds(least)[0] * (hi - lo) / 2
            return np.asarray(np.abs(phase((lo + hi) / 2)) > reach * (1.0 + _SLACK) + _SLACK)

        found = self._search(excluded, phase, np.imag, math.pi / 2)
        inner = [w for w in found if 1e-12 < w < math.pi - 1e-12]
        return _distinct([0.0, *inner, math.pi])

    def _search(
        self,
        excluded: Callable[[Real, Real, Real, Real], NDArray[np.bool_]],
        value: Callable[[Real], Real],
        part: Callable[[Any], Any],
        largest_variation: float,
    ) -> list[float]:
        """Zeros of ``value`` by bisection: arcs are excluded, proved monotone, or halved."""
        lo, hi = self._first_arcs()
        found: list[float] = []
        while lo.size:
            if lo.size > _MOST_ARCS:
                raise InputError(
                    "the loop gain stays at 1, or the loop real, over a whole band of frequencies: "
                    "crossings cannot be told apart; cancel common poles and zeros"
                )
            least, most = self._arc(lo, hi)
            keep = ~excluded(lo, hi, least, most)
            lo, hi, least = lo[keep], hi[keep], least[keep]
            half, middle = (hi - lo) / 2, (lo + hi) / 2
            slope = part(self._log_slope(middle))
            if math.isfinite(largest_variation):
                turn, bend = self._turn_bounds(least)
                monotone = (np.abs(slope) > bend * half) & (turn * half < largest_variation / 2)
            else:
                monotone = np.abs(slope) > self._curvature(least) * half
            # A border may be a root, where there is no value, or the crossing itself: look past it.
            nudge = 1e-9 * half
            for a, b in zip((lo - nudge)[monotone], (hi + nudge)[monotone], strict=True):
                # Not < 0: rounding may leave a stretch of zeros on a border.
                if float(value(np.array(a))) * float(value(np.array(b))) <= 0.0:
                    w = optimize.brentq(lambda w: float(value(np.array(w))), a, b, xtol=1e-15)
                    found.append(min(max(w, 0.0), math.pi))
            rest = ~monotone
            points = rest & (half < _POINT)
            # A point that could not be excluded is a crossing that touches, unless it is a root.
            at_root = (least < 4 * _POINT).any(1)
            found += [float(w) for w in middle[points & ~at_root]]
            rest &= half >= _POINT
            lo, hi, middle = lo[rest], hi[rest], middle[rest]
            lo, hi = np.concatenate([lo, middle]), np.concatenate([middle, hi])
        return found

    def peak(self) -> tuple[float, float]:
        """Largest |R| on the circle, to 1e-9 relative, and its w.

        Infinite where a pole is on the circle.

        Examples
        --------
        >>> Rational.of([], [0.5], 1.0).peak()
        (2.0, 0.0)
        """
        if self.gain == 0:
            return 0.0, 0.0
        on_circle = self.poles[np.abs(np.abs(self.poles) - 1.0) < 4 * _EPS]
        if on_circle.size:
            return math.inf, float(abs(np.angle(on_circle[0])))
        lo, hi = self._first_arcs()
        seen = np.array([0.0, math.pi])
        values = self._log_modulus(seen)
        best, at = float(values.max()), float(seen[values.argmax()])
        while lo.size:
            middle, half = (lo + hi) / 2, (hi - lo) / 2
            values = self._log_modulus(middle)
            if values.max() > best:
                best, at = float(values.max()), float(middle[values.argmax()])
            least, most = self._arc(lo, hi)
            plain = self._modulus_bounds(most, least)
            with np.errstate(divide="ignore", invalid="ignore"):
                taylor = (
                    values
                    + np.abs(np.real(self._log_slope(middle))) * half
                    + self._curvature(least) * half**2 / 2
                )
            keep = (np.fmin(plain, taylor) > best + 1e-10) & (half > _POINT)
            lo, hi, middle = lo[keep], hi[keep], middle[keep]
            lo, hi = np.concatenate([lo, middle]), np.concatenate([middle, hi])
        return math.exp(best), at


def root_counter(loop: Rational) -> Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], Real]]:
    """A function of n: how many closed-loop poles of R z^-n are not inside the unit circle.

    The argument principle in closed form: on arcs with |R| < 1 the polynomial D z^n + N turns as
    D z^n does, on arcs with |R| > 1 as N does, up to an angle in (-pi/2, pi/2) at either end. Only
    the gain crossings are needed, so thousands of delays cost as little as one.

    Returns
    -------
    callable
        From delays, shape (m,), to counts, shape (m,), and the least distance |1 + R z^-n| at the
        crossings and at z = 1 and -1 (0 where a pole is on the circle).

    Examples
    --------
    >>> count = root_counter(Rational.of([], [0.5], 1.0))  # 1/(z - 1/2): stable with no extra step
    >>> count(np.array([0, 1, 2]))[0].tolist()
    [0, 2, 2]
    """
    crossings = loop.gain_crossings()
    edges = _distinct([0.0, *crossings, math.pi])
    lo, hi = edges[:-1], edges[1:]
    loud = loop._log_modulus((lo + hi) / 2) > 0 if loop.gain != 0 else np.zeros(lo.size, bool)
    zero_turn = _turn(loop.zeros, lo, hi)
    pole_turn = _turn(loop.poles, lo, hi)
    degree = loop.poles.size
    at_edges = loop.at(edges)
    # Computed apart: at an edge that is a pole the loop is infinite and its inverse 0.
    inverse_at_edges = (
        Rational(loop.poles, loop.zeros, 1.0 / loop.gain).at(edges) if loop.gain else at_edges
    )

    def count(delays: NDArray[np.int64]) -> tuple[NDArray[np.int64], Real]:
        n = np.asarray(delays)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            lag = np.exp(-1j * n * edges)
            return_difference = 1.0 + at_edges * lag
            quiet_angle = np.angle(return_difference)
            loud_angle = np.angle(1.0 + inverse_at_edges / lag)
        quiet = pole_turn + n * (hi - lo) + np.diff(quiet_angle)
        turns = np.where(loud, zero_turn + np.diff(loud_angle), quiet).sum(1)
        inside = np.rint(turns / math.pi).astype(np.int64)
        # At a pole on the circle there is no value, and no closed-loop pole either.
        return degree + n[:, 0] - inside, np.fmin.reduce(np.abs(return_difference), axis=1)

    return count


def _turn(roots: Complex, lo: Real, hi: Real) -> Real:
    """Change of arg prod(e^jw - root) along each arc, continuously."""

    def angle(w: Real) -> Real:
        e = np.exp(1j * w)[:, None]
        inner = np.abs(roots) <= 1.0
        far = np.where(inner, 1.0, roots)
        turn = np.where(
            inner, w[:, None] + np.angle(1.0 - roots * np.conj(e)), np.angle(1.0 - e / far)
        )
        return np.asarray(turn.sum(1))

    return angle(hi) - angle(lo)


def _expand(roots: Complex) -> NDArray[Any]:
    c = np.atleast_1d(np.poly(roots))
    return np.real(c) if _paired(roots) else c


def _paired(roots: Complex) -> bool:
    scale = 1e-9 * (1.0 + np.abs(roots).max(initial=0.0))
    imaginary = roots[np.abs(roots.imag) > scale]
    return bool(abs(imaginary.imag.sum()) <= scale * (1 + imaginary.size))


def _drop_zeros(roots: Complex, count: int) -> Complex:
    at_zero = np.flatnonzero(roots == 0)[:count]
    return np.delete(roots, at_zero)


def _contains(lo: Real, hi: Real, angle: Real) -> NDArray[np.bool_]:
    """Whether an angle, modulo a full turn, lies in [lo, hi], a part of [0, pi]."""
    wrapped = angle % (2 * math.pi)
    return np.asarray(((wrapped >= lo) & (wrapped <= hi)) | (wrapped - 2 * math.pi >= lo))


def _chord(radius: Real, offset: Real) -> Real:
    """|e^jx - radius| for an angle x, without cancellation."""
    return np.asarray(np.sqrt((1.0 - radius) ** 2 + 4.0 * radius * np.sin(offset / 2) ** 2))


def _distinct(values: list[float]) -> Real:
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.size == 0:
        return ordered
    return ordered[np.concatenate([[True], np.diff(ordered) > 1e-12])]


def _coefficients_of_states(system: Any) -> tuple[Real, Real]:
    """Numerator and denominator of a state-space system.

    The numerator is the denominator times the impulse response, which keeps structural delays as
    exact zeros; trailing coefficients below rounding are delays too.
    """
    a, b, c, d = (np.asarray(getattr(system, m), dtype=np.float64) for m in "ABCD")
    order = len(a)
    den = np.real(np.atleast_1d(np.poly(a))) if order else np.ones(1)
    den[np.abs(den) < 1e-14 * np.abs(den).max()] = 0.0
    pulse, state = [float(d[0, 0])], b[:, 0]
    for _ in range(order):
        pulse.append(float(c[0] @ state))
        state = a @ state
    num = np.convolve(den, pulse)[: order + 1]
    num[np.abs(num) < 1e-14 * np.abs(num).max()] = 0.0
    return num, den
