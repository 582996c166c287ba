"""What identification looks at: imbalance, actuation and excitation of one run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.runs.run import Run

Array = NDArray[np.float64]

#: The remedy every refusal names.
HOW_TO_RECORD = (
    "record a run with `gabactl cmapss train --excite prbs:amplitude=0.5,period=50,seed=1`"
)

_SIGNALS = ("log_ratio", "actuation", "excitation")
_LEAST_READINGS = 300
_MOST_STEPS = 10_000_000


@dataclass(frozen=True)
class ExcitedRun:
    """Imbalance, actuation and excitation of one run with two tasks.

    Parameters
    ----------
    log_ratio : array, shape (steps,)
        y = log(g_1/g_2), in nats; NaN where nothing was measured.
    actuation : array, shape (steps,)
        u = log(w_1/w_2) of the weights that were applied, in nats, excitation included.
    excitation : array, shape (steps,)
        The known perturbation inside ``actuation``, in nats, chosen without looking at the run.
    spec : GabaSpec
        Settings of the controller that was in the loop.
    name : str
        What to call the run.
    period : int, optional
        Steps per block of the excitation; default: the greatest common divisor of the times
        between its changes.
    paired : bool
        Whether it is the difference of twins.

    Raises
    ------
    InputError
        Shapes differ, too few readings, missing weights, or no excitation.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> e = np.repeat(rng.choice([-0.5, 0.5], 40), 25)
    >>> ExcitedRun(rng.standard_normal(1000), e, e).block
    25
    """

    log_ratio: Array
    actuation: Array
    excitation: Array
    spec: GabaSpec = GabaSpec()  # noqa: RUF009 - frozen, so one instance may be shared
    name: str = "run"
    period: int | None = None
    paired: bool = False

    def __post_init__(self) -> None:
        for field in _SIGNALS:
            values = np.asarray(getattr(self, field), dtype=np.float64)
            object.__setattr__(self, field, values)
        y, u, e = self.log_ratio, self.actuation, self.excitation
        if not (y.ndim == 1 and y.shape == u.shape == e.shape):
            raise InputError(
                f"{self.name}: shapes {y.shape}, {u.shape} and {e.shape} of imbalance, actuation "
                "and excitation must be one and the same (steps,)"
            )
        if not np.isfinite(u).all() or not np.isfinite(e).all():
            raise InputError(
                f"{self.name}: the applied weights and the excitation must be finite and positive "
                "at every step, since the plant remembers them all: record every step"
            )
        readings = int(self.measured.sum())
        if readings < _LEAST_READINGS:
            raise InputError(
                f"{self.name}: {readings} readings are too few to see an effect of about 0.1 under "
                f"noise of 0.5: give at least {_LEAST_READINGS}, better 2000 or more"
            )
        if np.ptp(e[self.measured]) <= 0:
            raise InputError(_refusal(self))

    def before(self, step: int) -> ExcitedRun:
        """Its first steps alone.

        Parameters
        ----------
        step : int
            How many.

        Raises
        ------
        InputError
            Too few readings, or no excitation in them.
        """
        cut = {key: getattr(self, key)[:step] for key in _SIGNALS}
        return replace(self, **cut)

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Steps with a usable reading, shape (steps,)."""
        return np.isfinite(self.log_ratio)

    @property
    def block(self) -> int:
        """Steps per block of the excitation."""
        if self.period is not None:
            return self.period
        changes = np.flatnonzero(np.diff(self.excitation)) + 1
        return max(1, int(np.gcd.reduce(np.diff(changes)))) if changes.size > 1 else len(changes)

    @property
    def first_change(self) -> int:
        """Index of the first step at which the excitation changes."""
        return int(np.flatnonzero(np.diff(self.excitation))[0]) + 1


def _refusal(signals: ExcitedRun) -> str:
    if np.ptp(signals.actuation) <= 0:
        reason = (
            "the weights never move, so nothing can be said of what a weight does to the gradients"
        )
    else:
        reason = (
            "the weights only follow the gradients (u = -F(z) y), and then every feedback gain "
            "fits the data with a suitable disturbance: closed-loop data cannot tell the plant "
            "from the noise"
        )
    return f"{signals.name}: no excitation: {reason}; {HOW_TO_RECORD}"


