"""One setting and one plant, everything asked of them: what ``gabactl analyze`` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.control.certificates import (
    Certificate,
    LyapunovCertificate,
    circle,
    exact_circle,
    lyapunov,
    tsypkin,
)
from gabactl.control.describing import LimitCycles, limit_cycles
from gabactl.control.linear import (
    Loop,
    VectorLoop,
    as_loop,
    as_setting,
    open_loop,
    vector_loop,
)
from gabactl.control.margins import Margins, margins
from gabactl.control.noise import NoiseReport, jensen_bias, noise_report
from gabactl.control.nonlinear import Equilibria, SmallGain, equilibria, small_gain
from gabactl.control.responses import LinearResponse, step_response
from gabactl.law.authority import Authority, authority, closed_loop_authority
from gabactl.law.filter import FilterFacts, filter_facts
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.plants import CallablePlant, LogRatio, QuadraticBowls, describe_plant

__all__ = ["Analysis", "analyze"]

#: In the order in which they are told; those nested have keys of their own.
_NESTED = ("step", "loop_noise", "rest", "small_gain")
_PARTS = ("filter", "authority", "loop", "margins", *_NESTED, "limit_cycles")


@dataclass(frozen=True)
class Analysis(Result):
    """What a setting does, alone and around a plant.

    Attributes
    ----------
    spec : GabaSpec
        The settings.
    plant
        What answers to the weights, as it was given; None for the controller alone.
    filter, authority : FilterFacts, Authority
        Of the controller alone.
    loop : Loop, VectorLoop or None
        None without a plant that answers linearly.
    margins, step, loop_noise : Margins, LinearResponse, NoiseReport, or None
        Two tasks only; noise and response need a stable loop.
    loop_noise_reason : str
        Why a linear loop of two tasks has no noise figures: unstable, or too slow to be summed.
    rest : Equilibria or None
        Where the loop of two tasks can rest; None without a plant.
    small_gain : SmallGain or None
        Whether a small gain of the plant proves stability.
    limit_cycles : LimitCycles or None
        Predicted oscillations of an unstable loop.
    certificates : tuple of Certificate and LyapunovCertificate
        Where asked for.
    closed_loop_authority_ratio : float or None
        Largest lasting imbalance that the closed loop cancels entirely.
    remark : str
        Why parts are missing.
    """

    spec: GabaSpec
    plant: Any
    filter: FilterFacts
    authority: Authority
    loop: Loop | VectorLoop | None = None
    margins: Margins | None = None
    step: LinearResponse | None = None
    loop_noise: NoiseReport | None = None
    rest: Equilibria | None = None
    small_gain: SmallGain | None = None
    limit_cycles: LimitCycles | None = None
    certificates: tuple[Certificate | LyapunovCertificate, ...] = ()
    closed_loop_authority_ratio: float | None = None
    remark: str = ""
    loop_noise_reason: str = ""

    title = "Analysis"

    @property
    def verdict(self) -> str | None:
        """``stable``, ``bistable``, ``neutral``, ``unstable``; None without feedback."""
        if self.rest is not None:
            return self.rest.verdict
        return self.loop.verdict if isinstance(self.loop, VectorLoop) else None

    @property
    def stable(self) -> bool | None:
        """Of the whole loop, wherever it starts; None without feedback."""
        # The linear loop at the operating point is not the last word where several points exist.
        return None if self.verdict is None else self.verdict == "stable"

    def headline(self) -> str:
        """The verdict, or why there is none."""
        return self.verdict or self.remark

    def plot(self, ax: Any | None = None) -> Any:
        """The step response where the loop has one, else the poles or the reach; returns the axes."""
        return (self.step or self.loop or self.authority).plot(ax)

    def facts(self) -> dict[str, Any]:
        """Filter facts, bounds, poles, margins, ... as one flat table of the documented keys."""
        settings = self.spec.to_dict()
        plant = None if self.plant is None else describe_plant(self.plant)
        told: dict[str, Any] = {"spec": settings, "plant": plant}
        for name in _PARTS:
            part = getattr(self, name)
            if part is None:
                continue
            if name in _NESTED:
                told[name] = part.to_dict()
            else:  # of the settings only the loop's interval is told again
                own = part.to_dict().items()
                told |= {k: v for k, v in own if k not in settings or part is self.loop}
        if self.loop_noise_reason:
            told |= {"loop_noise": None, "loop_noise_reason": self.loop_noise_reason}
        if self.certificates:
            told["certificates"] = [one.to_dict() for one in self.certificates]
        if self.closed_loop_authority_ratio is not None:
            told["closed_loop_authority_ratio"] = self.closed_loop_authority_ratio
        return told | {"verdict": self.verdict, "stable": self.stable, "remark": self.remark}

    def rows(self) -> list[tuple[str, ...]]:
        """The rows of every part."""
        return [row for part in self._parts() for row in (tuple(r) for r in part.rows())]

    def _parts(self) -> list[Result]:
        parts = [getattr(self, name) for name in _PARTS]
        return [part for part in (*parts, *self.certificates) if part is not None]

    def __str__(self) -> str:
        sections = [str(part) for part in self._parts()]
        if self.closed_loop_authority_ratio is not None:
            ratio = self.closed_loop_authority_ratio
            shown = "any" if math.isinf(ratio) else f"{ratio:.5g}x"
            sections.append(f"Largest imbalance the closed loop cancels entirely: {shown}")
        if self.loop_noise_reason:
            sections.append(f"No noise figures: {self.loop_noise_reason}")
        if self.remark:
            sections.append(self.remark)
        return "\n\n".join(sections)


def analyze(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    disturbance: float = 0.0,
    noise_std: float = 0.5,
    skew: float = 0.0,
    certify: bool = False,
) -> Analysis:
    """Everything about a setting, and about its loop around a plant.

    Parameters
    ----------
    loop : GabaSpec or Loop
        A setting, or a loop of :func:`~gabactl.control.linear.open_loop`, which has a plant, a ratio
        and a sensor delay.
    plant : LogRatio, QuadraticBowls, LtiPlant or a python-control system, optional
        What answers to the weights; without one only the controller is described.
    ratio : float > 0
        Imbalance g_1/g_2 the linear loop is taken at.
    sensor_delay : int
        Steps by which a reading is old.
    disturbance : float
        Constant d, in nats, for the balance points.
    noise_std : float
        Noise of the log ratio per reading, in nats.
    skew : float
        Of the disk margin.
    certify : bool
        Also try the circle and Tsypkin criteria and a Lyapunov function (needs the extra ``lmi``).

    Returns
    -------
    Analysis

    Raises
    ------
    InputError
        A plant and settings of different numbers of tasks.

    Examples
    --------
    >>> from gabactl.plants import LogRatio
    >>> analysis = analyze(GabaSpec(), LogRatio(0.5, a=0.9, delay=1))
    >>> analysis.verdict, round(analysis.margins.gain_margin_up, 6)
    ('stable', 2.0)
    """
    if isinstance(loop, GabaSpec):
        spec = loop
    else:
        loop = as_loop(loop, plant, ratio, sensor_delay)
        spec, plant = as_setting(loop)
        ratio, sensor_delay = loop.ratio, 0  # as_setting makes the delay the plant's
    alone = Analysis(spec, plant, filter_facts(spec), authority(spec))
    tasks = getattr(plant, "n_tasks", spec.n_tasks)
    if tasks != spec.n_tasks:
        raise InputError(
            f"the plant has {tasks} tasks and the setting {spec.n_tasks}: "
            f"set n_tasks = {tasks} (--tasks {tasks})"
        )
    if remark := _why_alone(plant, tasks):
        return replace(alone, remark=remark)
    if isinstance(plant, QuadraticBowls):
        return replace(alone, rest=equilibria(spec, plant, disturbance=disturbance))
    bound = small_gain(spec, plant)
    if tasks > 2:
        remark = (
            "Margins are given for two tasks; for more, the poles of every mode and a global bound."
        )
        return replace(alone, loop=vector_loop(spec, plant), small_gain=bound, remark=remark)
    loop = open_loop(spec, plant, ratio, sensor_delay)
    result = margins(loop, skew=skew)
    rho = -float((loop.plant(1.0)).real)
    noise, why = _noise(loop, noise_std)
    keeps_state = not FLOORS[spec.floor_mode].replaces_state
    predicted = spec.interval == 1 and sensor_delay == 0 and keeps_state
    oscillates = predicted and result.verdict == "unstable"
    cancels = None
    if result.stable and rho < 1.0 and spec.floor > 0.0:
        cancels = math.exp(min(closed_loop_authority(spec, rho), 700.0))
    return replace(
        alone,
        loop=loop,
        margins=result,
        step=step_response(loop) if result.stable else None,
        loop_noise=noise,
        loop_noise_reason=why,
        rest=equilibria(spec, plant, disturbance=disturbance),
        small_gain=bound,
        limit_cycles=limit_cycles(spec, plant, disturbance=disturbance) if oscillates else None,
        certificates=_certificates(spec, plant, loop, disturbance) if certify else (),
        closed_loop_authority_ratio=cancels,
    )


def _why_alone(plant: Any, tasks: int) -> str:
    """Why there is nothing to analyse but the controller; empty where there is."""
    if plant is None:
        return "No plant given: the controller alone."
    if isinstance(plant, CallablePlant):
        return "A callable has no transfer function: simulate it."
    if isinstance(plant, QuadraticBowls) and tasks > 2:
        return "Bowls with more than two tasks have no analysis here: simulate them."
    return ""


def _noise(loop: Loop, noise_std: float) -> tuple[NoiseReport | None, str]:
    """The figures, or why there are none: a loop without them has everything else."""
    jensen_bias(math.log(loop.ratio), noise_std)  # refuses what is no noise, whatever the loop
    try:
        return noise_report(loop, noise_std=noise_std), ""
    except InputError as error:
        return None, str(error)


def _certificates(
    spec: GabaSpec, plant: Any, loop: Loop, disturbance: float
) -> tuple[Certificate | LyapunovCertificate, ...]:
    found: list[Certificate | LyapunovCertificate] = [circle(loop), tsypkin(loop)]
    if isinstance(plant, LogRatio) and spec.interval == 1 and loop.sensor_delay == 0:
        one_rest = len(equilibria(spec, plant, disturbance=disturbance).points) == 1
        if plant.a == 0.0 and not FLOORS[spec.floor_mode].replaces_state and one_rest:
            found.append(exact_circle(spec, plant, disturbance=disturbance))
        found.append(lyapunov(spec, plant))
    return tuple(found)
