"""Units first: what rescaling one loss by a constant would do, before any controller.

A gradient norm is measured in units of its loss. Squared errors of a target in cycles are huge
beside a cross-entropy because of the unit, not because the task is harder, and a constant factor
on that loss removes the imbalance that a controller would otherwise spend its authority on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.spec import GabaSpec
from gabactl.runs.run import Run
from gabactl.traces import Trace

__all__ = ["UnitAdvice", "unit_advice"]

#: A median imbalance above this is called dwarfing: an order of magnitude.
DWARFED = 10.0


@dataclass(frozen=True)
class UnitAdvice(Result):
    """What a constant factor on the loudest loss would do.

    Attributes
    ----------
    loud, quiet : str
        Tasks of the largest and the smallest median norm.
    median_ratio : float
        Median over the readings of their ratio g_loud / g_quiet.
    dwarfed : bool
        Whether that is above :data:`DWARFED`.
    factor : float
        Multiply the loud loss by this (at most 1) to make the median ratio 1.
    ratio_range : tuple of two floats
        5th and 95th percentile of the ratio over the readings.
    ratio_range_after : tuple of two floats
        5th and 95th percentile of the ratio after that.
    saturated_fraction, saturated_fraction_after : float
        Share of active steps with an average below the floor, before and after.
    """

    loud: str
    quiet: str
    median_ratio: float
    dwarfed: bool
    factor: float
    ratio_range: tuple[float, float]
    ratio_range_after: tuple[float, float]
    saturated_fraction: float
    saturated_fraction_after: float

    title = "Units first"

    def plot(self, ax: Any | None = None) -> Any:
        """Range of the ratio as recorded, and after the factor; returns the axes."""
        from gabactl.base import plots

        with plots.style():
            ax = plots.axes(ax)
            for i, ends in enumerate((self.ratio_range, self.ratio_range_after)):
                ax.plot(ends, [i, i], lw=8, solid_capstyle="butt", color=plots.PALETTE[i])
            medians = [self.median_ratio, self.median_ratio * self.factor]
            ax.plot(medians, [0, 1], "|", ms=16, mew=2, color="0.5", label="median")
            ax.axvline(1.0, color="0.5", ls="--", lw=0.8, label="equal norms")
            ax.set_yticks([0, 1], ["as recorded", f"{self.loud} loss x {self.factor:.2g}"])
            ax.set(
                xscale="log",
                ylim=(1.6, -0.6),
                xlabel=f"ratio of the gradient norms, {self.loud} / {self.quiet} (5 to 95 %)",
                title=self.title,
            )
            ax.legend()
        return ax

    def facts(self) -> dict[str, Any]:
        """Keys as the attributes."""
        return super().facts() | {"advice": self.advice}

    @property
    def advice(self) -> str:
        """One sentence on what to do."""
        if not self.dwarfed:
            return (
                f"The losses are in comparable units (median ratio {self.median_ratio:.3g}): "
                "leave them as they are."
            )
        return (
            f"Multiply the {self.loud} loss by {self.factor:.3g} (or express its target in other "
            f"units): the median ratio falls from {self.median_ratio:.3g} to 1 and the saturated "
            f"share of steps from {self.saturated_fraction:.0%} to "
            f"{self.saturated_fraction_after:.0%}. No controller setting does as much."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """As a table."""
        return [
            ("loudest / quietest task", f"{self.loud} / {self.quiet}"),
            ("median ratio (5 to 95 %)", f"{self.median_ratio:.4g} ({_span(self.ratio_range)})"),
            ("factor that would equalise", f"{self.factor:.3g} on the {self.loud} loss"),
            ("ratio after (5 to 95 %)", _span(self.ratio_range_after)),
            (
                "saturated steps, now / after",
                f"{self.saturated_fraction:.1%} / {self.saturated_fraction_after:.1%}",
            ),
            ("advice", self.advice),
        ]


def unit_advice(run: Run | Trace | str | Path, spec: GabaSpec | None = None) -> UnitAdvice:
    """Advise on units from a recorded run.

    A factor on a loss multiplies its gradient norm by exactly that factor. (Dividing the *target*
    and the prediction by s instead changes the norm by a factor between 1/s and 1/s^2, depending
    on how the network is parametrised.)

    Parameters
    ----------
    run : Run, Trace or path
        A run with gradient norms; rows with one that is not finite, or zero, are left out of the
        ratios.
    spec : GabaSpec, optional
        Settings whose saturation is computed; default: the run's own.

    Returns
    -------
    UnitAdvice
        The advice and the figures behind it.

    Raises
    ------
    InputError
        No row has a positive norm for every task.

    Examples
    --------
    >>> import numpy as np
    >>> trace = Trace.from_arrays(np.tile([600.0, 1.0], (500, 1)), tasks=("rul", "health"))
    >>> advice = unit_advice(trace)
    >>> advice.dwarfed, round(advice.factor, 5)
    (True, 0.00167)
    """
    run = Run.of(run, spec)
    if not run.positive.any():
        raise InputError(
            f"{run.source}: no step has a positive, finite norm for every task: nothing to compare"
        )
    norms = run.trace.grad_norms[run.positive]
    medians = np.median(norms, axis=0)
    loud, quiet = int(medians.argmax()), int(medians.argmin())
    ratios = norms[:, loud] / norms[:, quiet]
    median = float(np.median(ratios))
    scaled = run.scaled({run.tasks[loud]: 1.0 / median})
    return UnitAdvice(
        loud=run.tasks[loud],
        quiet=run.tasks[quiet],
        median_ratio=median,
        dwarfed=median > DWARFED,
        factor=1.0 / median,
        ratio_range=_percentiles(ratios),
        ratio_range_after=_percentiles(ratios / median),
        saturated_fraction=run.replay.saturated_fraction,
        saturated_fraction_after=scaled.replay.saturated_fraction,
    )


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [5, 95]).tolist()
    return low, high


def _span(span: tuple[float, float]) -> str:
    return " to ".join(f"{end:.3g}" if end < 1000 else f"{end:,.0f}" for end in span)
