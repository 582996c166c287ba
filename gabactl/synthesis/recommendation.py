"""The recommendation: settings, the constraint that decided each, and the alternatives."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.base.tables import format_table
from gabactl.law.authority import required_floor, residual_ratio
from gabactl.law.laws import Law
from gabactl.law.spec import GabaSpec
from gabactl.synthesis.budget import LoopErrors, loop_errors
from gabactl.synthesis.workload import Workload

__all__ = ["Tuning", "tune"]

_INTERVALS = (1, 3, 10, 30, 100)
_GAINS = np.geomspace(1e-4, 0.9, 25)


@dataclass(frozen=True)
class Alternative:
    """One setting, with what it costs.

    Parameters
    ----------
    name : str
        Why it is listed.
    spec : GabaSpec
        The setting.
    errors : LoopErrors
        Noise against lag.
    ramp_lag_steps : float
        Steps behind a slow ramp.
    overhead : float
        Cost of the readings, as a share of the training without them.
    residual_ratio : float
        Contribution ratio left at the largest imbalance (1: balanced).
    stable : bool
        For every rho of the workload.

    Examples
    --------
    >>> tune(Workload(50.0, 2400.0)).alternatives[0].name
    'recommended'
    """

    name: str
    spec: GabaSpec
    errors: LoopErrors
    ramp_lag_steps: float
    overhead: float
    residual_ratio: float
    stable: bool

    def to_dict(self) -> dict[str, Any]:
        """The attributes, those of ``errors`` among them."""
        facts = vars(self) | {"spec": self.spec.to_dict()} | asdict(self.errors)
        del facts["errors"]
        return facts


@dataclass(frozen=True)
class Tuning(Result):
    """A recommendation and what it rests on.

    Parameters
    ----------
    spec : GabaSpec
        Recommended settings.
    workload : Workload
        What they were chosen for.
    alternatives : tuple of Alternative
        The recommended setting, the published one, and other intervals at their best beta.
    binding : tuple of str
        The constraints that decided.
    reasons : dict of str to str
        One sentence per setting.
    advice : str
        What rescaling the loud loss would do, which comes first.
    noise_target, max_overhead : float
        The limits asked for.
    """

    spec: GabaSpec
    workload: Workload
    alternatives: tuple[Alternative, ...]
    binding: tuple[str, ...]
    reasons: dict[str, str]
    advice: str
    noise_target: float
    max_overhead: float

    title = "Recommended settings"

    def to_toml(self) -> str:
        """The recommended settings as TOML, for ``--spec``."""
        return self.spec.to_toml()

    def rows(self) -> list[tuple[str, ...]]:
        """The advice, the settings and the table of alternatives."""
        work = self.workload
        settings = self.spec.to_dict()
        return [
            ("units first", self.advice),
            *((name, f"{_shown(settings[name])} ({why})") for name, why in self.reasons.items()),
            ("what binds", "; ".join(self.binding)),
            (
                "for",
                f"ratio {work.ratio_low:.4g} to {work.ratio_high:.4g}, noise {work.noise_std:.2g} "
                f"(correlation {work.noise_pole:.2g}), drift {work.drift_std:.2g} per step, "
                f"ramp {work.ramp:.2g} per step, rho {work.rho[0]:.2g} to {work.rho[1]:.2g} "
                f"({work.source})",
            ),
            (
                "bias far from balance",
                f"x {math.exp(work.noise_std**2 / 2):.3g} in the contribution ratio: the average is "
                "of weights, not of their logarithms",
            ),
        ]

    def __str__(self) -> str:
        table = ["", "Alternatives", *("  " + line for line in _table(self.alternatives))]
        return "\n".join([super().__str__(), *table])

    def plot(self, ax: Any | None = None) -> Any:
        """Noise against lag, over the time constant, at the recommended interval.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw.

        Returns
        -------
        matplotlib axes
        """
        from gabactl.base.plots import PALETTE, axes

        ax = axes(ax)
        betas = 1.0 - np.geomspace(_GAINS[0], _GAINS[-1], 60)
        errors = [_worst(self.spec.replace(beta=float(beta)), self.workload) for beta in betas]
        tau = -1.0 / np.log(betas)
        curves = ("jitter of the weights", "lag behind the drift", "both")
        for label, color, values in zip(
            curves, PALETTE, zip(*map(astuple, errors), strict=True), strict=False
        ):
            ax.loglog(tau, values, color=color, label=label)
        ax.axhline(self.noise_target, color=PALETTE[0], ls=":", lw=1, label="limit of the jitter")
        ax.axvline(
            -1.0 / math.log(self.spec.beta), color="0.5", lw=1, label=f"beta = {self.spec.beta:g}"
        )
        ax.set_xlabel("time constant, steps")
        ax.set_ylabel("error of log(w_1/w_2), nats")
        ax.set_title(f"Noise against lag, a reading every {self.spec.interval} steps")
        ax.legend()
        return ax


def tune(
    workload: Workload,
    *,
    noise_target: float = 0.1,
    max_overhead: float = 0.1,
) -> Tuning:
    """Choose beta, floor, warm-up, law and interval for a workload.

    Parameters
    ----------
    workload : Workload
        What the controller has to cope with.
    noise_target : float, positive
        Largest standard deviation of log(w_1/w_2) allowed from noise, nats.
    max_overhead : float, positive
        Largest cost of the readings, as a share of training.

    Returns
    -------
    Tuning

    Raises
    ------
    InputError
        A limit that is not positive.

    Notes
    -----
    interval: the smallest that meets ``max_overhead``. beta: the least total error (for white
    noise and no feedback that is the steady Kalman filter of a random walk in noise) among those
    that keep the jitter to ``noise_target`` and the loop stable. floor: 1/(1 + R) for authority over
    a ratio R, with R to the power 1/(1 - rho) behind a plant with feedback. law: inverse, which for
    K = 2 is the published one and for K > 2 is the only one to equalise all contributions.

    Examples
    --------
    >>> found = tune(Workload(50.0, 2400.0), max_overhead=2.0)
    >>> round(found.spec.floor, 6), found.spec.interval
    (0.000416, 1)
    """
    for name, value in (("noise_target", noise_target), ("max_overhead", max_overhead)):
        if not value > 0:
            raise InputError(f"{name} = {value} must be positive")
    interval = max(1, math.ceil(workload.sensor_cost / max_overhead - 1e-9))
    law: Law = "inverse" if workload.n_tasks > 2 else "complement"
    needed = workload.reach ** (1.0 / (1.0 - workload.rho[1]))
    floor = float(required_floor(needed, workload.n_tasks, law))
    # Even losses need no more than a floor somewhat below uniform weights.
    floor = _two_digits_down(min(floor, 0.5 / workload.n_tasks))
    base = GabaSpec(
        n_tasks=workload.n_tasks,
        floor=floor,
        warmup=100 if workload.settled_after is None else workload.settled_after,
        law=law,
        floor_mode="clamp_state",
        interval=interval,
    )
    spec, decided = _best_beta(base, workload, noise_target)
    binding = [f"interval: cost (at most {100 * max_overhead:g} % more time)"] * (interval > 1)
    binding += [decided, f"floor: authority over a ratio of {needed:.4g}"]
    return Tuning(
        spec=spec,
        workload=workload,
        alternatives=_alternatives(spec, workload, noise_target),
        binding=tuple(binding),
        reasons=_reasons(spec, workload),
        advice=_units(workload),
        noise_target=noise_target,
        max_overhead=max_overhead,
    )


def _worst(spec: GabaSpec, work: Workload) -> LoopErrors:
    """Each error at the end of the rho interval where it is larger, with the ramp's in the lag."""
    found = [
        loop_errors(spec, work.noise_std, work.noise_pole, work.drift_std, rho, work.a, work.delay)
        for rho in sorted({*work.rho})
    ]
    # Behind a ramp the contributions lag by the filter's delay over 1 - rho.
    ramp = work.ramp * _ramp_lag(spec) / (1.0 - work.rho[1])
    return LoopErrors(
        jitter=max(e.jitter for e in found),
        lag_error=math.hypot(max(e.lag_error for e in found), ramp),
        total=math.hypot(max(e.total for e in found), ramp),
    )


