"""Disturbances as data: what the gradient norms and losses do when nobody answers them.

A :class:`Profile` holds, step by step, the natural logarithm of each task's gradient norm with the
weights held uniform, the losses, and where the sensor fails. Plants add their answer to the
weights on top of it. Profiles are built from levels, ramps, spikes, dropouts, pseudo-random
switching and recorded traces, and combined with :meth:`Profile.then` and the ``with_...`` methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError

if TYPE_CHECKING:
    from gabactl.traces import Trace

__all__ = ["Profile", "constant", "from_trace", "levels", "prbs", "published_disturbance", "ramp"]

Array = NDArray[np.float64]

#: Ratios g_1 / g_2 the literature reports over one training: start, peak, end (section 18.5).
PUBLISHED_LEVELS = (50.0, 2400.0, 500.0)

#: Logarithm below which a norm is not a normal float: compiled loops take it for 0.
LEAST_LOG_NORM = -708.0

#: Gradient norm of the quiet tasks where none is given: 500x is then the published (250, 0.5).
_QUIET = 0.5
#: Steps times tasks: with the copies that building takes, some 2 GiB.
_MAX_NUMBERS = 1 << 25


@dataclass(frozen=True, eq=False)
class Profile:
    """A disturbance over time.

    Parameters
    ----------
    log_norms : array, shape (steps, K)
        Natural logarithm of the gradient norms under uniform weights; minus infinity is a norm 0.
    losses : array, shape (steps, K), optional
        Task losses, positive; default 1 throughout (equal progress of every task).
    lost : array of bool, shape (steps, K), optional
        Where the sensor fails: the reading is NaN.
    events : tuple of int
        First step (from 0) of each new level, in order; the first is 0.
    title : str
        A few words for tables and pictures.

    Raises
    ------
    InputError
        Wrong shapes, NaN, +inf or a number below -708 in ``log_norms``, losses that are not
        positive.

    Examples
    --------
    >>> profile = levels([500.0], [3])
    >>> profile.norms[0].round(6).tolist(), profile.steps, profile.n_tasks
    ([250.0, 0.5], 3, 2)
    """

    log_norms: NDArray[np.float64]
    losses: NDArray[np.float64] | None = None
    lost: NDArray[np.bool_] | None = None
    events: tuple[int, ...] = (0,)
    title: str = ""

    def __post_init__(self) -> None:
        logs = np.array(self.log_norms, dtype=np.float64, ndmin=2)
        if logs.ndim != 2 or logs.shape[0] < 1 or logs.shape[1] < 2:
            raise InputError(
                f"log_norms has shape {logs.shape}: give (steps, tasks) with at least 1 step and 2 tasks"
            )
        if np.isnan(logs).any() or np.isposinf(logs).any():
            step, task = np.argwhere(~(logs < np.inf))[0]
            raise InputError(
                f"log_norms has {logs[step, task]} at step {step}, task {task}: give finite numbers "
                "(minus infinity for a zero norm), and sensor failures as a dropout"
            )
        low = np.isfinite(logs) & (logs < LEAST_LOG_NORM)
        if low.any():
            step, task = np.argwhere(low)[0]
            raise InputError(
                f"log_norms has {logs[step, task]:.6g} at step {step}, task {task}, a norm below the "
                "smallest normal float: scale all the norms, which changes no weight, or give minus "
                "infinity for a norm of 0"
            )
        losses = np.ones_like(logs) if self.losses is None else np.array(self.losses, dtype=float)
        if losses.shape != logs.shape:
            raise InputError(
                f"losses have shape {losses.shape} and norms {logs.shape}: give one loss per norm"
            )
        if not (np.isfinite(losses) & (losses > 0)).all():
            step, task = np.argwhere(~(np.isfinite(losses) & (losses > 0)))[0]
            raise InputError(
                f"losses have {losses[step, task]} at step {step}, task {task}: give positive numbers"
            )
        lost = np.zeros(logs.shape, bool) if self.lost is None else np.array(self.lost, dtype=bool)
        if lost.shape != logs.shape:
            raise InputError(f"lost has shape {lost.shape} and norms {logs.shape}: make them equal")
        events = tuple(int(e) for e in self.events)
        if not events or events[0] != 0 or list(events) != sorted(set(events)):
            raise InputError(f"events = {self.events}: give rising steps that start with 0")
        if events[-1] >= logs.shape[0]:
            raise InputError(
                f"events = {events}: the last lies beyond the {logs.shape[0]} steps of the profile"
            )
        for array in (logs, losses, lost):
            array.setflags(write=False)
        object.__setattr__(self, "log_norms", logs)
        object.__setattr__(self, "losses", losses)
        object.__setattr__(self, "lost", lost)
        object.__setattr__(self, "events", events)

    @property
    def steps(self) -> int:
        """Length in optimisation steps."""
        return int(self.log_norms.shape[0])

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return int(self.log_norms.shape[1])

    @property
    def norms(self) -> Array:
        """Gradient norms under uniform weights, shape (steps, K); NaN where the sensor fails."""
        return np.where(self.lost, np.nan, np.exp(self.log_norms))  # type: ignore[arg-type]

    @property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each level, stop not included."""
        return tuple(zip(self.events, (*self.events[1:], self.steps), strict=True))

    def then(self, other: Profile) -> Profile:
        """This profile, followed by another one.

        Parameters
        ----------
        other : Profile
            Of as many tasks.

        Raises
        ------
        InputError
            Of another number of tasks.

        Examples
        --------
        >>> constant(50.0, 10).then(constant(500.0, 5)).events
        (0, 10)
        """
        if other.n_tasks != self.n_tasks:
            raise InputError(
                f"profiles of {self.n_tasks} and {other.n_tasks} tasks cannot follow each other: "
                "give both the same tasks"
            )
        return Profile(
            np.concatenate([self.log_norms, other.log_norms]),
            np.concatenate([self.losses, other.losses]),  # type: ignore[list-item]
            np.concatenate([self.lost, other.lost]),  # type: ignore[list-item]
            self.events + tuple(self.steps + e for e in other.events),
            " then ".join(t for t in (self.title, other.title) if t),
        )

    def with_spike(self, factor: float, at: int, width: int = 1, task: int = 0) -> Profile:
        """One task's norm multiplied by ``factor`` for ``width`` steps from step ``at``.

        Parameters
        ----------
        factor : float, positive
            For example 10 to 10,000; below 1 it is a dip.
        at, width : int
            First step (from 0) and number of steps.
        task : int
            Which task, from 0.

        Examples
        --------
        >>> constant(1.0, 4, quiet_norm=1.0).with_spike(100.0, at=2).norms[:, 0].round(3).tolist()
        [1.0, 1.0, 100.0, 1.0]
        """
        _positive("factor", factor)
        rows = self._rows(at, width)
        logs = self.log_norms.copy()
        logs[rows, self._task(task)] += math.log(factor)
        return replace(self, log_norms=logs)

    def with_dropout(
        self, at: int, width: int, kind: Literal["lost", "zero"] = "lost", task: int | None = None
    ) -> Profile:
        """The sensor fails (NaN), or reads 0, for ``width`` steps from step ``at``.

        Parameters
        ----------
        at, width : int
            First step (from 0) and number of steps.
        kind : {"lost", "zero"}
            ``lost`` reads NaN; ``zero`` reads 0, as of a loss without gradient.
        task : int, optional
            Which task; default all.

        Raises
        ------
        InputError
            An unknown kind, or steps or a task that the profile has not.

        Examples
        --------
        >>> constant(4.0, 3).with_dropout(1, 1).norms[1].tolist()
        [nan, nan]
        """
        if kind not in ("lost", "zero"):
            raise InputError(f"dropout kind = {kind!r} is unknown: choose lost or zero")
        rows = self._rows(at, width)
        columns = slice(None) if task is None else self._task(task)
        if kind == "zero":
            logs = self.log_norms.copy()
            logs[rows, columns] = -np.inf
            return replace(self, log_norms=logs)
        lost = np.array(self.lost)
        lost[rows, columns] = True
        return replace(self, lost=lost)

    def with_noise(self, std: float, seed: int, correlation: float = 0.0) -> Profile:
        """Log-normal noise on every norm: Gaussian on its logarithm, drawn once and kept as data.

        Simulations draw their own noise per seed; this is for a disturbance that must be the same
        in every run.

        Parameters
        ----------
        std : float, at least 0
            Standard deviation of each log norm; that of the log ratio of two is sqrt(2) larger.
        seed : int
            Of ``numpy.random.default_rng``.
        correlation : float in [0, 1)
            Pole of a first-order autoregression; 0 is white noise.

        Raises
        ------
        InputError
            A negative standard deviation, or a correlation not in [0, 1).

        Examples
        --------
        >>> noisy = constant(1.0, 1000).with_noise(0.3, seed=1, correlation=0.9)
        >>> bool(abs(noisy.log_norms.std(axis=0)[0] - 0.3) < 0.1)
        True
        """
        non_negative("noise", std)
        if not 0 <= correlation < 1:
            raise InputError(
                f"correlation = {correlation} is not in [0, 1): choose for example 0.9"
            )
        from scipy.signal import lfilter

        draws = np.random.default_rng(seed).standard_normal(self.log_norms.shape)
        draws[1:] *= math.sqrt(1 - correlation**2)
        noise = lfilter([1.0], [1.0, -correlation], draws, axis=0)
        return replace(self, log_norms=self.log_norms + std * noise)

    def with_losses(
        self, initial: ArrayLike, final: ArrayLike, time_constant: ArrayLike
    ) -> Profile:
        """Losses that fall (or rise) exponentially from ``initial`` to ``final``.

        Parameters
        ----------
        initial, final : arrays, shape (K,), or floats
            Positive losses at the first step and in the long run.
        time_constant : array, shape (K,), or float
            Steps to e^-1 of the way.

        Raises
        ------
        InputError
            Losses or time constants that are not positive.

        Examples
        --------
        >>> constant(1.0, 3).with_losses([20.0, 2.0], [10.0, 1.0], 1e-9).losses[[0, 2]].tolist()
        [[20.0, 2.0], [10.0, 1.0]]
        """
        k = self.n_tasks
        start, end, tau = (_per_task(v, k) for v in (initial, final, time_constant))
        if not (tau > 0).all():
            raise InputError(f"time_constant = {tau.tolist()} must be positive, in steps")
        for name, losses in (("initial", start), ("final", end)):
            if not ((losses > 0) & np.isfinite(losses)).all():
                raise InputError(f"{name} = {losses.tolist()} must be positive, finite losses")
        t = np.arange(self.steps)[:, None]
        return replace(self, losses=end + (start - end) * np.exp(-t / tau))

    def plot(self, ax: Any | None = None) -> Any:
        """The norms over the steps, on a logarithmic axis.

        Examples
        --------
        >>> len(published_disturbance().plot().lines)
        2
        """
        from gabactl.base import plots

        with plots.style():
            ax = plots.axes(ax)
            for i, column in enumerate(self.norms.T):
                ax.plot(np.where(column > 0, column, np.nan), label=f"task {i + 1}")
            ax.set(yscale="log", xlabel="step", ylabel="gradient norm", title=self.title)
            ax.legend()
        return ax

    def _rows(self, at: int, width: int) -> slice:
        if not (0 <= at < self.steps and width >= 1 and at + width <= self.steps):
            raise InputError(
                f"steps {at} to {at + width - 1} are not within the {self.steps} steps of the "
                "profile: move or shorten them"
            )
        return slice(at, at + width)

    def _task(self, task: int) -> int:
        if not isinstance(task, int) or not 0 <= task < self.n_tasks:
            raise InputError(f"task = {task} is not in 0 to {self.n_tasks - 1}: tasks count from 0")
        return task


