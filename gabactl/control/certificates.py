"""Certificates of global stability: circle, Tsypkin, and a quadratic Lyapunov function.

Each says which model it covers. In the *linearised* model the controller works on logarithms and
the floor is a saturation with slope in [0, 1]; it is exact for small imbalances. The *exact* model
is the loop in ema coordinates, x <- F psi(x) with psi(x) = 1/(1 + exp(y)), where the floor and the
logarithm make slopes above 1 possible; it needs a plant without memory (a = 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from gabactl.base.errors import InputError, packages_for
from gabactl.base.results import Result
from gabactl.control._rational import Rational
from gabactl.control.linear import as_loop, log_ratio_setting
from gabactl.control.nonlinear import equilibria
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import saturate
from gabactl.plants import LogRatio

__all__ = ["Certificate", "LyapunovCertificate", "circle", "exact_circle", "lyapunov", "tsypkin"]

_LINEARISED = "linearised (log coordinates, floor slope in [0, 1])"


@dataclass(frozen=True)
class Certificate(Result):
    """Outcome of a frequency criterion.

    Attributes
    ----------
    criterion : {"circle", "Tsypkin"}
        Which one.
    model : str
        What the conclusion is about.
    certified : bool
        True proves global asymptotic stability of the model. False proves nothing.
    sector : (float, float)
        Slopes (or chords) of the nonlinearity covered.
    margin : float
        1 - max|r L/(1 + c L)| with c and r the centre and radius of the sector; positive certifies.
    multiplier : float or None
        Tsypkin's q.
    frequency_rad_per_step : float
        Where the criterion is closest to failing.
    remark : str
        What to know about it; "" where there is nothing.
    """

    criterion: str
    model: str
    certified: bool
    sector: tuple[float, float]
    margin: float
    multiplier: float | None
    frequency_rad_per_step: float
    remark: str = ""

    title = "Frequency criterion"

    def rows(self) -> list[tuple[str, ...]]:
        """Criterion, model, conclusion."""
        extra = "" if self.multiplier is None else f", q = {self.multiplier:.4g}"
        low, high = self.sector
        proved = "globally stable" if self.certified else "nothing proved"
        where = f"margin {self.margin:.4g} at {self.frequency_rad_per_step:.4g} rad/step"
        return [
            ("criterion", f"{self.criterion}, sector [{low:.4g}, {high:.4g}]{extra}"),
            ("model", self.model),
            ("conclusion", proved, where),
            *([("", self.remark)] if self.remark else []),
        ]


def circle(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    sector: tuple[float, float] = (0.0, 1.0),
) -> Certificate:
    """Circle criterion: global stability for every nonlinearity, even time-varying, in a sector.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`; L is in negative feedback with the
        nonlinearity.
    sector : (float, float)
        Least and largest slope of a chord through the origin.

    Returns
    -------
    Certificate
        Holds where 1 + c L is stable and max|r L/(1 + c L)| < 1, found by branch and bound.

    Notes
    -----
    With centre c and radius r, psi(v) = c v + r d(v) v with \\|d\\| <= 1; the small-gain theorem does
    the rest. Zames, IEEE Trans. Automatic Control 11 (1966).

    Examples
    --------
    >>> circle(GabaSpec(), LogRatio(-50.0)).certified
    True
    """
    found = as_loop(loop, plant, ratio, sensor_delay)
    margin, w = _sector_margin(found.rational, sector)
    return Certificate(
        "circle",
        "linear system with a sector nonlinearity" if found.bare else _LINEARISED,
        margin > 0.0,
        sector,
        margin,
        None,
        w / found.interval,
    )


def tsypkin(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    steepest: float = 1.0,
) -> Certificate:
    """Tsypkin's criterion: as the circle, for monotone nonlinearities that do not change in time.

    Re[(1 + q (1 - z^-1)) L] + 1/steepest > 0 on the circle, for some q >= 0, with L stable.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`; L is in negative feedback with the
        nonlinearity.
    steepest : float > 0
        Largest slope; the least is 0.

    Returns
    -------
    Certificate
        With the q found.

    Raises
    ------
    InputError
        ``steepest`` that is not positive.

    Notes
    -----
    Tsypkin, Doklady Akademii Nauk SSSR 145 (1962); Jury and Lee, IEEE Trans. Automatic Control 9
    (1964).

    Examples
    --------
    >>> tsypkin(GabaSpec(), LogRatio(-150.0)).certified
    True
    """
    if not steepest > 0:
        raise InputError(
            f"steepest = {steepest!r} is not positive: give the largest slope, such as 1"
        )
    found = as_loop(loop, plant, ratio, sensor_delay)
    rational = found.rational

    def margin(q: float) -> tuple[float, float]:
        multiplier = Rational.of([q / (1.0 + q)], [0.0], 1.0 + q)
        return _sector_margin(rational * multiplier, (0.0, steepest))

    candidates = [0.0, *np.geomspace(1e-2, 1e4, 25).tolist()]
    margins = [margin(q)[0] for q in candidates]
    q = candidates[int(np.argmax(margins))]
    if q > 0.0:
        best_q = optimize.minimize_scalar(
            lambda log_q: -margin(math.exp(log_q))[0],
            bounds=(math.log(q) - 0.6, math.log(q) + 0.6),
            method="bounded",
            options={"xatol": 1e-3},
        )
        if -best_q.fun > max(margins):
            q = math.exp(best_q.x)
    best, w = margin(q)
    stable = bool((np.abs(rational.poles) < 1.0).all())
    return Certificate(
        "Tsypkin",
        "linear system with a monotone nonlinearity" if found.bare else _LINEARISED,
        best > 0.0 and stable,
        (0.0, steepest),
        best,
        q,
        w / found.interval,
        "" if stable else "L itself is not stable, which the criterion needs",
    )


def _sector_margin(rational: Rational, sector: tuple[float, float]) -> tuple[float, float]:
    low, high = sector
    if not low < high:
        raise InputError(f"sector = {sector!r}: give the least and a larger largest slope")
    centre, radius = (low + high) / 2, (high - low) / 2
    closed = rational.closed(centre)
    if not closed.stable:
        return -math.inf, 0.0
    if rational.gain == 0:
        return 1.0, 0.0
    leading = np.real(rational.characteristic(centre)[0])
    first = np.real(np.trim_zeros(rational.numerator, "f")[0])
    peak, w = Rational.of(rational.zeros, closed.poles, radius * first / leading).peak()
    return 1.0 - peak, w


def sector_of_exact_loop(
    spec: GabaSpec, rho: float, disturbance: float = 0.0
) -> tuple[float, float, float]:
    """Chords and slopes of psi, the exact loop's nonlinearity from ema to raw weight (a = 0).

    psi(x) = 1/(1 + exp(d - rho log(w_1/w_2))) with w the weights after the floor.

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2.
    rho : float
        DC feedback of the plant.
    disturbance : float
        d, in nats.

    Returns
    -------
    (least chord, largest chord, steepest slope) : floats
        Chords through the balance point, on a grid of 40,001 points of (0, 1) with its kinks; the
        slope in modulus.

    Raises
    ------
    InputError
        Not exactly one isolated balance point.

    Examples
    --------
    The steepest slope is at the knee, and above 1:

    >>> [round(value, 2) for value in sector_of_exact_loop(GabaSpec(), 0.5)]
    [0.5, 0.7, 1.6]
    """
    points = equilibria(spec, LogRatio(rho), disturbance=disturbance).points
    if len(points) != 1:
        raise InputError(
            f"the loop has {len(points)} isolated balance points: a sector certificate needs one"
        )
    m = spec.floor
    kinks = [m * (1 - 1e-9), m * (1 + 1e-9), 1 - m * (1 - 1e-9), 1 - m * (1 + 1e-9)]
    x = np.unique(np.concatenate([np.linspace(0.0, 1.0, 40_003)[1:-1], kinks if m > 0 else []]))
    x = x[(x > 0) & (x < 1)]
    weights = saturate(np.stack([x, 1 - x], axis=-1), m, spec.floor_mode)
    u = np.log(weights[:, 0] / weights[:, 1])
    psi = 1.0 / (1.0 + np.exp(np.clip(disturbance - rho * u, -600, 600)))
    rest = points[0].ema
    away = np.abs(x - rest) > 1e-6
    chords = (psi[away] - rest) / (x[away] - rest)
    slopes = np.diff(psi) / np.diff(x)
    return float(chords.min()), float(chords.max()), float(np.abs(slopes).max())


def exact_circle(loop: Any, plant: Any = None, *, disturbance: float = 0.0) -> Certificate:
    """Circle criterion for the exact loop, about its balance point.

    Parameters
    ----------
    loop, plant
        A setting of two tasks and its plant, or their loop:
        :func:`~gabactl.control.linear.as_setting`. The interval is 1, the floor mode any
        but ``clamp_state``, and the plant a log-ratio plant with a = 0, so that floor, plant and
        law are one nonlinearity without memory.
    disturbance : float
        d, in nats.

    Returns
    -------
    Certificate
        The sector is computed on a grid, and widened by 1e-3 of its size.

    Raises
    ------
    InputError
        A plant with a lag, an interval above 1, or ``clamp_state``.

    Notes
    -----
    As :func:`circle`, for x <- F psi(x) shifted to the balance point, with the least sector that holds
    psi there.

    Examples
    --------
    >>> certificate = exact_circle(GabaSpec(), LogRatio(0.5))
    >>> certificate.certified, [round(s, 2) for s in certificate.sector]
    (True, [0.5, 0.7])
    """
    spec, plant = log_ratio_setting(loop, plant)
    if plant.a != 0.0:
        raise InputError(f"a = {plant.a!r}: the exact loop has one nonlinearity only for a = 0")
    if spec.interval != 1 or FLOORS[spec.floor_mode].replaces_state:
        raise InputError("the exact circle covers interval = 1 and floor modes that keep the state")
    low, high, steepest = sector_of_exact_loop(spec, plant.rho, disturbance)
    pad = 1e-3 * max(high - low, 1e-3)
    sector = (low - pad, high + pad)
    # x <- F z^-(1+delay) psi(x): negative feedback around -F z^-(1+delay).
    forward = Rational.of([0.0], [spec.beta, *[0.0] * (1 + plant.delay)], -(1.0 - spec.beta))
    margin, w = _sector_margin(forward, sector)
    return Certificate(
        "circle",
        "exact loop in ema coordinates, chords through the balance point",
        margin > 0.0,
        sector,
        margin,
        None,
        w,
        f"slopes reach {steepest:.3g} away from the balance point",
    )


@dataclass(frozen=True)
class LyapunovCertificate(Result):
    """A quadratic Lyapunov function of the linearised loop with its floor, in exact arithmetic.

    Attributes
    ----------
    certified : bool
        True: ``matrix`` and ``multiplier`` satisfy the matrix inequalities, verified with fractions.
    matrix : tuple of tuples of Fraction
        P, positive definite: s' P s falls at every step.
    multiplier : Fraction
        Weight of the sector condition phi (v - phi) >= 0.
    state : tuple of str
        Names of the state s.
    remark : str
        What the conclusion is about, or why there is none.
    """

    certified: bool
    matrix: tuple[tuple[Fraction, ...], ...]
    multiplier: Fraction
    state: tuple[str, ...]
    remark: str

    title = "Quadratic Lyapunov function"
    told = ("certified", "model", "matrix", "multiplier", "state", "remark")
    #: What the conclusion is about.
    model = _LINEARISED

    def rows(self) -> list[tuple[str, ...]]:
        """Conclusion, model, and P as decimals."""
        proved = "globally stable, verified exactly" if self.certified else "nothing proved"
        return [
            ("conclusion", proved),
            ("model", self.model),
            ("", self.remark),
            *(
                (f"P, {name}", *(f"{float(value):.5g}" for value in row))
                for name, row in zip(self.state, self.matrix, strict=self.certified)
            ),
        ]


def lyapunov(loop: Any, plant: Any = None) -> LyapunovCertificate:
    """Search a quadratic Lyapunov function by an LMI, and verify it in rational arithmetic.

    Parameters
    ----------
    loop, plant
        A setting of two tasks and its plant, or their loop:
        :func:`~gabactl.control.linear.as_setting`. The interval is 1, and the plant a
        log-ratio plant; decimal settings such as 0.9 are taken as the exact decimals.

    Returns
    -------
    LyapunovCertificate

    Raises
    ------
    InputError
        cvxpy is missing: pip install 'gabactl[lmi]'.

    Notes
    -----
    s+ = A s + B phi, v = C s, 0 <= phi v, phi (v - phi) >= 0: the S-procedure asks for P > 0 and
    multiplier t > 0 with [A'PA - P, A'PB + t C'/2; ., B'PB - t] < 0. Boyd et al., "Linear Matrix
    Inequalities in System and Control Theory", SIAM (1994), section 8.1. The solver's P is rounded
    to fractions, and both inequalities are decided exactly, so that its tolerances do not matter.

    Examples
    --------
    >>> lyapunov(GabaSpec(beta=0.9), LogRatio(-3.0)).certified
    True
    """
    spec, plant = log_ratio_setting(loop, plant)
    if spec.n_tasks != 2 or spec.interval != 1:
        raise InputError("the Lyapunov search covers n_tasks = 2 and interval = 1")
    a, b, c, names = _exact_states(spec, plant)
    found = _solve_lmi(*(np.asarray(m, dtype=np.float64) for m in (a, b, c)))
    nothing = LyapunovCertificate(
        False, (), Fraction(0), names, "the search found no such function"
    )
    if found is None:
        return nothing
    scale = 2**45
    p = np.array([[Fraction(round(x * scale), scale) for x in row] for row in found[0]])
    t = Fraction(round(found[1] * scale), scale)
    if t <= 0 or not positive_definite(p) or not positive_definite(_decrease(a, b, c, p, t)):
        return nothing
    decided = "P > 0 and the decrease were decided in exact rational arithmetic"
    return LyapunovCertificate(True, tuple(map(tuple, p)), t, names, decided)


def positive_definite(matrix: Any) -> bool:
    """Whether a symmetric matrix of fractions is positive definite, by exact elimination.

    Parameters
    ----------
    matrix : array_like of Fraction, shape (n, n)
        Symmetric.

    Examples
    --------
    >>> positive_definite([[Fraction(2), Fraction(1)], [Fraction(1), Fraction(1)]])
    True
    >>> positive_definite([[Fraction(1), Fraction(1)], [Fraction(1), Fraction(1)]])
    False
    """
    rows = np.array(matrix, dtype=object)
    for k, row in enumerate(rows):
        if row[k] <= 0:
            return False
        rows[k + 1 :] -= np.outer(rows[k + 1 :, k] / row[k], row)
    return True


#: Of fractions.
Exact = NDArray[np.object_]


def _exact_states(spec: GabaSpec, plant: LogRatio) -> tuple[Exact, Exact, Exact, tuple[str, ...]]:
    """A, B, C of the loop around phi, in fractions: the filtered v, the lag, and the delay line."""
    beta, rho, lag = (Fraction(str(x)) for x in (spec.beta, plant.rho, plant.a))
    n = 2 + plant.delay
    a, b = np.full((n, n), Fraction(0)), np.full(n, Fraction(0))
    a[0, :2] = beta, (1 - beta) * rho
    a[1, 1] = lag
    if plant.delay == 0:
        b[1] = 1 - lag
    else:
        a[1, -1] = 1 - lag
        b[2] = Fraction(1)
        a[range(3, n), range(2, n - 1)] = Fraction(1)
    names = ("filter", "lag", *(f"delay {i + 1}" for i in range(plant.delay)))
    return a, b, a[0].copy(), names


def _decrease(a: Any, b: Any, c: Any, p: Any, t: Any) -> Any:
    """Minus the S-procedure matrix: in fractions, or in the solver's variables."""
    n = len(b)
    wide, pick = np.column_stack([a, b]), np.eye(n, n + 1, dtype=c.dtype)
    cross, corner = np.zeros((2, n + 1, n + 1), dtype=c.dtype)
    cross[:n, n] = cross[n, :n] = c / 2
    corner[n, n] = 1
    return pick.T @ p @ pick - wide.T @ p @ wide - t * cross + t * corner


def _solve_lmi(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float] | None:
    with packages_for("the search for a Lyapunov function"):
        import cvxpy as cp
    n = len(b)
    p = cp.Variable((n, n), symmetric=True)
    t, slack = cp.Variable(), cp.Variable()
    fall = _decrease(a, b, c, p, t)
    constraints = [
        (fall + fall.T) / 2 >> slack * np.eye(n + 1),
        p >> slack * np.eye(n),
        cp.trace(p) + t == n + 1,
    ]
    problem = cp.Problem(cp.Maximize(slack), constraints)
    try:
        problem.solve(solver=cp.CLARABEL)
    except cp.error.SolverError:
        return None
    if p.value is None or slack.value is None or float(slack.value) <= 0.0:
        return None
    return (p.value + p.value.T) / 2, float(t.value)
