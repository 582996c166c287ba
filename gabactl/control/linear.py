"""The loop as a linear system: small signals around an operating point."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base import plots
from gabactl.base.checks import check_int
from gabactl.base.errors import InputError, packages_for
from gabactl.base.results import Result
from gabactl.control._rational import Rational, Stability
from gabactl.law.floors import FLOORS
from gabactl.law.laws import LAWS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import raw_weights, saturate
from gabactl.plants import LogRatio, LtiPlant

__all__ = ["Loop", "VectorLoop", "as_loop", "open_loop", "vector_loop"]


def floor_slope(spec: GabaSpec, log_ratio: float) -> float:
    """-du/dy of the settled controller: 1 inside the knee, small or 0 past it (K = 2).

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2.
    log_ratio : float
        Operating imbalance y = log(g_1/g_2), settled.

    Returns
    -------
    float in [0, 1]
        ``renormalise``: 1 up to the knee, then 1/(1 + e^|y|); ``project`` and ``clamp_state``: 1,
        then 0; ``affine``: (1 - 2m) x(1-x)/(w_1 w_2), always below 1.

    Raises
    ------
    InputError
        Not two tasks.

    Notes
    -----
    With x = 1/(1 + e^|y|) the average of the loud task. Past the knee ``renormalise`` leaves
    |u| = ln((1 - x)/m), whose slope in |y| is x. There
    ``project`` and ``clamp_state`` hold u.

    Examples
    --------
    >>> floor_slope(GabaSpec(), 1.0), round(floor_slope(GabaSpec(), 6.2), 5)
    (1.0, 0.00203)
    """
    if spec.n_tasks != 2:
        raise InputError(
            f"n_tasks = {spec.n_tasks}: the log ratio needs two tasks; see vector_loop"
        )
    quiet = math.exp(-abs(log_ratio))
    return FLOORS[spec.floor_mode].slope(quiet / (1.0 + quiet), spec.floor)


class ClosedLoop(Result):
    """A result with closed-loop poles: its verdict and its picture.

    Attributes
    ----------
    closed : Stability
        Closed-loop poles, and the verdict on them.
    """

    closed: Stability

    @property
    def poles(self) -> NDArray[np.complex128]:
        """Of the closed loop, per reading, largest first."""
        return self.closed.poles

    @property
    def spectral_radius(self) -> float:
        """Modulus of the largest closed-loop pole, per reading."""
        return self.closed.radius

    @property
    def stable(self) -> bool:
        """Whether every closed-loop pole is inside the unit circle."""
        return self.closed.stable

    @property
    def verdict(self) -> str:
        """``stable``, ``neutral`` or ``unstable``."""
        return self.closed.verdict

    def _draw(self, ax: Any) -> None:
        """Closed-loop poles and the unit circle."""
        plots.unit_circle(self.poles, f"closed loop: {self.verdict}", ax)


@dataclass(frozen=True, eq=False)
class Loop(ClosedLoop):
    """The loop cut open at the controller: L = slope F P, negative feedback, per reading.

    With y = log(g_1/g_2) and u = log(w_1/w_2): u = -slope F y and y = P u + d, so that
    y = d/(1 + L) and q = y + u = (1 - slope F) d/(1 + L) is the log ratio of contributions.

    Attributes
    ----------
    spec : GabaSpec
        The settings.
    plant : Rational
        P per step, before lifting.
    slope : float
        What the floor leaves of the controller's gain at the operating point.
    sensor_delay : int
        Steps by which readings are old.
    ratio : float
        Imbalance g_1/g_2 the loop is taken at.
    bare : bool
        A loop given as a transfer function, with no rule in it: then u = -y and P = L.
    """

    spec: GabaSpec
    plant: Rational
    slope: float = 1.0
    sensor_delay: int = 0
    ratio: float = 1.0
    bare: bool = False

    title = "Open loop"
    told = (
        *("interval", "slope", "sensor_delay", "open_loop_poles", "open_loop_zeros", "dc_gain"),
        *("poles", "spectral_radius", "stable", "verdict"),
    )

    @property
    def interval(self) -> int:
        """Steps per reading, the sampling time of :attr:`rational`."""
        return self.spec.interval

    @cached_property
    def filter(self) -> Rational:
        """slope F per reading."""
        pole = self.spec.beta**self.interval
        return Rational.of([0.0], [pole], self.slope * (1.0 - pole))

    @cached_property
    def rational(self) -> Rational:
        """L per reading, lifted where the sensor is sampled or late."""
        from gabactl.control.sampling import lift

        return self.filter * lift(self.plant, self.interval, self.sensor_delay)

    def delayed(self, steps: int) -> Loop:
        """The loop with so many more steps of delay (of the plant or of the sensor: it is one).

        Parameters
        ----------
        steps : int, at least 0
            How many more.

        Examples
        --------
        >>> from gabactl.plants import LogRatio
        >>> open_loop(GabaSpec(), LogRatio(-3.0)).delayed(2).sensor_delay
        2
        """
        return replace(self, sensor_delay=self.sensor_delay + steps)

    def to_control(self) -> Any:
        """L as a python-control system.

        Returns
        -------
        control.TransferFunction
            Per reading, with dt = interval.
        """
        return self.rational.to_control(self.interval)

    @cached_property
    def closed(self) -> Stability:  # type: ignore[override]
        """Closed-loop poles (per reading) and verdict."""
        return self.rational.closed()

    @property
    def open_loop_poles(self) -> NDArray[np.complex128]:
        """Of L, per reading."""
        return self.rational.poles

    @property
    def open_loop_zeros(self) -> NDArray[np.complex128]:
        """Of L, per reading."""
        return self.rational.zeros

    @property
    def dc_gain(self) -> float:
        """L(1)."""
        return float(np.real(self.rational(1.0)))

    def closed_loop_coefficients(
        self,
    ) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Numerator and denominator of every map of :meth:`closed_loop`, of equal length.

        Needs no python-control.

        Returns
        -------
        dict of pairs of arrays
            Highest power first; a leading zero is a reading that the answer comes later.

        Examples
        --------
        >>> from gabactl.plants import LogRatio
        >>> n, d = open_loop(GabaSpec(beta=0.5), LogRatio(0.5)).closed_loop_coefficients()["sensitivity"]
        >>> n.tolist(), d.tolist()
        ([1.0, -0.5], [1.0, -0.75])
        """
        n, d = np.real(self.rational.numerator), np.real(self.rational.denominator)
        fn, fd = np.real(self.filter.numerator), np.real(self.filter.denominator)
        q = n + d
        # The filter's denominator divides D whenever nothing cancelled; kept as a product, so that
        # these hold for any plant.
        return {
            "sensitivity": (d, q),
            "complementary": (n, q),
            "weights": (np.convolve(-fn, d), np.convolve(fd, q)),
            "contributions": (np.convolve(fd - fn, d), np.convolve(fd, q)),
        }

    def closed_loop(self) -> dict[str, Any]:
        """Closed-loop responses to a disturbance d of the log ratio, per reading.

        Returns
        -------
        dict of control.TransferFunction
            ``sensitivity`` (d to y), ``complementary`` (L/(1+L)), ``weights`` (d to u) and
            ``contributions`` (d to q, the log ratio of contributions).

        Examples
        --------
        >>> from gabactl.plants import LogRatio
        >>> maps = open_loop(GabaSpec(), LogRatio(0.5)).closed_loop()
        >>> float(maps["sensitivity"].dcgain()), float(maps["contributions"].dcgain())
        (2.0..., 0.0...)
        """
        with packages_for("a python-control system"):
            import control

        return {
            name: control.TransferFunction(numerator, denominator, self.interval)
            for name, (numerator, denominator) in self.closed_loop_coefficients().items()
        }

    def share_gains(self, ratio: float) -> dict[str, float]:
        """The same loop in share coordinates, block by block, at an operating ratio g_1/g_2.

        Sensor ds/dy = s(1-s); comparator -1; proportional gain K_p = 1; weights du/dema. Their
        product is minus the slope: the two sets of coordinates see one and the same loop.

        Parameters
        ----------
        ratio : float, positive
            g_1/g_2 of the operating point.

        Returns
        -------
        dict of str to float
            The gains "sensor", "comparator", "proportional" and "weights", and their "product".

        Examples
        --------
        >>> from gabactl.plants import LogRatio
        >>> gains = open_loop(GabaSpec(), LogRatio(0.5)).share_gains(3.0)
        >>> gains["sensor"], round(gains["weights"], 6), round(gains["product"], 6)
        (0.1875, 5.333333, -1.0)
        """
        share = ratio / (1.0 + ratio)
        sensor = share * (1.0 - share)
        slope = floor_slope(self.spec, math.log(ratio))
        return {
            "sensor": sensor,
            "comparator": -1.0,
            "proportional": 1.0,
            "weights": slope / sensor,
            "product": -slope,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Poles, zeros, DC gain and verdict."""
        per = "" if self.interval == 1 else f" (per reading of {self.interval} steps)"
        return [
            ("open-loop poles", format_roots(self.open_loop_poles) + per),
            ("open-loop zeros", format_roots(self.open_loop_zeros)),
            ("DC gain", f"{self.dc_gain:.6g}"),
            ("slope of the floor", f"{self.slope:.4g}"),
            ("closed-loop poles", format_roots(self.poles) + per),
            ("verdict", self.verdict),
        ]


def format_roots(roots: Any, most: int = 6) -> str:
    """Roots in one line, conjugate pairs once, the first few.

    Parameters
    ----------
    roots : array_like of complex, shape (n,)
        With the conjugate of each complex one.
    most : int
        Roots shown at most; the rest is counted.

    Examples
    --------
    >>> format_roots([0.5, 0.1 + 0.2j, 0.1 - 0.2j])
    '0.5, 0.1 +- 0.2j'
    """
    parts = []
    for r in np.asarray(roots, dtype=np.complex128):
        if abs(r.imag) <= 1e-9 * max(1.0, abs(r)):
            parts.append(f"{r.real:.6g}")
        elif r.imag > 0:
            parts.append(f"{r.real:.5g} +- {r.imag:.5g}j")
    at_zero = sum(part == "0" for part in parts)
    if at_zero > 2:
        parts = [part for part in parts if part != "0"] + [f"0 ({at_zero} times)"]
    shown = parts if len(parts) <= most else [*parts[: most - 1], f"... {len(parts)} in all"]
    return ", ".join(shown) or "none"


def open_loop(spec: GabaSpec, plant: Any, ratio: float = 1.0, sensor_delay: int = 0) -> Loop:
    """The loop of a setting around a plant, linearised at a settled imbalance (K = 2).

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2.
    plant : LogRatio, LtiPlant, control.TransferFunction or control.StateSpace
        From u = log(w_1/w_2) to y = log(g_1/g_2), per step. A replay has no feedback and no loop.
    ratio : float > 0
        Operating imbalance g_1/g_2; matters past the knee (and always with ``affine``).
    sensor_delay : int, at least 0
        Steps by which a reading is old.

    Returns
    -------
    Loop

    Raises
    ------
    InputError
        More than two tasks, a plant without a transfer function, or one with feed-through.

    Notes
    -----
    Small signals of the controller: u = -slope F y, with :func:`floor_slope` and
    F(z) = (1 - p)/(1 - p z^-1), p = beta^N, per reading. The plant is lifted to readings by
    :func:`gabactl.control.sampling.lift`.

    Examples
    --------
    >>> from gabactl.plants import LogRatio
    >>> loop = open_loop(GabaSpec(), LogRatio(rho=0.5))
    >>> loop.closed.verdict, round(loop.closed.radius, 6)
    ('stable', 0.995)
    """
    if not (math.isfinite(ratio) and ratio > 0):
        raise InputError(f"ratio = {ratio!r} is not positive and finite: give g_1/g_2, such as 10")
    check_int("sensor_delay", sensor_delay, 0, "give steps, such as 1")
    slope = floor_slope(spec, math.log(ratio))
    return Loop(spec, plant_rational(plant), slope, sensor_delay, ratio)


#: Stands in where a loop has no rule: no average and no floor, so that F = 1.
_PROPORTIONAL = GabaSpec(beta=0.0, floor=0.0, warmup=0)


def as_loop(loop: Any, plant: Any = None, ratio: float = 1.0, sensor_delay: int = 0) -> Loop:
    """The loop of what people have: every analysis of this package takes these.

    Parameters
    ----------
    loop : GabaSpec, Loop, control.TransferFunction or control.StateSpace
        A setting, whose plant is the next argument; a loop of :func:`open_loop`; or the open loop L
        itself, discrete, with one input and one output and negative feedback, counted in its
        samples.
    plant : LogRatio, LtiPlant, control.TransferFunction or control.StateSpace, optional
        With a setting only.
    ratio : float > 0
        Imbalance g_1/g_2 to linearise at, with a setting only.
    sensor_delay : int, at least 0
        Steps by which a reading is old.

    Returns
    -------
    Loop

    Raises
    ------
    InputError
        A setting without a plant, a plant beside a loop, or as :func:`open_loop`.

    Examples
    --------
    >>> import control
    >>> from gabactl.plants import LogRatio
    >>> as_loop(GabaSpec(), LogRatio(rho=0.5)).closed.verdict
    'stable'
    >>> as_loop(control.TransferFunction([0.5], [1, -0.99], 1)).closed.poles.real.round(2).tolist()
    [0.49]
    """
    if isinstance(loop, GabaSpec):
        if plant is None:
            raise InputError(
                "a setting alone is no loop: give its plant too, such as LogRatio(rho=0.5)"
            )
        return open_loop(loop, plant, ratio, sensor_delay)
    if plant is not None or ratio != 1.0:
        raise InputError(
            f"{type(loop).__name__} is a whole loop: a plant and a ratio go with a GabaSpec"
        )
    if not isinstance(loop, Loop):
        rational = loop if isinstance(loop, Rational) else Rational.from_lti(loop)
        loop = Loop(_PROPORTIONAL, rational, bare=True)
    return loop.delayed(sensor_delay) if sensor_delay else loop


def as_setting(loop: Any, plant: Any = None) -> tuple[GabaSpec, Any]:
    """Setting and plant of what :func:`as_loop` takes, for what is not linear.

    Parameters
    ----------
    loop : GabaSpec, Loop or VectorLoop
        A transfer function alone has no floor and no average, and will not do.
    plant : optional
        With a setting.

    Returns
    -------
    (spec, plant)
        A sensor's delay counts as the plant's: the loop is the same.

    Raises
    ------
    InputError
        As :func:`as_loop`, or a bare transfer function.

    Examples
    --------
    >>> from gabactl.plants import LogRatio
    >>> as_setting(open_loop(GabaSpec(), LogRatio(0.5), sensor_delay=2))[1].poles.size
    3
    """
    if isinstance(loop, GabaSpec) and plant is not None:
        return loop, plant
    if isinstance(loop, VectorLoop):
        return loop.spec, loop.plant
    found = as_loop(loop, plant)
    if found.bare:
        raise InputError(
            f"{type(loop).__name__} has no floor and no average: give a GabaSpec and the plant"
        )
    return found.spec, found.plant.delayed(found.sensor_delay)


def log_ratio_setting(loop: Any, plant: Any = None) -> tuple[GabaSpec, LogRatio]:
    """As :func:`as_setting`, for what is told of log-ratio plants alone.

    Parameters
    ----------
    loop, plant
        As :func:`as_setting`; the plant may be a transfer function of the form
        ``-rho (1 - a) z^-delay / (z - a)``.

    Raises
    ------
    InputError
        Another plant.

    Examples
    --------
    >>> import control
    >>> log_ratio_setting(GabaSpec(), control.TransferFunction([-0.5], [1, -0.5, 0], 1))[1]
    LogRatio(rho=1.0, a=0.5, delay=1, n_tasks=2)
    """
    spec, plant = as_setting(loop, plant)
    if isinstance(plant, LogRatio):
        return spec, plant
    rational = plant_rational(plant)
    moving = rational.poles[rational.poles != 0]
    a = complex(moving[0]).real if moving.size else 0.0
    if rational.zeros.size or moving.size > 1 or not -1.0 < a < 1.0 or not rational.poles.size:
        raise InputError(
            "plant that is not of the form -rho (1 - a)/(z^delay (z - a)): give a LogRatio"
        )
    rho = -float(np.real(rational.gain)) / (1.0 - a)
    return spec, LogRatio(rho, a, rational.poles.size - 1)


def plant_rational(plant: Any) -> Rational:
    """P(z) in factored form, from anything that has a transfer function.

    Parameters
    ----------
    plant : LogRatio, LtiPlant, Rational, control.TransferFunction or control.StateSpace
        From u = log(w_1/w_2) to y = log(g_1/g_2), per step.

    Returns
    -------
    Rational
        P(z), one sample per step.

    Raises
    ------
    InputError
        No transfer function, direct feed-through, or a time step other than 1.

    Examples
    --------
    >>> from gabactl.plants import LogRatio
    >>> plant_rational(LogRatio(0.5, a=0.9, delay=1)).poles.real.tolist()
    [0.9, 0.0]
    """
    if isinstance(plant, LogRatio):
        poles = [plant.a] + [0.0] * plant.delay
        return Rational.of([], poles, -plant.rho * (1.0 - plant.a))
    if isinstance(plant, Rational):
        rational = plant
    elif isinstance(plant, LtiPlant):
        rational = Rational.from_lti(plant.system)
    elif hasattr(plant, "measure") or hasattr(plant, "start"):
        raise InputError(
            f"plant {type(plant).__name__} has no transfer function: linear analysis takes "
            "log-ratio plants and python-control systems; simulate this one"
        )
    else:
        rational = Rational.from_lti(plant)
        if getattr(plant, "dt", 1) not in (True, 1):
            raise InputError(
                f"plant with dt = {plant.dt!r}: plants are per optimisation step; give dt = 1 and set "
                "the interval in the settings"
            )
    if rational.gain != 0 and rational.zeros.size >= rational.poles.size:
        raise InputError(
            "plant with direct feed-through: the weights of a step cannot change the norms they "
            "came from; multiply by 1/z"
        )
    return rational


@dataclass(frozen=True, eq=False)
class VectorLoop(ClosedLoop):
    """The loop of K tasks, linearised at an operating point, as K - 1 scalar loops.

    The filter and the plant act alike on every task, so the loop splits along the eigenvectors of
    J = -(d log w/d ema)(d raw/d log g): mode i is the two-task loop with slope J_i.

    Attributes
    ----------
    spec : GabaSpec
        The settings.
    plant : Rational
        P per step, the same for every task.
    grad_norms : array, shape (K,)
        Operating point, settled.
    slopes : array of complex, shape (K-1,)
        Eigenvalues J_i. All 1 with the inverse law; 1/(K-1) with the complement law at balance.
    jacobian : array, shape (K, K)
        J.
    closed : Stability
        Closed-loop poles of all modes, largest first, and the verdict on all of them.
    """

    spec: GabaSpec
    plant: Rational
    grad_norms: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    slopes: NDArray[np.complex128]
    closed: Stability

    title = "Loop of all tasks"
    told = ("grad_norms", "slopes", "poles", "spectral_radius", "stable", "verdict")

    def rows(self) -> list[tuple[str, ...]]:
        """Slopes, poles and verdict."""
        return [
            ("operating norms", ", ".join(f"{g:.5g}" for g in self.grad_norms)),
            ("slopes of the modes", format_roots(self.slopes)),
            ("closed-loop poles", format_roots(self.poles)),
            ("verdict", self.verdict),
        ]


def controller_jacobian(spec: GabaSpec, grad_norms: ArrayLike) -> NDArray[np.float64]:
    """d(log w_i - mean log w)/d(log g_j) of the settled controller, shape (K, K).

    Parameters
    ----------
    spec : GabaSpec
        Settings.
    grad_norms : array, shape (K,), positive
        Operating point.

    Returns
    -------
    array, shape (K, K)
        Without a unit; its rows and columns sum to 0.

    Raises
    ------
    InputError
        Norms that are not K positive numbers.

    Notes
    -----
    The chain rule: dw/d(ema) of the floor times d(raw)/d(log g) of the law. The latter is
    -(diag(s) - s s')/(K - 1) with the shares s for the complement law, and -(diag(r) - r r') with the
    raw weights r for the inverse law.

    Examples
    --------
    >>> controller_jacobian(GabaSpec(), [1.0, 1.0]).tolist()
    [[-0.5, 0.5], [0.5, -0.5]]
    """
    g = np.asarray(grad_norms, dtype=np.float64)
    k = spec.n_tasks
    if g.shape != (k,) or not (np.isfinite(g) & (g > 0)).all():
        raise InputError(f"grad_norms = {g.tolist()}: give {k} positive numbers, one per task")
    raw = np.asarray(raw_weights(g, spec.law), dtype=np.float64)
    floor = FLOORS[spec.floor_mode]
    weights = np.asarray(saturate(raw, spec.floor, spec.floor_mode), dtype=np.float64)
    d_log, d_raw = floor.jacobian(raw, weights, spec.floor), LAWS[spec.law].jacobian(g)
    centre = np.eye(k) - 1.0 / k
    return np.asarray(centre @ d_log @ d_raw, dtype=np.float64)


def vector_loop(spec: GabaSpec, plant: Any, grad_norms: ArrayLike | None = None) -> VectorLoop:
    """The linearised loop of K tasks, and whether it is stable.

    Parameters
    ----------
    spec : GabaSpec
        Settings, any number of tasks.
    plant : LogRatio or anything :func:`open_loop` takes
        Acts on each task alike: log g_i = d_i + P (log w_i - mean log w).
    grad_norms : array, shape (K,), optional
        Operating point; default all equal.

    Returns
    -------
    VectorLoop

    Raises
    ------
    InputError
        As :func:`open_loop`, or norms that are not K positive numbers.

    Examples
    --------
    With ten tasks the complement law has a ninth of the gain, so rho = 5 is still stable:

    >>> from gabactl.plants import LogRatio
    >>> vector_loop(GabaSpec(n_tasks=10), LogRatio(5.0, n_tasks=10)).verdict
    'stable'
    >>> vector_loop(GabaSpec(n_tasks=10, law="inverse"), LogRatio(5.0, n_tasks=10)).verdict
    'unstable'
    """
    norms = np.ones(spec.n_tasks) if grad_norms is None else np.asarray(grad_norms, dtype=float)
    jacobian = controller_jacobian(spec, norms)
    eigenvalues = np.linalg.eigvals(-jacobian)
    # One eigenvalue is 0 for every setting: scaling all the norms changes nothing.
    eigenvalues = np.delete(eigenvalues, np.abs(eigenvalues).argmin()).astype(np.complex128)
    slopes = eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")]
    rational = plant_rational(plant)
    unit = Loop(spec, rational).rational
    verdicts = [unit.closed(_as_real(slope)) for slope in slopes]
    poles = np.concatenate([v.poles for v in verdicts])
    poles = poles[np.argsort(-np.abs(poles), kind="stable")]
    names = {v.verdict for v in verdicts}
    verdict = next(name for name in ("unstable", "neutral", "stable") if name in names)
    return VectorLoop(spec, rational, norms, jacobian, slopes, Stability(verdict, poles))


def _as_real(value: complex) -> complex | float:
    return value.real if abs(value.imag) <= 1e-12 * max(1.0, abs(value)) else value
