"""Is my floor saturated? What a recorded run says of the actuator's authority."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.authority import required_floor, saturation_ratio
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.runs.quantiles import HELD, PassingQuantiles
from gabactl.runs.replay import Replay, Replayer
from gabactl.traces import Trace, trace_pieces
from gabactl.traces.schema import short_name

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
        from gabactl.law.authority import authority

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


def saturation(trace: Trace | str | Path, spec: GabaSpec | None = None) -> Saturation:
    """Judge a recorded run's floor.

    The weights are computed by replaying the recorded norms under ``spec``, so that any setting
    can be judged on any run, whatever balanced it.

    Parameters
    ----------
    trace : Trace or path
        A run with gradient norms. Of a path, or the name of a bundled trace, only a piece at a
        time is held, however long the run: beyond a million readings the file is read two or three
        times over, for the exact medians. The figures are the same to the last bit.
    spec : GabaSpec, optional
        Default: the trace's own settings, or the published ones where it has none.

    Returns
    -------
    Saturation
        The figures, and a verdict in words.

    Raises
    ------
    InputError
        No reading past the warm-up has a positive norm for every task, or the file changes while
        it is read.

    Examples
    --------
    >>> import numpy as np
    >>> trace = Trace.from_arrays(np.tile([500.0, 1.0], (1000, 1)), tasks=("rul", "health"))
    >>> saturation(trace).pinned_fraction_by_task
    {'rul': 0.74..., 'health': 0.0}
    """
    if isinstance(trace, Trace):
        return _judge(lambda: [trace], spec, None, trace.source)
    path = trace
    return _judge(lambda: trace_pieces(path), spec, HELD, short_name(path))


def _judge(
    pieces: Callable[[], Iterable[Trace]], spec: GabaSpec | None, held: int | None, source: str
) -> Saturation:
    ratios = PassingQuantiles([50.0, 95.0], held)
    residuals = PassingQuantiles([50.0], held)
    sums: _Sums | None = None
    again = True
    while again:
        seen: _Sums | None = None
        for piece in pieces():
            if seen is None:
                spec = spec or piece.spec or GabaSpec(n_tasks=len(piece.tasks))
                seen = _Sums(spec, piece)
            seen.add(piece, ratios, residuals)
        if seen is None:
            raise InputError(f"{source}: the trace has no rows yet: nothing was recorded")
        if not ratios.count and not seen.positive:
            raise InputError(
                f"{source}: no reading after the warm-up of {seen.spec.warmup} steps has a "
                "positive norm for every task: record a longer run, or lower --warmup"
            )
        sums = sums or seen
        # Both end their pass, whatever the first says.
        again = any([ratios.end_pass(), residuals.end_pass()])
    assert sums is not None
    high = ratios.percentile(95.0)
    return Saturation(
        spec=sums.spec,
        active_steps=sums.active,
        saturated_fraction=sums.below / sums.active,
        pinned_fraction=sums.pinned / sums.active,
        pinned_fraction_by_task={
            name: float(count / sums.active)
            for name, count in zip(sums.tasks, sums.pinned_by_task, strict=True)
        },
        first_pinned_step=sums.first_pinned_step,
        saturation_ratio=saturation_ratio(sums.spec),
        ratio_median=ratios.median,
        ratio_high=high,
        residual_ratio_median=residuals.median,
        floor_needed=float(required_floor(high, sums.spec.n_tasks, sums.spec.law)),
        unrecorded_readings=sums.unrecorded,
    )


class _Sums:
    """What is counted of the rows of one pass."""

    def __init__(self, spec: GabaSpec, first: Trace) -> None:
        self.spec, self.tasks = spec, first.tasks
        self._replayer = Replayer(spec)
        self.active = self.below = self.pinned = self.positive = self.unrecorded = 0
        self.pinned_by_task = np.zeros(spec.n_tasks, dtype=np.int64)
        self.first_pinned_step: int | None = None

    def add(self, piece: Trace, ratios: PassingQuantiles, residuals: PassingQuantiles) -> None:
        run = self._replayer.add(piece)
        self._count(run)
        norms = piece.grad_norms
        positive = np.isfinite(norms).all(axis=1) & (norms > 0).all(axis=1) & run.active
        self.positive += int(positive.sum())
        norms, weights = norms[positive], run.weights[positive]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            contributions = norms * weights
            ratios.add(norms.max(axis=1) / norms.min(axis=1))
            residuals.add(contributions.max(axis=1) / contributions.min(axis=1))
        self.unrecorded += run.unrecorded_readings

    def _count(self, run: Replay) -> None:
        ema, floor = run.ema[run.active], self.spec.floor
        below = ema < floor
        # Held at the floor up to rounding: the projection is exact to a few ulp of 1.
        pinned = ema <= floor + 1e-12 if FLOORS[self.spec.floor_mode].replaces_state else below
        rows = pinned.any(axis=1)
        self.active += len(ema)
        self.below += int(below.any(axis=1).sum())
        self.pinned += int(rows.sum())
        self.pinned_by_task += pinned.sum(axis=0)
        if self.first_pinned_step is None and rows.any():
            self.first_pinned_step = int(run.step[run.active][rows][0])