def _ramp_lag(spec: GabaSpec) -> float:
    pole = spec.beta**spec.interval
    return spec.interval * pole / (1.0 - pole) + (spec.interval - 1) / 2


def _best_beta(base: GabaSpec, work: Workload, noise_target: float) -> tuple[GabaSpec, str]:
    """The least total error among the quiet and stable, on a grid that is then refined."""
    gains, decided = _GAINS, ""
    for _ in range(2):
        candidates = [base.replace(beta=round(float(1.0 - gain), 6)) for gain in gains]
        errors = [_worst(spec, work) for spec in candidates]
        totals = np.array([e.total for e in errors])
        quiet = np.array([e.jitter <= noise_target for e in errors])
        if not np.isfinite(totals).any():
            raise InputError(
                f"rho = {work.rho[0]:g} with delay {work.delay}: no beta up to {1 - _GAINS[0]:g} "
                "makes the loop stable at this interval: allow a larger overhead"
            )
        free = int(totals.argmin())
        if quiet[free]:
            best, decided = free, "beta: noise against drift (least total error)"
        elif quiet.any():
            best = int(np.where(quiet, totals, np.inf).argmin())
            decided = f"beta: jitter of the weights (at most {noise_target:g}), at the price of lag"
        else:
            best = int(np.argmin([e.jitter for e in errors]))
            decided = f"beta: the jitter cannot be brought to {noise_target:g}; this is the least"
        # Quiet gains lie below the loudest quiet one, so the neighbours bracket every case.
        gains = np.geomspace(gains[max(best - 1, 0)], gains[min(best + 1, len(gains) - 1)], 9)
    # Two digits of 1 - beta are all that the figures behind it deserve.
    gain = float(f"{1.0 - candidates[best].beta:.2g}")
    rounded = base.replace(beta=round(1.0 - gain, 6))
    stable = math.isfinite(_worst(rounded, work).total)
    chosen = rounded if stable else candidates[best]
    if work.rho[0] < -1.0:
        blind, _ = _best_beta(base, dataclasses.replace(work, rho=(0.0, 0.0)), noise_target)
        if not math.isfinite(_worst(blind, work).total):
            decided = (
                f"beta: stability under rho = {work.rho[0]:g} "
                f"(without feedback {blind.beta:g} would do)"
            )
    return chosen, decided


