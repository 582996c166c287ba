"""Sampled and delayed sensors, exactly: one reading every N steps, held between.

The loop of a sampled sensor is periodically time-varying. Seen only at the readings it is
time-invariant, and stable exactly when the original is: that is lifting. A reading may also arrive
some steps late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import signal

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.control._rational import Rational
from gabactl.law.filter import FilterFacts, filter_facts
from gabactl.law.spec import GabaSpec

__all__ = ["SamplingTrade", "sampling_trade"]

#: What of the filter is told for each interval.
_TRADED = ("noise_power_gain", "group_delay_dc_steps", "nyquist_rad_per_step")


def lift(plant: Rational, interval: int, delay: int = 0) -> Rational:
    """A plant as its sampled controller sees it: input held N steps, output read d steps late.

    Parameters
    ----------
    plant : Rational
        From held input to output, per step, with at least one step of delay.
    interval : int, at least 1
        Steps N between readings.
    delay : int, at least 0
        Steps by which a reading is old.

    Returns
    -------
    Rational
        Per reading. Its poles are those of the plant to the power N.

    Notes
    -----
    The response to an input of 1 during the first N steps, read at steps 0, N, 2N, ... (less the
    delay), is the impulse response of the lifted plant. Past the delays it obeys the recurrence of
    the poles p^N, so a finite piece of it gives the numerator.

    Examples
    --------
    >>> lifted = lift(Rational.of([], [0.9], -0.1), 10)
    >>> lifted.poles.real.round(6).tolist(), round(float(lifted(1.0).real), 6)
    ([0.348678], -1.0)
    """
    if interval == 1:
        return plant.delayed(delay)
    moving = plant.poles[plant.poles != 0]
    steps = int((plant.poles == 0).sum()) + delay
    # Without its delays the plant answers at once or after its excess of poles.
    core = Rational.of(plant.zeros, moving, plant.gain)
    excess = moving.size - plant.zeros.size
    if excess < 0:
        core, steps, excess = core.delayed(-excess), steps + excess, 0
    order = moving.size
    last = order + 2 + -(-(steps + 1) // interval)
    length = last * interval + 1
    held = signal.lfilter(np.ones(interval), [1.0], core.pulse(length))
    late = np.concatenate([np.zeros(steps), held])[:length]
    denominator = np.real(np.atleast_1d(np.poly(moving**interval)))
    numerator = np.convolve(denominator, late[::interval])[: last + 1]
    scale = np.abs(denominator).sum() * np.abs(late).max(initial=0.0)
    numerator[np.abs(numerator) < 1e-14 * scale] = 0.0
    pad = np.zeros(max(0, numerator.size - denominator.size))
    return Rational.from_coefficients(numerator, np.concatenate([denominator, pad]))


@dataclass(frozen=True)
class SamplingTrade(Result):
    """What a longer interval between readings buys and costs.

    Attributes
    ----------
    spec : GabaSpec
        The settings; its own interval does not count.
    intervals : tuple of int
        Steps N between readings.
    trade : tuple of FilterFacts
        One per interval.
    """

    spec: GabaSpec
    intervals: tuple[int, ...]
    trade: tuple[FilterFacts, ...]

    title = "Readings less often"

    @property
    def beta(self) -> float:
        """Of the settings."""
        return self.spec.beta

    def headline(self) -> str:
        """The range of intervals compared."""
        return f"every {self.intervals[0]} to {self.intervals[-1]} steps, beta {self.beta:g}"

    def facts(self) -> dict[str, Any]:
        """Keys: beta, and per interval the sensor cost, noise gain and lag."""
        return {
            "beta": self.beta,
            "trade": [
                {"interval": n, "sensor_cost": 1.0 / n}
                | {name: getattr(f, name) for name in _TRADED}
                for n, f in zip(self.intervals, self.trade, strict=True)
            ],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """One row per interval."""
        rows: list[tuple[str, ...]] = [
            ("interval", "sensor cost", "noise power", "lag behind a ramp", "folds above")
        ]
        rows += [
            (
                f"{n}",
                f"{100.0 / n:.3g} %",
                f"x {f.noise_power_gain:.4g}",
                f"{f.group_delay_dc_steps:.2f} steps",
                f"{f.nyquist_rad_per_step:.4f} rad/step",
            )
            for n, f in zip(self.intervals, self.trade, strict=True)
        ]
        return rows

    def _draw(self, ax: Any) -> None:
        """Noise gain over sensor cost."""
        noise = np.array([f.noise_power_gain for f in self.trade])
        ax.loglog(self.intervals, np.sqrt(noise), "o-", label="noise on the ema (std)")
        ax.loglog(self.intervals, 1.0 / np.array(self.intervals), "s--", label="sensor cost")
        every = "interval N (steps between readings)"
        ax.set(xlabel=every, ylabel="relative to a reading without smoothing")
        ax.legend()


def sampling_trade(
    spec: GabaSpec, intervals: Sequence[int] = (1, 2, 5, 10, 20, 50)
) -> SamplingTrade:
    """Noise, lag and cost for several intervals, at the same time constant.

    Parameters
    ----------
    spec : GabaSpec
        Settings; beta matters.
    intervals : sequence of int, at least 1
        Steps between readings.

    Returns
    -------
    SamplingTrade

    Raises
    ------
    InputError
        No intervals.

    Examples
    --------
    >>> [round(f.group_delay_dc_steps, 2) for f in sampling_trade(GabaSpec(), (1, 10, 50)).trade]
    [99.0, 99.08, 101.08]
    """
    if not intervals:
        raise InputError("no intervals given: give at least one, such as 10")
    facts = tuple(filter_facts(spec.replace(interval=n)) for n in intervals)
    return SamplingTrade(spec, tuple(int(n) for n in intervals), facts)
