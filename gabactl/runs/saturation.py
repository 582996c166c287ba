"""Is my floor saturated? What a recorded run says of the actuator's authority."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.authority import required_floor, saturation_ratio
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.runs.quantiles import HELD, PassingQuantiles
from gabactl.runs.replay import Replay
from gabactl.runs.run import Run
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
    undefined_from : int or None
        Step from which on the average is NaN: a reading was not finite, and no guard held.
    as_trained : bool
        The replay is what happened. Else it is what would have, with GABA and these settings.
    balancer : str or None
        What made the recorded weights, where the record says.
    trained_weights : dict of str to float, or None
        Mean of the recorded weights at the readings, per task, where the replay is not what
        happened; None where it is, or no weights were recorded.
    trained_ratio_median : float or None
        Median of the largest over the smallest contribution with them.
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
    undefined_from: int | None = None
    as_trained: bool = True
    balancer: str | None = None
    trained_weights: dict[str, float] | None = None
    trained_ratio_median: float | None = None

    title = "Is the floor saturated?"

    @property
    def answer(self) -> str:
        """The answer in a word or two."""
        if self.undefined_from is not None:
            return "It has no weights"
        if self.pinned_fraction == 0:
            return "No"
        return "At times" if self.pinned_fraction < _OPEN else "Yes"

    @property
    def verdict(self) -> str:
        """The answer in one sentence; of a run that was weighted otherwise, what would have been."""
        share = f"{self.pinned_fraction:.0%} of the active steps"
        if self.undefined_from is not None:
            return (
                f"{self.answer} from step {self.undefined_from} on: a reading was not finite, and "
                f"with guard {self.spec.guard} the average is NaN ever after (saturated before: "
                f"{share}). Set guard hold."
            )
        if self.as_trained:
            return {
                "No": "No: the average never reached the floor.",
                "At times": f"At times: {share}. While it is, the weights do not react.",
                "Yes": f"Yes: {share}. The weights are the floor's constants, the loop is open, "
                f"and the contributions stay {self.residual_ratio_median:.3g} to 1 apart.",
            }[self.answer]
        return {
            "No": "No: with these settings the average would never have reached the floor.",
            "At times": f"At times: {share}, had GABA set the weights with these settings.",
            "Yes": f"Yes: {share}, had GABA set the weights with these settings. They would be the "
            "floor's constants, and leave the contributions "
            f"{self.residual_ratio_median:.3g} to 1 apart.",
        }[self.answer]

    @property
    def trained(self) -> str | None:
        """What the recorded weights were, where the replay is not what happened."""
        if self.trained_weights is None:
            return None
        by = "" if self.balancer in (None, "gaba") else f" ({self.balancer})"
        weights = ", ".join(f"{task} {weight:.4g}" for task, weight in self.trained_weights.items())
        left = self.trained_ratio_median
        apart = "" if left is None else f"; contributions {left:.3g} to 1 apart"
        return f"{weights} in the mean{by}{apart}"

    def plot(self, ax: Any | None = None) -> Any:
        """What the floor leaves of an imbalance, and where this run is; returns the axes."""
        from gabactl.law.authority import authority

        ax = authority(self.spec, [self.ratio_median, self.ratio_high]).plot(ax)
        ax.set_title(f"{self.title} {self.answer}", loc="left")
        return ax

    def facts(self) -> dict[str, Any]:
        """Keys as the attributes, and the verdict."""
        return dict(self.__dict__) | {"spec": self.spec.to_dict(), "verdict": self.verdict}

    def rows(self) -> list[tuple[str, ...]]:
        """As a table."""
        by_task = ", ".join(f"{k} {v:.1%}" for k, v in self.pinned_fraction_by_task.items())
        return [
            *([("weights as trained", self.trained)] if self.trained else []),
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


def saturation(run: Run | Trace | str | Path, spec: GabaSpec | None = None) -> Saturation:
    """Judge a recorded run's floor.

    The weights are those of the run's replay under ``spec``, so that any setting can be judged on
    any run, whatever balanced it.

    Parameters
    ----------
    run : Run, Trace or path
        A run with gradient norms. Of a path, or the name of a bundled trace, only a piece at a
        time is held, however long the run: beyond a million readings the file is read two or three
        times over, for the exact medians. The figures are the same to the last bit.
    spec : GabaSpec, optional
        Default: the run's own settings, or the published ones where it has none.

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
    held = None if isinstance(run, (Run, Trace)) else HELD
    return _judge(partial(Run.pieces, run, spec), held)


