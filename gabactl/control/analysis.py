"""One setting and one plant, everything asked of them: what ``gabactl analyze`` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
        result: dict[str, Any] = {"spec": self.spec.to_dict(), "plant": describe_plant(self.plant)}
        if self.plant is None:
            result["plant"] = None
        result |= {k: v for k, v in self.filter.to_dict().items() if k not in ("beta", "interval")}
        result |= {
            k: v
            for k, v in self.authority.to_dict().items()
            if k not in ("n_tasks", "floor", "floor_mode", "law")
        }
        if self.loop is not None:
            result |= self.loop.to_dict()
        if self.margins is not None:
            result |= self.margins.to_dict()
        if self.step is not None:
            result["step"] = self.step.to_dict()
        if self.loop_noise is not None:
            result["loop_noise"] = self.loop_noise.to_dict()
        elif self.loop_noise_reason:
            result |= {"loop_noise": None, "loop_noise_reason": self.loop_noise_reason}
        if self.rest is not None:
            result["rest"] = self.rest.to_dict()
        if self.small_gain is not None:
            result["small_gain"] = self.small_gain.to_dict()
        if self.limit_cycles is not None:
            result |= self.limit_cycles.to_dict()
        if self.certificates:
            result["certificates"] = [one.to_dict() for one in self.certificates]
        if self.closed_loop_authority_ratio is not None:
            result["closed_loop_authority_ratio"] = self.closed_loop_authority_ratio
        return result | {"verdict": self.verdict, "stable": self.stable, "remark": self.remark}

    def rows(self) -> list[tuple[str, ...]]:
        """The rows of every part."""
        return [row for part in self._parts() for row in (tuple(r) for r in part.rows())]

    def _parts(self) -> list[Result]:
        parts = [
            self.filter,
            self.authority,
            self.loop,
            self.margins,
            self.step,
            self.loop_noise,
            self.rest,
            self.small_gain,
            self.limit_cycles,
            *self.certificates,
        ]
        return [part for part in parts if part is not None]

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
    facts, reach = filter_facts(spec), authority(spec)
    if plant is None:
        return Analysis(spec, plant, facts, reach, remark="No plant given: the controller alone.")
    if plant_tasks(plant) not in (None, spec.n_tasks):
        raise InputError(
            f"the plant has {plant_tasks(plant)} tasks and the setting {spec.n_tasks}: "
            f"set n_tasks = {plant_tasks(plant)} (--tasks {plant_tasks(plant)})"
        )
    if isinstance(plant, CallablePlant):
        note = "A callable has no transfer function: simulate it."
        return Analysis(spec, plant, facts, reach, remark=note)
    if isinstance(plant, QuadraticBowls):
        if spec.n_tasks > 2:
            note = "Bowls with more than two tasks have no analysis here: simulate them."
            return Analysis(spec, plant, facts, reach, remark=note)
        return Analysis(
            spec, plant, facts, reach, rest=equilibria(spec, plant, disturbance=disturbance)
        )
    if spec.n_tasks > 2:
        many = vector_loop(spec, plant)
        note = (
            "Margins are given for two tasks; for more, the poles of every mode and a global bound."
        )
        return Analysis(
            spec, plant, facts, reach, loop=many, small_gain=small_gain(spec, plant), remark=note
        )
    loop = open_loop(spec, plant, ratio, sensor_delay)
    result = margins(loop, skew=skew)
    rests = equilibria(spec, plant, disturbance=disturbance)
    rho = -float((loop.plant(1.0)).real)
    noise, why = _noise(loop, noise_std)
    return Analysis(
        spec,
        plant,
        facts,
        reach,
        loop=loop,
        margins=result,
        step=step_response(loop) if result.stable else None,
        loop_noise=noise,
        loop_noise_reason=why,
        rest=rests,
        small_gain=small_gain(spec, plant),
        limit_cycles=(
            limit_cycles(spec, plant, disturbance=disturbance)
            if result.stability.verdict == "unstable"
            and spec.interval == 1
            and not FLOORS[spec.floor_mode].replaces_state
            and sensor_delay == 0
            else None
        ),
        certificates=_certificates(spec, plant, loop, disturbance) if certify else (),
        closed_loop_authority_ratio=(
            math.exp(min(closed_loop_authority(spec, rho), 700.0))
            if result.stable and rho < 1.0 and spec.floor > 0.0
            else None
        ),
    )


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


def plant_tasks(plant: Any) -> int | None:
    """Number of tasks of a plant, where it says so."""
    return getattr(plant, "n_tasks", None)
