"""The loop with its floor: every balance point and its stability, where starts lead, global bounds.

All of it is about the exact nonlinear loop of the log-ratio plant, not its linearisation, except
that the stability of a balance point is that of the linear loop there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from gabactl.base.checks import check_int, check_real
from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.control.linear import (
    as_setting,
    floor_slope,
    log_ratio_setting,
    open_loop,
    plant_rational,
)
from gabactl.law.authority import saturation_ratio, settled_weights
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, raw_weights, saturate
from gabactl.plants import LogRatio, QuadraticBowls

__all__ = [
    "Equilibria",
    "RegionOfAttraction",
    "SmallGain",
    "equilibria",
    "region_of_attraction",
    "simulate_log_ratio",
    "small_gain",
]

Array = NDArray[np.float64]

#: Beyond this the norms' ratio has no float64 form; no balance point of interest lies there.
LARGEST_LOG_RATIO = 600.0


@dataclass(frozen=True)
class Equilibrium:
    """A point where the loop can rest.

    Attributes
    ----------
    log_ratio : float
        y = log(g_1/g_2).
    log_weights : float
        u = log(w_1/w_2).
    contributions : float
        q = y + u, the log ratio of contributions.
    weight : float
        w_1.
    ema : float
        Stored average of task 1.
    slope : float
        What the floor leaves of the controller's gain there.
    verdict : {"stable", "neutral", "unstable"}
        Of the loop linearised there.
    spectral_radius : float
        Largest closed-loop pole of the linearisation, per reading.
    """

    log_ratio: float
    log_weights: float
    contributions: float
    weight: float
    ema: float
    slope: float
    verdict: str
    spectral_radius: float


@dataclass(frozen=True)
class Equilibria(Result):
    """All points where the loop can rest under a constant imbalance.

    Attributes
    ----------
    spec : GabaSpec
        The settings.
    disturbance : float
        The constant imbalance d, natural logarithm of a ratio.
    points : tuple of Equilibrium
        In order of y.
    continuum : (float, float) or None
        A whole range of y in which every point is one, exactly neutral.
    verdict : {"stable", "bistable", "neutral", "unstable"}
        ``stable``: one point, stable. ``bistable``: several stable ones. ``neutral``: a continuum,
        or a point with a pole on the circle. ``unstable``: no stable point; the floor bounds what
        happens.
    remark : str
        What decides, in words.
    """

    spec: GabaSpec
    disturbance: float
    points: tuple[Equilibrium, ...]
    continuum: tuple[float, float] | None
    verdict: str
    remark: str = ""

    title = "Where the loop rests"
    told = ("disturbance", "verdict", "stable", "remark", "continuum", "points")

    @property
    def stable(self) -> bool:
        """One point, stable."""
        return self.verdict == "stable"

    def _draw(self, ax: Any) -> None:
        """Resting points: weight of task 1 over the imbalance there."""
        marks = {"stable": "o", "neutral": "D", "unstable": "x"}
        ratios = np.linspace(-8.0, 8.0, 400)
        weights = settled_weights(self.spec, np.exp(ratios))[:, 0]
        ax.plot(ratios, weights, color="0.5", lw=0.8, label="what the controller settles at")
        for verdict, mark in marks.items():
            points = [p for p in self.points if p.verdict == verdict]
            if points:
                ax.plot(
                    [p.log_ratio for p in points],
                    [p.weight for p in points],
                    mark,
                    ms=9,
                    mew=2,
                    label=verdict,
                )
        if self.continuum is not None:
            low, high = (float(np.clip(end, -8.0, 8.0)) for end in self.continuum)
            ax.axvspan(low, high, alpha=0.15, lw=0, label="a continuum, neutral")
        ax.set(
            xlabel="log ratio of the gradient norms, nats",
            ylabel="applied weight of task 1",
            title=f"{self.title}: {self.verdict}",
        )
        ax.legend()

    def rows(self) -> list[tuple[str, ...]]:
        """One row per point."""
        rows: list[tuple[str, ...]] = [("verdict", f"{self.verdict}: {self.remark}")]
        if self.continuum is not None:
            lo, hi = self.continuum
            rows.append(("a continuum", f"every y from {lo:.4g} to {hi:.4g}"))
        rows += [
            (
                point.verdict,
                f"y = {point.log_ratio:<+10.5g} w_1 = {point.weight:.5f}  contributions "
                f"{math.exp(min(point.contributions, 700.0)):<9.5g} "
                f"largest pole {point.spectral_radius:.6g}",
            )
            for point in self.points
        ]
        return rows


def equilibria(loop: Any, plant: Any = None, *, disturbance: float = 0.0) -> Equilibria:
    """All balance points of the exact loop under a constant imbalance, with their stability.

    Parameters
    ----------
    loop, plant
        A setting of two tasks and its plant, or their loop:
        :func:`~gabactl.control.linear.as_setting`.
        Bowls without noise are reported as the neutral continuum they are.
    disturbance : float
        d, in nats.

    Returns
    -------
    Equilibria

    Raises
    ------
    InputError
        Not two tasks, a disturbance that is not finite, or a plant with a pole at 1.

    Notes
    -----
    A rest needs y = d + P(1) U(y), with U the settled answer of the controller; y - P(1) U(y) is
    monotone between the knees and the points where the floor's slope equals 1/rho, so a sign
    change there is found or excluded.

    Examples
    --------
    Positive feedback above 1 leaves the middle and is caught by the floor:

    >>> found = equilibria(GabaSpec(), LogRatio(1.1))
    >>> found.verdict, [round(p.log_ratio, 3) for p in found.points]
    ('bistable', [-3.254, 0.0, 3.254])
    """
    spec, plant = as_setting(loop, plant)
    if spec.n_tasks != 2:
        raise InputError(f"n_tasks = {spec.n_tasks}: balance points are listed for two tasks")
    check_real("disturbance", disturbance, "give nats, such as 2")
    knee = math.log(saturation_ratio(spec)) if spec.floor > 0.0 else math.inf
    if isinstance(plant, QuadraticBowls):
        return _bowls(spec, plant, disturbance, knee)
    rational = plant_rational(plant)
    with np.errstate(all="ignore"):
        rho = -float(np.real(rational(1.0)))
    if not math.isfinite(rho):
        raise InputError("the plant has a pole at z = 1: it never rests while the weights differ")
    straight = FLOORS[spec.floor_mode].has_knee or knee == math.inf
    undoes = abs(rho - 1.0) < 1e-12 and disturbance == 0.0
    continuum = (-knee, knee) if undoes and straight else None
    points = []
    for y in rest_points(spec, rho, disturbance, knee, continuum):
        u = float(settled_log_weights(spec, y))
        ratio = math.exp(min(max(y, -LARGEST_LOG_RATIO), LARGEST_LOG_RATIO))
        closed = open_loop(spec, plant, ratio).closed
        points.append(
            Equilibrium(
                log_ratio=y,
                log_weights=u,
                contributions=y + u,
                weight=1.0 / (1.0 + math.exp(-u)),
                ema=1.0 / (1.0 + ratio),
                slope=floor_slope(spec, y),
                verdict=closed.verdict,
                spectral_radius=closed.radius,
            )
        )
    return Equilibria(spec, disturbance, tuple(points), continuum, *_overall(points, continuum))


def settled_log_weights(spec: GabaSpec, log_ratio: ArrayLike) -> Array:
    """u = log(w_1/w_2) that a settled controller answers an imbalance with.

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2.
    log_ratio : array
        y = log(g_1/g_2).

    Examples
    --------
    >>> settled_log_weights(GabaSpec(), [1.0, 8.0]).round(4).tolist()
    [-1.0, -2.9954]
    """
    y = np.clip(np.asarray(log_ratio, dtype=np.float64), -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    if spec.floor == 0.0:
        return -y
    w = settled_weights(spec, np.exp(y))
    return np.asarray(np.log(w[..., 0] / w[..., 1]))


def rest_points(
    spec: GabaSpec, rho: float, d: float, knee: float, continuum: tuple[float, float] | None
) -> list[float]:
    """All y at which the settled loop rests, in order; points inside a continuum are left out.

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2.
    rho, d : float
        Settled gain of the plant, and the disturbance in nats.
    knee : float
        Log ratio at which the floor begins to bind; infinite without one.
    continuum : (float, float) or None
        Range of y in which every point is one.

    Notes
    -----
    y - d + rho U(y) is monotone between the knees and the points where the floor's slope equals
    1/rho, so a sign change there is found or excluded.

    Examples
    --------
    >>> [round(y, 3) for y in rest_points(GabaSpec(), 1.1, 0.0, math.log(19), None)]
    [-3.254, 0.0, 3.254]
    """

    def excess(y: float) -> float:
        return y - d + rho * float(settled_log_weights(spec, y))

    if spec.floor == 0.0:
        # u = -y: linear.
        return [] if continuum is not None or rho == 1.0 else [d / (1.0 - rho)]
    largest = abs(float(settled_log_weights(spec, LARGEST_LOG_RATIO)))
    reach = min(abs(d) + abs(rho) * largest + 1.0, LARGEST_LOG_RATIO)
    breaks = {-reach, reach}
    has_knee = FLOORS[spec.floor_mode].has_knee
    if has_knee:
        breaks |= {s * knee for s in (-1.0, 1.0) if knee < reach}
    start = knee * (1 + 1e-12) if has_knee else 0.0
    if rho * floor_slope(spec, start) > 1.0 > rho * floor_slope(spec, reach):
        turn = optimize.brentq(lambda y: rho * floor_slope(spec, y) - 1.0, start, reach)
        breaks |= {-turn, turn}
    found: list[float] = []
    for lo, hi in pairwise(sorted(breaks)):
        if continuum is not None and continuum[0] <= lo and hi <= continuum[1]:
            continue
        f_lo, f_hi = excess(lo), excess(hi)
        tiny = 1e-12 * (1.0 + abs(d) + abs(rho) * largest)
        if abs(f_lo) <= tiny and abs(f_hi) <= tiny:
            continue
        if -knee <= lo and hi <= knee and has_knee:
            # Between the knees the loop is linear, and the point has a closed form.
            y = d / (1.0 - rho) if rho != 1.0 else math.inf
            if lo <= y <= hi:
                found.append(y)
        elif f_lo * f_hi < 0.0:
            found.append(optimize.brentq(excess, lo, hi, xtol=1e-14, rtol=1e-14))
    distinct: list[float] = []
    for y in sorted(found):
        if not distinct or y - distinct[-1] > 1e-9:
            distinct.append(0.0 if abs(y) < 1e-15 else float(y))
    return distinct


def _overall(points: list[Equilibrium], continuum: tuple[float, float] | None) -> tuple[str, str]:
    if continuum is not None:
        return "neutral", "rho = 1: the plant undoes every weight exactly, so any weights can stay"
    stable = sum(point.verdict == "stable" for point in points)
    if stable > 1:
        return "bistable", "the start, or noise, decides which task is starved"
    if stable == 1 and len(points) == 1:
        return "stable", "one balance point"
    if any(point.verdict == "neutral" for point in points):
        return "neutral", "a pole is on the unit circle"
    if stable == 1:
        return "stable", "one of the balance points is stable"
    return "unstable", "no balance point is stable: expect an oscillation that the floor bounds"


def _bowls(spec: GabaSpec, plant: QuadraticBowls, d: float, knee: float) -> Equilibria:
    if plant.n_tasks != 2:
        raise InputError(f"bowls with {plant.n_tasks} tasks: balance points are listed for two")
    noise = np.broadcast_to(np.asarray(plant.noise, dtype=np.float64), (2,))
    if not noise.any():
        remark = (
            "Pareto-stationary parameters hold w_1 g_1 = w_2 g_2 for every w, so any weights stay: "
            "neutral, not stable"
        )
        return Equilibria(spec, d, (), (-knee, knee), "neutral", remark)
    with np.errstate(divide="ignore"):
        target = float(np.log(noise[0] / noise[1]))
    remark = (
        "neutral without the gradient noise, which decides: where it dominates, the weights drift "
        f"towards w_1/w_2 = noise_2/noise_1 = {math.exp(-target):.4g}"
    )
    return Equilibria(spec, d, (), None, "neutral", remark)


def simulate_log_ratio(
    spec: GabaSpec,
    plant: LogRatio,
    disturbance: ArrayLike,
    start_ema: ArrayLike,
    steps: int,
) -> tuple[Array, Array]:
    """The exact loop from many starting weights at once, plant settled for them (K = 2).

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2; the warm-up is taken to be over.
    plant : LogRatio
        With n_tasks = 2.
    disturbance : float or array, shape (steps,)
        d, in nats.
    start_ema : array, shape (m,)
        Stored averages of task 1 to start from, in (0, 1).
    steps : int
        Steps to simulate.

    Returns
    -------
    (ema, log_ratio) : arrays, shape (steps, m)
        Stored average of task 1 after each step, and y measured in it.

    Raises
    ------
    InputError
        A start outside (0, 1), or fewer than one step.

    Examples
    --------
    >>> ema, y = simulate_log_ratio(GabaSpec(), LogRatio(1.1), 0.0, [0.49, 0.51], 20000)
    >>> y[-1].round(3).tolist()
    [3.254, -3.254]
    """
    first = np.atleast_1d(np.asarray(start_ema, dtype=np.float64))
    if not ((first > 0) & (first < 1)).all():
        raise InputError("start_ema: give stored averages strictly between 0 and 1")
    check_int("steps", steps, 1, "such as 1000")
    d = np.broadcast_to(np.asarray(disturbance, dtype=np.float64), (steps,))
    ema = np.stack([first, 1.0 - first], axis=-1)
    weights = saturate(ema, spec.floor, spec.floor_mode)
    u = np.log(weights[:, 0] / weights[:, 1])
    lag, queue = u.copy(), [u] * plant.delay
    emas, ys = np.empty((steps, first.size)), np.empty((steps, first.size))
    for t in range(steps):
        y = d[t] - plant.rho * lag
        if t % spec.interval == 0:
            half = np.clip(y, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO) / 2
            raw = raw_weights(np.exp(np.stack([half, -half], axis=-1)), spec.law)
            ema = follow(ema, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode)
            weights = saturate(ema, spec.floor, spec.floor_mode)
            u = np.log(np.maximum(weights[:, 0], 1e-300) / np.maximum(weights[:, 1], 1e-300))
        queue.append(u)
        lag = plant.a * lag + (1.0 - plant.a) * queue.pop(0)
        emas[t], ys[t] = ema[:, 0], y
    return emas, ys


@dataclass(frozen=True)
class RegionOfAttraction(Result):
    """Which starting weights lead where: an estimate from simulated starts.

    Attributes
    ----------
    equilibria : Equilibria
        Where the loop can rest.
    starts : array, shape (m,)
        Stored averages of task 1 started from, with the plant settled for them.
    ends : array of int, shape (m,)
        Index of the equilibrium reached, -1 where none was within the horizon.
    intervals : tuple of (float, float, int)
        Runs of starts that end alike.
    steps : int
        Horizon.
    """

    equilibria: Equilibria
    starts: Array
    ends: NDArray[np.int64]
    intervals: tuple[tuple[float, float, int], ...]
    steps: int

    title = "Where starts lead (simulated)"

    @property
    def n_starts(self) -> int:
        """How many starts were simulated."""
        return int(self.starts.size)

    def _draw(self, ax: Any) -> None:
        """Which stored average leads to which resting point."""
        for end in sorted(set(self.ends.tolist())):
            at = self.ends == end
            if end < 0:
                continue
            point = self.equilibria.points[end]
            name = f"weight {point.weight:.3g} ({point.verdict})"
            ax.plot(self.starts[at], np.full(at.sum(), point.weight), ".", label=name)
        lost: str | None = f"none reached in {self.steps} steps"
        for low, high, end in self.intervals:
            if end < 0:
                ax.axvspan(low, high, color="0.5", alpha=0.15, lw=0, label=lost)
                lost = None
        ax.set(
            xlabel="stored average of task 1 at the start",
            ylabel="applied weight of task 1 at the end",
            title=self.title,
            xlim=(0, 1),
            ylim=(-0.02, 1.02),
        )
        ax.legend()

    def facts(self) -> dict[str, Any]:
        """Keys: steps, n_starts, intervals, and the equilibria."""
        return {
            "steps": self.steps,
            "n_starts": self.n_starts,
            "intervals": [
                {"from_ema": lo, "to_ema": hi, "equilibrium": end if end >= 0 else None}
                for lo, hi, end in self.intervals
            ],
            "equilibria": self.equilibria.to_dict(),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """One row per run of starts."""
        rows: list[tuple[str, ...]] = []
        for lo, hi, end in self.intervals:
            goal = "no rest" if end < 0 else f"y = {self.equilibria.points[end].log_ratio:.5g}"
            rows.append((f"ema_1 from {lo:.4g} to {hi:.4g}", f"to {goal}"))
        return rows


def region_of_attraction(
    loop: Any,
    plant: Any = None,
    *,
    disturbance: float = 0.0,
    n_starts: int = 199,
    steps: int | None = None,
) -> RegionOfAttraction:
    """Estimate the region of attraction of every balance point by simulation.

    Parameters
    ----------
    loop, plant
        A setting of two tasks and its plant, or their loop:
        :func:`~gabactl.control.linear.as_setting`.
        A log-ratio plant; it is settled for the starting weights.
    disturbance : float
        d, in nats.
    n_starts : int
        Starting averages, evenly spaced in (0, 1).
    steps : int, optional
        Horizon; default twenty time constants of the slowest linear mode, at most 20,000.

    Returns
    -------
    RegionOfAttraction

    Raises
    ------
    InputError
        Another plant than a log-ratio plant.

    Notes
    -----
    A start leads to a point when the last twentieth of its run (50 steps at least) stays within
    0.001 (1 + |y|) of it.

    Examples
    --------
    >>> region = region_of_attraction(GabaSpec(beta=0.9), LogRatio(1.3), n_starts=20)
    >>> [(round(lo, 2), round(hi, 2), end) for lo, hi, end in region.intervals]
    [(0.05, 0.48, 2), (0.52, 0.95, 0)]
    """
    spec, plant = log_ratio_setting(loop, plant)
    found = equilibria(spec, plant, disturbance=disturbance)
    starts = np.arange(1, n_starts + 1) / (n_starts + 1.0)
    if steps is None:
        rates = [
            -math.log(min(p.spectral_radius, 1 - 1e-4))
            for p in found.points
            if p.verdict == "stable"
        ]
        steps = int(min(20.0 / max(min(rates, default=1e-3), 1e-3) * spec.interval, 20_000)) + 50
    _, y = simulate_log_ratio(spec, plant, disturbance, starts, steps)
    ends = np.full(starts.size, -1, dtype=np.int64)
    tail = y[-max(50, steps // 20) :]
    for index, point in enumerate(found.points):
        gap = np.abs(tail - point.log_ratio).max(axis=0)
        ends[gap < 1e-3 * (1.0 + abs(point.log_ratio))] = index
    cuts = np.flatnonzero(np.diff(ends)) + 1
    runs = np.split(np.arange(starts.size), cuts)
    intervals = tuple((float(starts[r[0]]), float(starts[r[-1]]), int(ends[r[0]])) for r in runs)
    return RegionOfAttraction(found, starts, ends, intervals, steps)


def contraction_rate(spec: GabaSpec) -> float:
    """Factor per step by which two stored averages fed the same readings approach each other.

    Exactly beta for every norm, whatever the readings: the difference of the two averages obeys
    the recurrence without input. ``clamp_state`` projects, which cannot take them apart.

    Parameters
    ----------
    spec : GabaSpec
        Settings; beta matters. With an interval N it is beta^N per reading.

    Returns
    -------
    float
        From 0 to below 1.

    Examples
    --------
    >>> contraction_rate(GabaSpec())
    0.99
    """
    return spec.beta


@dataclass(frozen=True)
class SmallGain(Result):
    """A bound on the plant under which the loop of any number of tasks is globally stable.

    Attributes
    ----------
    plant_gain : float
        Largest factor by which the plant can amplify a change of the log weights, over all time.
    limit : float
        1: the controller's own gain in the same measure is at most 1.
    stable : bool
        Whether the bound proves global asymptotic stability. False proves nothing.
    covered : bool
        Whether the theorem covers the setting.
    remark : str
        What decides, in words.
    """

    plant_gain: float
    limit: float
    stable: bool
    covered: bool
    remark: str

    title = "Small-gain bound (exact loop, any number of tasks)"

    def rows(self) -> list[tuple[str, ...]]:
        """Gain, limit, conclusion."""
        verdict = "globally stable" if self.stable else "nothing proved"
        return [
            ("gain of the plant", f"{self.plant_gain:.5g} (must be below {self.limit:g})"),
            ("conclusion", verdict),
            ("", self.remark),
        ]


def small_gain(loop: Any, plant: Any = None) -> SmallGain:
    """Small-gain test of the exact loop, floor and averaging included, for any number of tasks.

    Parameters
    ----------
    loop, plant
        A setting (any K, law, beta, interval) and its plant, or their loop:
        :func:`~gabactl.control.linear.as_setting`.
        The plant acts on each task alike.

    Returns
    -------
    SmallGain

    Notes
    -----
    Derivation, in Hilbert's projective metric h(x, x') = max log(x_i/x'_i) - min log(x_i/x'_i),
    which ignores common scale. (1) Both laws do not expand it: the inverse law is an inversion; the
    complement law is g -> (1 1^T - I) g up to scale, a matrix without negative entries, and such
    matrices do not expand h (Birkhoff, 1957). (2) Averaging points of the simplex does not expand
    the largest h seen so far: ratios of averages lie between averages of ratios (mediants). (3)
    max(., m), and m + (1 - K m)(.), leave every ratio between 1 and where it was, and so does the
    projection of two tasks. (4) The plant changes log g by its impulse response times changes of the
    centred log w, hence h by at most the sum of its absolute values. If that is below 1, the loop
    contracts towards one balance point from every start, with any delay. The projection of K > 2
    tasks is not covered.

    Examples
    --------
    >>> small_gain(GabaSpec(n_tasks=5), LogRatio(-0.3, a=0.9, n_tasks=5)).stable
    True
    >>> small_gain(GabaSpec(), LogRatio(1.1)).stable
    False
    """
    spec, plant = as_setting(loop, plant)
    rational = plant_rational(plant)
    if isinstance(plant, LogRatio):
        a = plant.a
        gain = abs(plant.rho) * (1.0 - a) / (1.0 - abs(a))
    else:
        gain = _absolute_sum(rational)
    covered = spec.n_tasks == 2 or spec.floor == 0.0 or FLOORS[spec.floor_mode].narrows_ratios
    if not covered:
        remark = f"floor mode {spec.floor_mode} with more than two tasks is not covered"
    elif gain < 1.0:
        remark = "one balance point, reached from every start, with any delay and any interval"
    else:
        remark = "a sufficient condition only: the loop may be stable all the same"
    return SmallGain(gain, 1.0, covered and gain < 1.0, covered, remark)


def _absolute_sum(rational: Any) -> float:
    """Sum of |h_k| of the impulse response; infinite unless all poles are inside."""
    radius = float(np.abs(rational.poles).max(initial=0.0))
    if radius >= 1.0:
        return math.inf
    decay = math.log(1e-14) / math.log(radius) if radius > 0.0 else 0.0
    length = int(min(decay, 1e6)) + 3 * rational.poles.size + 10
    return float(np.abs(rational.pulse(length)).sum())
