"""What the controller has to cope with, assumed or measured from a recorded run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.identification import Identification, fit_noise
from gabactl.runs.run import Run
from gabactl.traces import Trace

__all__ = ["Workload", "workload_of"]

Array = NDArray[np.float64]

#: Extra cost of a reading per task, in plain steps (one more backward pass through the backbone).
COST_PER_TASK = 0.55


@dataclass(frozen=True)
class Workload:
    """What the controller has to cope with.

    Parameters
    ----------
    ratio_low, ratio_high : float, positive
        Range of g_1/g_2 (the loudest over the others for K > 2), noise smoothed away.
    noise_std : float
        Standard deviation of log(g_1/g_2) per step, nats.
    noise_pole : float in [0, 1)
        Its correlation from one step to the next (0: white).
    drift_std : float
        Standard deviation of the slow drift's increment per step, nats (a random walk).
    ramp : float, at least 0
        Slope of a lasting ramp of log(g_1/g_2), nats per step, on top of the walk.
    rho : pair of floats
        Interval for the feedback gain of the plant, both below 1.
    lag_steps : float
        Time constant of the plant, steps.
    delay : int
        Its extra delay, steps.
    n_tasks : int
        Number of tasks K.
    sensor_cost : float
        Cost of one reading, in plain training steps.
    settled_after : int or None
        Step after which the start-up transient is over; None where unknown.
    source : str
        Where the figures come from.

    Raises
    ------
    InputError
        A value out of its range.

    Examples
    --------
    >>> Workload(50.0, 2400.0).centre.__round__(1)
    346.4
    """

    ratio_low: float
    ratio_high: float
    noise_std: float = 0.5
    noise_pole: float = 0.4
    drift_std: float = 0.005
    ramp: float = 0.0
    rho: tuple[float, float] = (0.0, 0.0)
    lag_steps: float = 0.0
    delay: int = 0
    n_tasks: int = 2
    sensor_cost: float = 2 * COST_PER_TASK
    settled_after: int | None = None
    source: str = "assumed"

    def __post_init__(self) -> None:
        low, high = self.ratio_low, self.ratio_high
        if not (0 < low <= high < math.inf):
            raise InputError(
                f"ratio range {low:g}:{high:g} must be 0 < low <= high, such as 50:2400"
            )
        if not (self.noise_std >= 0 and self.drift_std > 0 and 0 <= self.noise_pole < 1):
            raise InputError(
                f"noise = {self.noise_std}, its correlation = {self.noise_pole}, drift = "
                f"{self.drift_std}: the noise must be >= 0, the correlation in [0, 1), the drift > 0"
            )
        if not (self.rho[0] <= self.rho[1] < 1.0):
            raise InputError(
                f"rho = {self.rho[0]:g} to {self.rho[1]:g}: rho must be below 1, since at 1 and "
                "above no setting of the controller makes the loop stable; fix the weights instead"
            )
        if not 0 <= self.ramp < math.inf:
            raise InputError(f"ramp = {self.ramp} nats per step must be >= 0, such as 0.005")
        if not (self.lag_steps >= 0 and 0 <= self.delay <= 500 and self.sensor_cost >= 0):
            raise InputError(
                f"lag = {self.lag_steps}, delay = {self.delay}, sensor cost = {self.sensor_cost}: "
                "none may be negative, and the delay at most 500"
            )

    @property
    def centre(self) -> float:
        """Geometric middle of the ratio range."""
        return math.sqrt(self.ratio_low * self.ratio_high)

    @property
    def reach(self) -> float:
        """Largest imbalance either way, as a ratio of at least 1."""
        return max(self.ratio_high, 1.0 / self.ratio_low, 1.0)

    @property
    def a(self) -> float:
        """Pole of the plant's lag."""
        return math.exp(-1.0 / self.lag_steps) if self.lag_steps > 0 else 0.0


def workload_of(
    run: Run | Trace | str | Path,
    *,
    identified: Identification | None = None,
    source: str | None = None,
) -> Workload:
    """Measure a workload from a recorded run.

    Parameters
    ----------
    run : Run, Trace or path
        A run with gradient norms; of a log with gaps, drift and noise are counted in steps.
    identified : Identification, optional
        Plant from the same or a similar run; without one rho = 0 is assumed.
    source : str, optional
        Name for the table; default: the run's.

    Returns
    -------
    Workload
        Range: 1st to 99th percentile of the log ratio's moving median over 101 steps, or at least
        21 readings. For K > 2
        the ratio is that of the largest to the smallest median norm.

    Raises
    ------
    InputError
        Fewer than 300 usable readings.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> norms = np.exp(0.25 * rng.standard_normal((2000, 2)) + [5.0, 0.0])
    >>> found = workload_of(Trace.from_arrays(norms))
    >>> round(found.noise_std, 1), round(found.centre)
    (0.4, 158)
    """
    from scipy.ndimage import median_filter

    run = Run.of(run)
    source = source or run.source
    usable = run.trace.grad_norms[run.positive]
    if len(usable) < 300:
        raise InputError(
            f"{source}: {len(usable)} usable readings are too few to tell noise from drift: "
            "give at least 300"
        )
    n_tasks = len(run.tasks)
    medians = np.median(usable, axis=0)
    loud, quiet = (0, 1) if n_tasks == 2 else (int(medians.argmax()), int(medians.argmin()))
    y = run.log_ratio(loud, quiet)[run.positive]
    spacing = run.spacing
    window = max(2 * round(50 / spacing) + 1, 21)
    smooth = median_filter(y, size=window, mode="nearest")
    low, high = np.exp(np.percentile(smooth, [1.0, 99.0]))
    noise = fit_noise(y)
    # Per reading to per step: a random walk's variance grows with time, a correlation decays.
    memory = spacing * noise.correlation_time
    correlation = math.exp(-1.0 / memory) if memory > 0 else 0.0
    found = Workload(
        ratio_low=float(low),
        ratio_high=float(high),
        noise_std=noise.step_std,
        noise_pole=min(correlation, 0.95),
        drift_std=max(noise.drift_std / math.sqrt(spacing), 1e-5),
        n_tasks=n_tasks,
        sensor_cost=COST_PER_TASK * n_tasks,
        settled_after=_settled(y, run.trace.step[run.positive], spacing, noise.step_std),
        source=source,
    )
    if identified is None:
        return found
    rho = identified.rho_interval[0], min(identified.rho_interval[1], 0.99)
    return replace(found, rho=rho, lag_steps=identified.lag_steps, delay=identified.delay)


def _settled(y: Array, steps: NDArray[np.int64], spacing: float, noise_std: float) -> int | None:
    """Last step of the start-up transient: until then block means move more than noise and drift.

    None where the record starts after step 50, and so cannot show it. The blocks lie in the steps,
    not in the rows: which of them were logged makes no difference.
    """
    if steps[0] > 50:
        return None
    length = max(20, 5 * round(spacing))
    block = (steps - 1) // length
    early = block < 50
    counts = np.bincount(block[early])
    filled = np.flatnonzero(counts >= min(20, length // round(spacing)) / 2)
    if len(filled) < 2:
        return 0
    means = np.bincount(block[early], y[early])[filled] / counts[filled]
    # Four times the white noise of a difference of two means: twice, where noise is correlated.
    shares = 1.0 / counts[filled]
    moved = np.abs(np.diff(means)) > 4.0 * noise_std * np.sqrt(shares[1:] + shares[:-1])
    return int(filled[1:][moved][-1]) * length if moved.any() else 0