def levels(
    ratios: Sequence[float | Sequence[float]],
    holds: Sequence[int],
    n_tasks: int = 2,
    quiet_norm: float = _QUIET,
    title: str = "",
) -> Profile:
    """Steps between levels, each held for some steps.

    Parameters
    ----------
    ratios : sequence
        Per level either one number, the ratio of task 0 to every other task, or K norms.
    holds : sequence of int
        Steps each level is held.
    n_tasks : int
        Number of tasks K.
    quiet_norm : float, positive
        Norm of the other tasks, where a ratio is given.
    title : str
        For tables and pictures.

    Raises
    ------
    InputError
        Not one hold of at least one step for each level.

    Examples
    --------
    >>> levels([1.0, [1.0, 2.0, 7.0]], [10, 10], n_tasks=3).norms[10].round(6).tolist()
    [1.0, 2.0, 7.0]
    """
    if len(ratios) != len(holds) or not len(holds):
        raise InputError(
            f"got {len(ratios)} levels and {len(holds)} holds: give one hold (in steps) per level"
        )
    rows, events, total = [], [], 0
    for level, hold in zip(ratios, holds, strict=True):
        if int(hold) != hold or hold < 1:
            raise InputError(f"hold = {hold} is not a whole number of steps >= 1")
        _refuse_size(total + int(hold), n_tasks)
        rows.append(np.tile(_log_level(level, n_tasks, quiet_norm), (int(hold), 1)))
        events.append(total)
        total += int(hold)
    named = title or " → ".join(_level_name(level) for level in ratios)
    return Profile(np.concatenate(rows), events=tuple(events), title=named)


