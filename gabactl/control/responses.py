"""Step and ramp responses of the linear loop, with horizons that fit its slowest pole."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import signal

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError
from gabactl.control._rational import Stability
from gabactl.control.linear import ClosedLoop, Loop, as_loop

__all__ = ["LinearResponse", "linear_response", "ramp_response", "step_response"]

Array = NDArray[np.float64]

_LONGEST = 2_000_000


def horizon(loop: Loop, tolerance: float = 1e-4) -> int:
    """Steps until the slowest closed-loop pole has decayed to the tolerance.

    Parameters
    ----------
    loop : Loop
        For an unstable loop: steps until its fastest growing pole has grown by 1/tolerance.
    tolerance : float in (0, 1)
        What is left of the mode.

    Returns
    -------
    int
        At least 20 readings and the delays, at most two million steps.

    Notes
    -----
    A mode of modulus r has decayed to the tolerance after ln(tolerance)/ln r readings.

    Examples
    --------
    >>> from gabactl.control.linear import open_loop
    >>> from gabactl.plants import LogRatio
    >>> from gabactl.law.spec import GabaSpec
    >>> horizon(open_loop(GabaSpec(), LogRatio(0.5)))
    1840
    """
    moduli = np.abs(loop.closed.poles)
    rates = np.abs(np.log(np.maximum(moduli[np.abs(moduli - 1.0) > 1e-12], 1e-300)))
    slowest = float(rates.min(initial=math.inf))
    decay = math.ceil(math.log(1.0 / tolerance) / slowest) if slowest < math.inf else 0
    readings = max(decay, 20) + 2 * loop.rational.poles.size
    return int(min(readings * loop.interval, _LONGEST))


@dataclass(frozen=True)
class LinearResponse(ClosedLoop):
    """Signals of the linear loop after a disturbance of the log ratio.

    Attributes
    ----------
    loop : Loop
        The open loop.
    kind : str
        What the disturbance is, in a word.
    step : array of int, shape (n,)
        From 0, where the disturbance begins.
    disturbance, log_ratio, log_weights, contributions : arrays, shape (n,)
        d; y = log(g_1/g_2); u = log(w_1/w_2); q = y + u.
    rise_time_steps : int or None
        Of a step: from 10 to 90 % of the final change of u.
    settling_steps : int or None
        First step from which u stays within 2 % of its final change.
    overshoot_percent : float or None
        Of u beyond its final value.
    share_error : float or None
        Steady-state error 1/2 - s_1 of the share of the summed norms.
    contribution_log_ratio, contribution_ratio : float or None
        Steady-state log ratio of contributions w_1 g_1/(w_2 g_2), and the ratio.
    reason : str or None
        Why these six are None.
    """

    loop: Loop
    kind: str
    step: NDArray[np.int64]
    disturbance: Array
    log_ratio: Array
    log_weights: Array
    contributions: Array
    rise_time_steps: int | None = None
    settling_steps: int | None = None
    overshoot_percent: float | None = None
    share_error: float | None = None
    contribution_log_ratio: float | None = None
    contribution_ratio: float | None = None
    reason: str | None = None

    title = "Response of the linear loop"
    told = (
        *("kind", "stable", "verdict", "steps", "rise_time_steps", "settling_steps"),
        *("overshoot_percent", "share_error", "contribution_log_ratio", "contribution_ratio"),
        *("reason", "final_log_ratio", "final_log_weights", "final_contributions"),
    )

    @property
    def closed(self) -> Stability:  # type: ignore[override]
        """Of the loop."""
        return self.loop.closed

    @property
    def steps(self) -> int:
        """How many there are."""
        return int(self.step.size)

    @property
    def final_log_ratio(self) -> float:
        """y of the last step."""
        return float(self.log_ratio[-1])

    @property
    def final_log_weights(self) -> float:
        """u of the last step."""
        return float(self.log_weights[-1])

    @property
    def final_contributions(self) -> float:
        """q of the last step."""
        return float(self.contributions[-1])

    def headline(self) -> str:
        """The verdict, and how long a step takes."""
        if self.settling_steps is None:
            return f"{self.kind}, {self.verdict}"
        return f"{self.kind}, {self.verdict}, settled after {self.settling_steps} steps"

    def rows(self) -> list[tuple[str, ...]]:
        """Step info; for a ramp, the lag."""
        rows: list[tuple[str, ...]] = [
            ("disturbance", f"{self.kind}, {self.steps} steps shown"),
            ("closed loop", self.verdict),
        ]
        if self.reason is not None:
            return [*rows, ("step info", f"none: {self.reason}")]
        return [
            *rows,
            ("rise 10-90 %", f"{self.rise_time_steps} steps"),
            ("settling to 2 %", f"{self.settling_steps} steps"),
            ("overshoot", f"{self.overshoot_percent:.3g} %"),
            ("share error at rest", f"{self.share_error:+.4g}"),
            (
                "contributions at rest",
                f"ratio {self.contribution_ratio:.5g} (log {self.contribution_log_ratio:+.4g})",
            ),
        ]

    def _draw(self, ax: Any) -> None:
        """d, y, u and q over the steps."""
        ax.plot(self.step, self.disturbance, color="0.6", linestyle=":", label="disturbance d")
        ax.plot(self.step, self.log_ratio, label="imbalance y = log g₁/g₂")
        ax.plot(self.step, self.log_weights, label="weights u = log w₁/w₂")
        ax.plot(self.step, self.contributions, label="contributions q = y + u")
        ax.set(xlabel="steps", ylabel="nats")
        ax.legend(loc="best")


def linear_response(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    disturbance: ArrayLike,
    kind: str = "given",
) -> LinearResponse:
    """The linear loop from rest under any disturbance of the log ratio, step by step.

    Sampled and delayed sensors are simulated as they are, not lifted.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`.
    disturbance : array, shape (n,)
        d per step, in nats.
    kind : str
        Name for the result.

    Returns
    -------
    LinearResponse
        Without step info.

    Raises
    ------
    InputError
        A disturbance that is no list of finite numbers, or a bare loop that is unstable and answers
        at once.

    Examples
    --------
    >>> from gabactl import GabaSpec, LogRatio
    >>> spec, plant = GabaSpec(beta=0), LogRatio(0.5)
    >>> linear_response(spec, plant, disturbance=[1, 1, 1]).log_ratio.tolist()
    [1.0, 1.5, 1.75]
    """
    d = np.asarray(disturbance, dtype=np.float64)
    if d.ndim != 1 or d.size == 0 or not np.isfinite(d).all():
        raise InputError("disturbance: give a list of finite numbers, one per step")
    found = as_loop(loop, plant, ratio, sensor_delay)
    y, u = _simulate(found, d)
    why = "the disturbance is no step"
    return LinearResponse(found, kind, np.arange(d.size), d, y, u, y + u, reason=why)


def _simulate(loop: Loop, d: Array) -> tuple[Array, Array]:
    if loop.interval == 1 and loop.closed.radius <= 1.0 + 1e-9:
        # Time-invariant: filtered in one go. (A growing one would lose its digits that way.)
        pn, pd = np.real(loop.plant.numerator), np.real(loop.plant.denominator)
        seen = np.concatenate([np.zeros(loop.sensor_delay), d])[: d.size]
        u = signal.lfilter(*loop.closed_loop_coefficients()["weights"], seen)
        return d + signal.lfilter(pn, pd, u), np.asarray(u)
    return _simulate_steps(loop, d)


def _simulate_steps(loop: Loop, d: Array) -> tuple[Array, Array]:
    pn, pd = np.real(loop.plant.numerator), np.real(loop.plant.denominator)
    if pn[0] != 0.0:
        raise InputError("an unstable loop with direct feed-through: multiply L by 1/z")
    order = pd.size - 1
    pole = loop.spec.beta**loop.interval
    y, u = np.zeros(d.size), np.zeros(d.size)
    response = np.zeros(d.size)
    ema = 0.0
    for t in range(d.size):
        past = min(order, t)
        response[t] = (
            np.dot(pn[1 : past + 1], u[t - past : t][::-1])
            - np.dot(pd[1 : past + 1], response[t - past : t][::-1])
        ) / pd[0]
        y[t] = response[t] + d[t]
        if t % loop.interval == 0:
            seen = y[t - loop.sensor_delay] if t >= loop.sensor_delay else 0.0
            ema = pole * ema - (1.0 - pole) * seen
        u[t] = loop.slope * ema
    return y, u


def step_response(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    size: float = 1.0,
    steps: int | None = None,
) -> LinearResponse:
    """Response to a lasting step of the imbalance, with step info.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`.
    size : float
        Step of d = log(g_1/g_2), in nats, from the first step on.
    steps : int, optional
        How many; default a horizon that fits the slowest pole.

    Returns
    -------
    LinearResponse

    Raises
    ------
    InputError
        Fewer than one step.

    Notes
    -----
    The end of u is -slope size/(1 + L(1)). Of it, the rise is from 10 to 90 %, and settling is to
    within 2 %. The step info is None with a reason for a loop that is not stable.

    Examples
    --------
    >>> from gabactl import GabaSpec, LogRatio
    >>> step_response(GabaSpec(), LogRatio(0.0)).settling_steps
    389
    """
    found = as_loop(loop, plant, ratio, sensor_delay)
    step = np.full(_length(found, steps), float(size))
    result = linear_response(found, disturbance=step, kind=f"step of {size:g} nats")
    return replace(result, **{"reason": None, **_step_info(found, result, size)})


def _length(loop: Loop, steps: int | None) -> int:
    return horizon(loop) if steps is None else check_int("steps", steps, 1, "such as 1000")


def _step_info(loop: Loop, result: LinearResponse, size: float) -> dict[str, Any]:
    if not loop.closed.stable:
        return {"reason": f"the closed loop is {loop.closed.verdict}"}
    dc = float(np.real(loop.rational(1.0)))
    final = -loop.slope * size / (1.0 + dc)
    y_end = size / (1.0 + dc)
    q_end = y_end + final
    share_error = 0.5 - 1.0 / (1.0 + math.exp(-y_end))
    if final == 0.0:
        return {"reason": "the weights do not answer (the floor holds them)"}
    relative = result.log_weights / final
    unsettled = np.flatnonzero(np.abs(relative - 1.0) > 0.02)
    settling = int(unsettled[-1]) + 1 if unsettled.size else 0
    if settling >= relative.size:
        return {"reason": f"not settled within the {relative.size} steps shown: ask for more"}
    first10, first90 = (int(np.flatnonzero(relative >= level)[0]) for level in (0.1, 0.9))
    overshoot = max(0.0, 100.0 * (float(relative.max()) - 1.0))
    return {
        "rise_time_steps": first90 - first10,
        "settling_steps": settling,
        "overshoot_percent": overshoot if overshoot > 1e-9 else 0.0,
        "share_error": share_error,
        "contribution_log_ratio": 0.0 if abs(q_end) < 1e-12 * abs(size) else q_end,
        "contribution_ratio": math.exp(q_end),
    }


def ramp_response(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    slope_per_step: float = 0.001,
    steps: int | None = None,
) -> LinearResponse:
    """Response to a steady drift of the imbalance.

    Without feedback of the plant the contributions lag by q = slope times the group delay
    (99 steps for the published filter).

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`.
    slope_per_step : float
        Drift of d per step, in nats.
    steps : int, optional
        How many; default a horizon that fits the slowest pole.

    Examples
    --------
    >>> from gabactl import GabaSpec, LogRatio
    >>> round(ramp_response(GabaSpec(), LogRatio(0.0)).final_contributions, 4)
    0.099
    """
    found = as_loop(loop, plant, ratio, sensor_delay)
    ramp = slope_per_step * np.arange(_length(found, steps))
    return linear_response(found, disturbance=ramp, kind=f"ramp of {slope_per_step:g} per step")