def _alternatives(spec: GabaSpec, work: Workload, noise_target: float) -> tuple[Alternative, ...]:
    found = [_alternative("recommended", spec, work)]
    published = GabaSpec.published(work.n_tasks, floor=min(0.05, 0.5 / work.n_tasks))
    found.append(_alternative("published", published, work))
    for interval in _INTERVALS:
        if interval == spec.interval:
            continue
        try:
            other, _ = _best_beta(spec.replace(interval=interval), work, noise_target)
        except InputError:
            continue
        found.append(_alternative(f"every {interval}", other, work))
    return tuple(found)


def _alternative(name: str, spec: GabaSpec, work: Workload) -> Alternative:
    errors = _worst(spec, work)
    # A plant with feedback leaves R^(1/(1-rho)) for the weights to make up.
    needed = work.reach ** (1.0 / (1.0 - work.rho[1]))
    return Alternative(
        name=name,
        spec=spec,
        errors=errors,
        ramp_lag_steps=_ramp_lag(spec),
        overhead=work.sensor_cost / spec.interval,
        residual_ratio=float(residual_ratio(spec, needed) ** (1.0 - work.rho[1])),
        stable=math.isfinite(errors.total),
    )


def _reasons(spec: GabaSpec, work: Workload) -> dict[str, str]:
    warmup = "the start-up transient of the trace is over by then"
    if work.settled_after is None:
        warmup = "as published: without a trace from step 1 nothing better is known"
    law = "the published law equalises contributions for two tasks only"
    floor = "keeps authority over the range given"
    if work.n_tasks == 2:
        law = "with two tasks the laws agree"
        floor = f"keeps authority up to a ratio of {1.0 / spec.floor - 1.0:.4g}"
    return {
        "beta": f"time constant {-1.0 / math.log(spec.beta):.0f} steps",
        "floor": floor,
        "warmup": warmup,
        "law": law,
        "floor_mode": "the weights keep [floor, 1 - (K-1) floor], without dead time after saturation",
        "interval": f"readings cost {100 * work.sensor_cost / spec.interval:.1f} % of a step",
    }


def _units(work: Workload) -> str:
    span = work.ratio_high / work.ratio_low
    half = math.sqrt(span)
    centre = work.centre
    if 0.1 <= centre <= 10.0:
        return f"the losses are in comparable units (the ratio is about {centre:.2g}): leave them"
    which = "first (loud)" if centre > 1 else "second (loud)"
    factor = min(centre, 1.0 / centre)
    floor = float(required_floor(half, work.n_tasks, "inverse"))
    return (
        f"multiply the {which} loss by {factor:.2g}: the ratio then stays within "
        f"{1 / half:.2g} to {half:.2g}, a floor of {_two_digits_down(floor):g} suffices, and no "
        "controller setting does as much; tune again after it"
    )


def _two_digits_down(value: float) -> float:
    digits = 2 - math.floor(math.log10(value))
    return math.floor(value * 10**digits) / 10**digits


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(alternatives: tuple[Alternative, ...]) -> list[str]:
    named = ("", "interval", "beta", "floor", "jitter", "drift error", "lag", "cost")
    rows: list[tuple[str, ...]] = [(*named, "left at most")]
    for item in alternatives:
        spec, errors = item.spec, (item.errors.jitter, item.errors.lag_error)
        rows.append(
            (
                *(item.name, str(spec.interval), f"{spec.beta:g}", f"{spec.floor:g}"),
                *(f"{error:.3f}" if item.stable else "unstable" for error in errors),
                f"{item.ramp_lag_steps:.0f} steps",
                f"{100 * item.overhead:.1f} %",
                f"{item.residual_ratio:.3g} x",
            )
        )
    return format_table(rows)