def difference(first: ExcitedRun, second: ExcitedRun) -> ExcitedRun:
    """Twin runs (same seed and batches, inverted excitation), subtracted.

    What the twins share (drift, batches) cancels, the response doubles.

    Parameters
    ----------
    first, second : ExcitedRun
        Twins of equal length; the excitations must be each other's negative.

    Returns
    -------
    ExcitedRun
        ``first - second``, measured where both were.

    Raises
    ------
    InputError
        Different lengths or settings, or excitations that are not inverted.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> e = np.repeat(rng.choice([-0.5, 0.5], 20), 25)
    >>> drift = np.linspace(0, 3, 500)
    >>> twins = ExcitedRun(drift, e, e), ExcitedRun(drift, -e, -e)
    >>> float(abs(difference(*twins).log_ratio).max())
    0.0
    """
    names = f"{first.name} and {second.name}"
    if len(first.log_ratio) != len(second.log_ratio):
        raise InputError(
            f"{names}: {len(first.log_ratio)} and {len(second.log_ratio)} steps: twins must be "
            "recorded over the same steps"
        )
    scale = float(np.abs(first.excitation).max())
    if np.abs(first.excitation + second.excitation).max() > 1e-6 * scale:
        raise InputError(
            f"{names}: not twins, their excitations are not each other's negative: record the "
            "second run with the same --seed and --excite ...,inverted"
        )
    if first.spec != second.spec:
        raise InputError(f"{names}: recorded with different settings: twins must share them")
    left = {key: getattr(first, key) - getattr(second, key) for key in _SIGNALS}
    return replace(first, **left, name=f"{first.name} - {second.name}", paired=True)


def from_run(run: Run, name: str | None = None) -> ExcitedRun:
    """The signals of a recorded run with two tasks.

    Parameters
    ----------
    run : Run
        With gradient norms, applied weights and the recorded excitation.
    name : str, optional
        What to call it in messages; default: its file.

    Raises
    ------
    InputError
        Not two tasks, no weights, or no excitation recorded.

    Examples
    --------
    >>> from gabactl.traces import Trace
    >>> from_run(Run(Trace.from_arrays(np.ones((400, 3)))), "trace")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: trace: 3 tasks: identification is for two; ...
    """
    trace, name = run.trace, name or run.source
    if len(run.tasks) != 2:
        raise InputError(
            f"{name}: {len(run.tasks)} tasks: identification is for two; record the pair of "
            "tasks of interest"
        )
    if trace.weights is None:
        raise InputError(f"{name}: no applied weights in the trace: record them")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        actuation = np.log(trace.weights[:, 0]) - np.log(trace.weights[:, 1])
    excitation = np.zeros(len(trace)) if trace.excitation is None else trace.excitation
    at = trace.step - trace.step[0]
    if at[-1] >= _MOST_STEPS:
        raise InputError(
            f"{name}: steps {trace.step[0]} to {trace.step[-1]} are too many: cut the trace to at "
            f"most {_MOST_STEPS} steps"
        )
    return ExcitedRun(
        log_ratio=_on_every_step(run.log_ratio(), at),
        actuation=_held(_on_every_step(actuation, at)),
        excitation=_held(_on_every_step(excitation, at)),
        # What was in the loop, whatever is asked of the run.
        spec=trace.spec or run.spec,
        name=name,
        period=_recorded_period(trace.metadata),
    )


def _recorded_period(metadata: Mapping[str, object]) -> int | None:
    said = re.search(r"period=(\d+)", str(metadata.get("excitation", "")))
    return int(said[1]) if said else None


def _on_every_step(values: Array, at: NDArray[np.int64]) -> Array:
    """Values of the recorded steps on the full time axis, NaN between."""
    full = np.full(int(at[-1]) + 1, np.nan)
    full[at] = values
    return full


def _held(values: Array) -> Array:
    """Gaps filled with the last value; before the first one, 0 (uniform weights)."""
    known = np.isfinite(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return np.where(last >= 0, values[np.maximum(last, 0)], 0.0)