def _judge(pieces: Callable[[], Iterable[Run]], held: int | None) -> Saturation:
    seen = _Sums(held)
    again = True
    while again:
        seen.start_pass()
        for piece in pieces():
            seen.add(piece)
        if not seen.ratios.count and not seen.positive:
            first = seen.first
            raise InputError(
                f"{first.source}: no reading after the warm-up of {first.spec.warmup} steps has a "
                "positive norm for every task: record a longer run, or lower --warmup"
            )
        # All end their pass, whatever the others say.
        unfinished = [series.end_pass() for series in seen.series]
        again = any(unfinished)
    first, high = seen.first, seen.ratios.percentile(95.0)
    described = not first.as_trained and seen.weighted > 0
    return Saturation(
        spec=first.spec,
        active_steps=seen.active,
        saturated_fraction=seen.below / seen.active,
        pinned_fraction=seen.pinned / seen.active,
        pinned_fraction_by_task={
            name: float(count / seen.active)
            for name, count in zip(first.tasks, seen.pinned_by_task, strict=True)
        },
        first_pinned_step=seen.first_pinned_step,
        saturation_ratio=saturation_ratio(first.spec),
        ratio_median=seen.ratios.median,
        ratio_high=high,
        residual_ratio_median=seen.residuals.median,
        floor_needed=float(required_floor(high, first.spec.n_tasks, first.spec.law)),
        unrecorded_readings=seen.unrecorded,
        undefined_from=seen.undefined_from,
        as_trained=first.as_trained,
        balancer=first.trace.balancer,
        trained_weights=dict(
            zip(first.tasks, (seen.trained_weights / seen.weighted).tolist(), strict=True)
        )
        if described
        else None,
        trained_ratio_median=seen.trained.median if described else None,
    )


class _Sums:
    """What is counted of the rows in one pass, and the series that may take several."""

    first: Run

    def __init__(self, held: int | None) -> None:
        self.ratios = PassingQuantiles([50.0, 95.0], held)
        self.residuals = PassingQuantiles([50.0], held)
        self.trained = PassingQuantiles([50.0], held)
        self.series = (self.ratios, self.residuals, self.trained)

    def start_pass(self) -> None:
        self.active = self.below = self.pinned = self.positive = self.unrecorded = 0
        self.weighted = 0
        self.pinned_by_task: Any = 0
        self.trained_weights: Any = 0.0
        self.first_pinned_step: int | None = None
        self.undefined_from: int | None = None
        self._begun = False

    def add(self, piece: Run) -> None:
        if not self._begun:
            self.first, self._begun = piece.head, True
        replay = piece.replay
        self._count(replay, piece.spec)
        rows = piece.positive & replay.active
        self.positive += int(rows.sum())
        norms = piece.trace.grad_norms[rows]
        self.ratios.add(_apart(norms))
        self.residuals.add(_apart(norms, replay.weights[rows]))
        recorded = piece.trace.weights
        if recorded is not None and not piece.as_trained:
            known = np.isfinite(recorded[rows]).all(axis=1)
            weights = recorded[rows][known]
            self.weighted += len(weights)
            self.trained_weights = self.trained_weights + weights.sum(axis=0)
            self.trained.add(_apart(norms[known], np.abs(weights)))
        self.unrecorded += replay.unrecorded_readings

    def _count(self, replay: Replay, spec: GabaSpec) -> None:
        ema, floor = replay.ema[replay.active], spec.floor
        below = ema < floor
        # Held at the floor up to rounding: the projection is exact to a few ulp of 1.
        pinned = ema <= floor + 1e-12 if FLOORS[spec.floor_mode].replaces_state else below
        rows = pinned.any(axis=1)
        self.active += len(ema)
        self.below += int(below.any(axis=1).sum())
        self.pinned += int(rows.sum())
        self.pinned_by_task = self.pinned_by_task + pinned.sum(axis=0)
        steps = replay.step[replay.active]
        if self.first_pinned_step is None and rows.any():
            self.first_pinned_step = int(steps[rows][0])
        lost = np.isnan(ema).any(axis=1)
        if self.undefined_from is None and lost.any():
            self.undefined_from = int(steps[lost][0])


def _apart(norms: NDArray[np.float64], weights: Any = 1.0) -> NDArray[np.float64]:
    """Largest over smallest contribution, per row."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        sizes = norms * weights
        return np.asarray(sizes.max(axis=1) / sizes.min(axis=1))