def constant(
    ratio: float | Sequence[float], steps: int, n_tasks: int = 2, quiet_norm: float = _QUIET
) -> Profile:
    """One level, held.

    Parameters
    ----------
    ratio, n_tasks, quiet_norm
        As in :func:`levels`.
    steps : int
        How long.

    Examples
    --------
    >>> constant(500.0, 2).norms.round(6).tolist()
    [[250.0, 0.5], [250.0, 0.5]]
    """
    return levels([ratio], [steps], n_tasks, quiet_norm)


def undisturbed(steps: int, n_tasks: int = 2) -> Profile:
    """Nothing but the plant: log norms 0.

    Parameters
    ----------
    steps, n_tasks : int
        Shape.

    Examples
    --------
    >>> undisturbed(3).norms.tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    return replace(levels([1.0], [steps], n_tasks, 1.0), title="no disturbance")


def published_disturbance(
    holds: Sequence[int] = (600, 600, 800), n_tasks: int = 2, quiet_norm: float = _QUIET
) -> Profile:
    """The regime the literature reports: 50x, then 2,400x, then 500x.

    Parameters
    ----------
    holds : three ints
        Steps each level is held. The default outlasts the warm-up and the filter.
    n_tasks, quiet_norm
        As in :func:`levels`.

    Notes
    -----
    Source: "Gradient-Aware Multi-Task Learning for Predictive Maintenance", section 18.5: the
    ratio starts near 50, peaks near 2,400 and settles at 500 to 1,000.

    Examples
    --------
    >>> published_disturbance(holds=(100, 200, 300)).events
    (0, 100, 300)
    """
    return levels(PUBLISHED_LEVELS, holds, n_tasks, quiet_norm)


def ramp(
    start: float,
    stop: float,
    steps: int,
    before: int = 0,
    after: int = 0,
    n_tasks: int = 2,
    quiet_norm: float = _QUIET,
) -> Profile:
    """The ratio of task 0 to the others moves at a constant rate of its logarithm.

    Parameters
    ----------
    start, stop : float, positive
        Ratios at the ends.
    steps : int
        Length of the ramp; ln(stop/start)/steps is its slope per step.
    before, after : int
        Steps the ends are held.
    n_tasks, quiet_norm
        As in :func:`levels`.

    Raises
    ------
    InputError
        A stretch of fewer than one step.

    Examples
    --------
    >>> profile = ramp(1.0, 100.0, 2, before=1, after=1)
    >>> (profile.norms[:, 0] / profile.norms[:, 1]).round(6).tolist()
    [1.0, 10.0, 100.0, 100.0]
    """
    _positive("start", start)
    _positive("stop", stop)
    if steps < 1 or before < 0 or after < 0:
        raise InputError(f"ramp of {steps} steps, {before} before, {after} after: give at least 1")
    _refuse_size(before + steps + after, n_tasks)
    rise = math.log(start) + math.log(stop / start) * np.arange(1, steps + 1) / steps
    y = np.concatenate([np.full(before, math.log(start)), rise, np.full(after, math.log(stop))])
    events = sorted({0, before, before + steps} & set(range(len(y))))
    logs = _above_quiet(y, n_tasks, quiet_norm)
    return Profile(logs, events=tuple(events), title=f"ramp {start:g}x to {stop:g}x in {steps}")


def prbs(
    low: float,
    high: float,
    block: int,
    blocks: int,
    seed: int,
    n_tasks: int = 2,
    quiet_norm: float = _QUIET,
) -> Profile:
    """Pseudo-random binary switching of the ratio, as used to identify plants.

    Parameters
    ----------
    low, high : float, positive
        The two ratios.
    block, blocks : int
        Steps per block and number of blocks.
    seed : int
        Of ``numpy.random.default_rng``.
    n_tasks, quiet_norm
        As in :func:`levels`.

    Raises
    ------
    InputError
        Fewer than one block, or blocks of fewer than one step.

    Examples
    --------
    >>> prbs(1.0, 4.0, block=5, blocks=6, seed=0).steps
    30
    """
    _positive("low", low)
    _positive("high", high)
    if block < 1 or blocks < 1:
        raise InputError(f"prbs of {blocks} blocks of {block} steps: give at least 1 of each")
    _refuse_size(block * blocks, n_tasks)
    choice = np.random.default_rng(seed).integers(0, 2, blocks)
    y = np.repeat(np.where(choice == 1, math.log(high), math.log(low)), block)
    logs = _above_quiet(y, n_tasks, quiet_norm)
    return Profile(logs, title=f"PRBS {low:g}x/{high:g}x, blocks of {block}")


def from_trace(trace: Trace, title: str = "") -> Profile:
    """A recorded training as a disturbance, with every step from its first to its last.

    A reading stands for the steps that the record leaves out before it. Where a row has no reading,
    or one with a norm that is not finite, or subnormal, the last one before it stands in; for the
    first ones, the one after.

    Parameters
    ----------
    trace : Trace
        As given by ``gabactl.traces.read_trace`` or ``load_bundled``. Losses that are not positive
        say nothing of progress, and are left out: every task then progresses alike.
    title : str
        For tables and pictures.

    Raises
    ------
    InputError
        No reading has a finite norm for every task, or the steps are too many.

    Examples
    --------
    >>> from gabactl.traces import Trace
    >>> trace = Trace.from_arrays([[4.0, 1.0], [float("inf"), 1.0], [2.0, 1.0]], step=[1, 2, 4])
    >>> from_trace(trace).norms[:, 0].round(6).tolist()
    [4.0, 4.0, 2.0, 2.0]
    """
    norms = trace.grad_norms
    normal = np.isfinite(norms) & ((norms == 0) | (norms >= np.finfo(float).tiny))
    usable = np.asarray(normal.all(axis=1), dtype=bool)
    if not usable.any():
        raise InputError(f"{trace.source}: no reading has a finite norm for every task")
    losses, norms = trace.losses, _filled(norms, usable)
    if losses is not None:
        known = np.asarray(~np.isnan(losses).any(axis=1), dtype=bool)
        progress = known.any() and bool(((losses > 0) & (losses < np.inf))[known].all())
        losses = _filled(losses, known) if progress else None
    whole = trace.replace(grad_norms=norms, losses=losses).every_step()
    _refuse_size(len(whole), len(trace.tasks))
    with np.errstate(divide="ignore"):
        logs = np.log(whole.grad_norms)
    return Profile(logs, whole.losses, title=title or "recorded trace")


def _filled(rows: Array, known: NDArray[np.bool_]) -> Array:
    """Rows that are not known filled from the last one before them; the first ones, from after."""
    last = np.maximum.accumulate(np.where(known, np.arange(len(rows)), -1))
    return rows[np.where(last < 0, int(np.argmax(known)), last)]


def non_negative(name: str, value: Any) -> float:
    """A finite number >= 0, or an error that says so.

    Parameters
    ----------
    name : str
        For the message.
    value
        What was given.

    Raises
    ------
    InputError
        No number, a bool, infinite, NaN or negative.

    Examples
    --------
    >>> non_negative("noise", -1.0)
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: noise = -1.0 is not a number >= 0: give a standard deviation
    """
    real = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and value >= 0):
        raise InputError(f"{name} = {value!r} is not a number >= 0: give a standard deviation")
    return float(value)


def _log_level(level: float | Sequence[float], n_tasks: int, quiet: float) -> Array:
    """Logarithms of the norms of a level: a ratio of the first to the others, or a norm per task."""
    _positive("quiet_norm", quiet)
    if np.ndim(level) == 0:
        ratio = float(level)  # type: ignore[arg-type]
        _positive("ratio", ratio)
        logs = np.full(n_tasks, math.log(quiet))
        logs[0] += math.log(ratio)
        return logs
    norms = np.asarray(level, dtype=float)
    if norms.shape != (n_tasks,):
        raise InputError(
            f"level {list(norms)} has {norms.size} norms: give {n_tasks}, one per task"
        )
    for norm in norms:
        _positive("norm", float(norm))
    return np.log(norms)


def _above_quiet(log_ratios: Array, n_tasks: int, quiet: float) -> Array:
    """Log norms of tasks that rest, the first one above them by so much at each step."""
    logs = np.full((len(log_ratios), n_tasks), math.log(quiet))
    logs[:, 0] += log_ratios
    return logs


def _level_name(level: float | Sequence[float]) -> str:
    """A level in words."""
    if np.ndim(level) == 0:
        return f"{level:,g}x"
    return "(" + ", ".join(f"{float(v):g}" for v in level) + ")"  # type: ignore[union-attr]


def _per_task(value: ArrayLike, k: int) -> Array:
    """One number for all tasks, or one per task, shape (k,)."""
    array = np.asarray(value, dtype=float)
    if array.ndim and array.shape != (k,):
        raise InputError(f"got {array.size} values for {k} tasks: give one number, or one per task")
    return np.broadcast_to(array, (k,))


def _refuse_size(steps: int, n_tasks: int) -> None:
    """Refuse more numbers than a profile may hold."""
    if steps * n_tasks > _MAX_NUMBERS:
        raise InputError(
            f"{steps:,} steps of {n_tasks} tasks are more than the {_MAX_NUMBERS:,} numbers a "
            "profile may hold: shorten it"
        )


def _positive(name: str, value: float) -> None:
    """Refuse what is no positive number."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} = {value} is not a positive number: give one such as 50")
