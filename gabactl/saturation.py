"""Is my floor saturated? What a recorded run says of the actuator's authority."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gabactl.authority import required_floor, saturation_ratio
from gabactl.controller import GabaSpec
from gabactl.errors import InputError
from gabactl.replay import replay_trace
from gabactl.results import Result
from gabactl.traces import Trace

__all__ = ["Saturation", "saturation"]

#: From this share of saturated steps on, the loop counts as open.
_OPEN = 0.5


@dataclass(frozen=True)
class Saturation(Result):
    """How much of a run the floor, not the controller, decided.

    Attributes
    ----------
    spec : GabaSpec
        The settings it was computed for.
    active_steps : int
        Steps past the warm-up with a usable history.
    saturated_fraction : float
        Share of active steps with some average below the floor.
    pinned_fraction : float
        Share of active steps with some average at the floor or below it. The same, except for
        ``clamp_state``, whose average is held at the floor and so is never below it.
    pinned_fraction_by_task : dict of str to float
        That, per task.
    first_pinned_step : int or None
        When it began.
    saturation_ratio : float
        The imbalance at which the floor is reached.
    ratio_median, ratio_high : float
        Median and 95th percentile of the largest over the smallest norm.
    residual_ratio_median : float
        Median of the largest over the smallest contribution w_i g_i at the readings: 1 is balance.
    floor_needed : float
        Largest floor with authority over ``ratio_high`` (two tasks; for more, one loud task).
    unrecorded_readings : int
        Readings at steps that the record leaves out. More than 0 makes the average an estimate:
        each is taken to be as the next one recorded.
    """

    spec: GabaSpec
    active_steps: int
    saturated_fraction: float
    pinned_fraction: float
    pinned_fraction_by_task: dict[str, float]
    first_pinned_step: int | None
    saturation_ratio: float
    ratio_median: float
    ratio_high: float
    residual_ratio_median: float
    floor_needed: float
    unrecorded_readings: int = 0

    title = "Is the floor saturated?"

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        share = f"{self.pinned_fraction:.0%} of the active steps"
        if self.pinned_fraction == 0:
            return "No: the average never reached the floor."
        if self.pinned_fraction < _OPEN:
            return f"At times: {share}. While it is, the weights do not react."
        return (
            f"Yes: {share}. The weights are the floor's constants, the loop is open, and the "
            f"contributions stay {self.residual_ratio_median:.3g} to 1 apart."
        )

    def plot(self, ax: Any | None = None) -> Any:
        """What the floor leaves of an imbalance, and where this run is; returns the axes."""
        from gabactl.authority import authority

        ax = authority(self.spec, [self.ratio_median, self.ratio_high]).plot(ax)
        ax.set_title(f"{self.title} {self.verdict.split(':')[0].split('.')[0]}", loc="left")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """Keys as the attributes, and the verdict."""
        return dict(self.__dict__) | {"spec": self.spec.to_dict(), "verdict": self.verdict}

    def rows(self) -> list[tuple[str, ...]]:
        """As a table."""
        by_task = ", ".join(f"{k} {v:.1%}" for k, v in self.pinned_fraction_by_task.items())
        return [
            ("verdict", self.verdict),
            ("saturated steps", f"{self.pinned_fraction:.2%} of {self.active_steps} ({by_task})"),
            ("first at step", str(self.first_pinned_step or "never")),
            ("imbalance, median / 95 %", f"{self.ratio_median:.4g} / {self.ratio_high:.4g}"),
            ("imbalance the floor allows", f"{self.saturation_ratio:.4g}"),
            ("residual contribution ratio", f"{self.residual_ratio_median:.4g} (1 is balance)"),
            ("floor it would take", f"{self.floor_needed:.3g} (now {self.spec.floor:g})"),
            *(
                [("note", f"an estimate: {self.unrecorded_readings} readings were not logged")]
                if self.unrecorded_readings
                else []
            ),
        ]


def saturation(trace: Trace, spec: GabaSpec | None = None) -> Saturation:
    """Judge a recorded run's floor.

    The weights are computed by replaying the recorded norms under ``spec``, so that any setting
    can be judged on any run, whatever balanced it.

    Parameters
    ----------
    trace : Trace
        A run with gradient norms.
    spec : GabaSpec, optional
        Default: the trace's own settings, or the published ones where it has none.

    Returns
    -------
    Saturation
        The figures, and a verdict in words.

    Raises
    ------
    InputError
        No reading past the warm-up has a positive norm for every task.

    Examples
    --------
    >>> import numpy as np
    >>> trace = Trace.from_arrays(np.tile([500.0, 1.0], (1000, 1)), tasks=("rul", "health"))
    >>> saturation(trace).pinned_fraction_by_task
    {'rul': 0.74..., 'health': 0.0}
    """
    spec = spec or trace.spec or GabaSpec(n_tasks=len(trace.tasks))
    run = replay_trace(trace, spec)
    norms = trace.grad_norms
    positive = np.isfinite(norms).all(axis=1) & (norms > 0).all(axis=1) & run.active
    if not positive.any():
        raise InputError(
            f"{trace.source}: no reading after the warm-up of {spec.warmup} steps has a positive "
            "norm for every task: record a longer run, or lower --warmup"
        )
    ema = run.ema[run.active]
    below = ema < spec.floor
    # Held at the floor up to rounding: the projection is exact to a few ulp of 1.
    pinned = ema <= spec.floor + 1e-12 if spec.floor_mode == "clamp_state" else below
    ratios = norms[positive].max(axis=1) / norms[positive].min(axis=1)
    contributions = norms[positive] * run.weights[positive]
    high = float(np.percentile(ratios, 95))
    steps = trace.step[run.active][pinned.any(axis=1)]
    return Saturation(
        spec=spec,
        active_steps=int(run.active.sum()),
        saturated_fraction=float(below.any(axis=1).mean()),
        pinned_fraction=float(pinned.any(axis=1).mean()),
        pinned_fraction_by_task={
            name: float(share) for name, share in zip(trace.tasks, pinned.mean(axis=0), strict=True)
        },
        first_pinned_step=int(steps[0]) if steps.size else None,
        saturation_ratio=saturation_ratio(spec),
        ratio_median=float(np.median(ratios)),
        ratio_high=high,
        residual_ratio_median=float(
            np.median(contributions.max(axis=1) / contributions.min(axis=1))
        ),
        floor_needed=float(required_floor(high, spec.n_tasks, spec.law)),
        unrecorded_readings=run.unrecorded_readings,
    )
