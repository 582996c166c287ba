"""Replay: recorded gradient norms through our own controller, faster than stepping it.

The averages follow ``ema <- p ema + (1 - p) raw`` with p = beta**interval, which is SciPy's filter,
or, where the floor acts on the stored average, a loop over floats; all else is vectorised. ``gabactl.Controller`` stepped by hand gives the same
numbers, and what the other implementations are tested against.

Between readings the average is held, or it coasts: under a sensor that chooses its own times it
goes on following the last raw weights at every step.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import raw_weights, saturate, usable

if TYPE_CHECKING:
    from gabactl.traces import Trace

__all__ = ["Replay", "replay"]

Array = NDArray[np.float64]
#: What a recorded step without a reading means, where one was due: the controller had none and
#: applied uniform weights; or nobody wrote it down, as at the steps that the record leaves out.
Unread = Literal["uniform", "unrecorded"]


@dataclass(frozen=True, eq=False)
class Replay:
    """The three stages over recorded steps.

    Attributes
    ----------
    spec : GabaSpec
        The settings replayed.
    step : array of int64, shape (steps,)
        Step numbers.
    raw : array, shape (steps, K)
        Raw weights; NaN where the step took no reading, or the guard held.
    ema : array, shape (steps, K)
        Stored average after each step.
    weights : array, shape (steps, K)
        Applied weights.
    active : array of bool, shape (steps,)
        Steps past the warm-up.
    readings : int
        Readings replayed, those at which the guard held included.
    held_readings : int
        Those at which it held: a norm that is not finite, or no positive sum.
    unrecorded_readings : int
        Readings that the settings call for at steps the record leaves out, up to its last step.
        More than 0 makes the average an estimate.
    untaken_readings : int
        Readings called for at recorded steps where nothing was measured. None are, where the
        average coasts.
    """

    spec: GabaSpec
    step: NDArray[np.int64]
    raw: Array
    ema: Array
    weights: Array
    active: NDArray[np.bool_]
    readings: int
    held_readings: int
    unrecorded_readings: int
    untaken_readings: int

    @property
    def saturated_fraction(self) -> float:
        """Share of active steps with some ema_i < floor; NaN without active steps.

        With ``clamp_state`` the stored average never is below the floor, so this is 0.
        """
        if not self.active.any():
            return float("nan")
        low = (self.ema[self.active] < self.spec.floor).any(axis=1)
        return float(low.mean())

    def combined_loss(self, losses: ArrayLike) -> Array:
        """What training would minimise with these weights: sum_i w_i L_i per step.

        Parameters
        ----------
        losses : array, shape (steps, K)
            Task losses; NaN where none was recorded.

        Returns
        -------
        array, shape (steps,)

        Raises
        ------
        InputError
            Another shape than that of the weights.

        Examples
        --------
        >>> replay(GabaSpec(), [[250.0, 0.5]]).combined_loss([[10.0, 2.0]]).tolist()
        [6.0]
        """
        values = np.asarray(losses, dtype=np.float64)
        if values.shape != self.weights.shape:
            raise InputError(
                f"losses have shape {values.shape}, the weights {self.weights.shape}: give one "
                "loss per weight"
            )
        return np.asarray((self.weights * values).sum(axis=1))


def replay(
    spec: GabaSpec,
    grad_norms: ArrayLike,
    measured: ArrayLike | None = None,
    *,
    step: ArrayLike | None = None,
    unread: Unread = "uniform",
    coast: bool = False,
) -> Replay:
    """What a GABA controller does on these gradient norms; of a recording, ask its :class:`Run`.

    A log may hold every 50th step only. Readings that fell on steps it leaves out are then taken
    to be as the next one recorded, which keeps the average's pace; it is an estimate, and
    ``unrecorded_readings`` counts them.

    Parameters
    ----------
    spec : GabaSpec
        Settings. Warm-up and interval are counted on ``step``.
    grad_norms : array, shape (steps, K)
        Gradient norms, >= 0. Norms at steps where ``spec`` takes no reading are not looked at.
    measured : array of bool, shape (steps,), optional
        Where a reading was taken; default: the rows that are not all NaN. A measured NaN is a
        gradient that was not finite, and goes through the guard.
    step : array of int, shape (steps,), optional
        Strictly increasing, counted from 1; default 1, 2, ...
    unread : {"uniform", "unrecorded"}
        A due reading that was not taken: the average is kept and the weights are uniform, as the
        controller does when it is given no shared parameters; or the reading is one of those that
        the next one recorded stands for, and until then the weights are those of the average.
    coast : bool
        The sensor chose its own times (those of ``measured``), and at the steps between them the
        average goes on following the last raw weights. Needs an interval of 1.

    Returns
    -------
    Replay

    Raises
    ------
    InputError
        Shapes that do not fit, steps that do not increase, a negative norm, ``coast`` with an
        interval.

    Examples
    --------
    >>> done = replay(GabaSpec(warmup=1), [[250.0, 0.5], [250.0, 0.5]])
    >>> done.ema.round(5).tolist()
    [[0.5, 0.5], [0.49502, 0.50498]]
    """
    norms = np.asarray(grad_norms, dtype=np.float64)
    k = spec.n_tasks
    if norms.ndim != 2 or norms.shape[1] != k:
        raise InputError(
            f"grad_norms has shape {norms.shape}: give (steps, n_tasks) with n_tasks = {k}"
        )
    n = len(norms)
    steps = np.arange(1, n + 1) if step is None else np.asarray(step)
    if steps.shape != (n,):
        raise InputError("step must be strictly increasing, counted from 1, one per row")
    seen = ~np.isnan(norms).all(axis=1) if measured is None else np.asarray(measured, dtype=bool)
    if seen.shape != (n,):
        raise InputError(f"measured has shape {seen.shape}: give ({n},)")
    if (norms < 0).any():
        row = int(np.argmax((norms < 0).any(axis=1)))
        raise InputError(f"grad_norms in row {row} are {norms[row].tolist()}: norms are >= 0")
    return Replayer(spec, unread=unread, coast=coast).rows(norms, seen, steps)


class Replayer:
    """A replay a piece at a time: the same numbers, for runs too long to hold.

    Parameters
    ----------
    spec : GabaSpec
        Settings.
    unread : {"uniform", "unrecorded"}
        As for :func:`replay`.
    coast : bool
        As for :func:`replay`.

    Attributes
    ----------
    ema : list of K float
        Stored average so far; 1/K at first.

    Examples
    --------
    >>> norms, seen = np.array([[1.0, 3.0], [2.0, 2.0], [9.0, 1.0]]), np.ones(3, bool)
    >>> replayer = Replayer(GabaSpec(warmup=0))
    >>> parts = [replayer.rows(norms[i:j], seen[i:j], np.arange(i, j) + 1) for i, j in ((0, 2), (2, 3))]
    >>> [part.ema[-1].round(4).tolist() for part in parts]
    [[0.5025, 0.4975], [0.4985, 0.5015]]
    >>> replay(GabaSpec(warmup=0), norms).ema[-1].round(4).tolist()
    [0.4985, 0.5015]
    """

    def __init__(self, spec: GabaSpec, *, unread: Unread = "uniform", coast: bool = False) -> None:
        if coast and spec.interval != 1:
            raise InputError(
                f"interval = {spec.interval} with a sensor that chooses its own times: replay with "
                "interval = 1, or as a sampled sensor (coast=False)"
            )
        self.spec, self._coast = spec, coast
        # A sensor that coasts says itself when it read: what it left out is no gap.
        self._skips = unread == "unrecorded" and not coast
        self.ema: list[float] = [1.0 / spec.n_tasks] * spec.n_tasks
        # With a coasting average: raw weights that it follows.
        self._raw = np.array(self.ema)
        # The last row's step, and up to which step the readings due are in the average. A record
        # that starts in the middle has left out those before: its first reading stands for them.
        self._last = self._until = 0
        self._continues = False

    def start_from(self, trace: Trace) -> None:
        """Have the averages of a trace's first rows copied: their readings are in them already.

        One row; where the average coasts, those up to the first usable reading, from which on it
        can be rebuilt.
        """
        self._continues = trace.ema is not None and not bool(np.isnan(trace.ema[0]).any())

    def add(self, piece: Trace) -> Replay:
        """Replay the rows of a trace that follow those of the piece before.

        Parameters
        ----------
        piece : Trace
            Its readings, and those that are missing between it and the piece before, are counted in
            the result.

        Raises
        ------
        InputError
            The steps do not go on.
        """
        copied = self._copy(piece) if self._continues else None
        n = 0 if copied is None else len(copied.step)
        rest = self.rows(piece.grad_norms[n:], piece.measured[n:], piece.step[n:])
        if copied is None:
            return rest
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(copied, name), getattr(rest, name)])
            for name in ("step", "raw", "ema", "weights", "active")
        }
        return replace(
            rest,
            **joined,
            unrecorded_readings=copied.unrecorded_readings + rest.unrecorded_readings,
        )

    def _copy(self, piece: Trace) -> Replay:
        assert piece.ema is not None
        spec, n = self.spec, 1
        self._continues = False
        if self._coast:
            known = piece.measured & usable(piece.grad_norms, spec.law)
            known &= ~np.isnan(piece.ema).any(axis=1)
            self._continues = not known.any()
            n = len(piece) if self._continues else int(np.argmax(known)) + 1
            self._raw = raw_weights(piece.grad_norms[n - 1], spec.law, spec.guard)
        start, steps = piece.ema[:n], piece.step[:n]
        if self._last == 0:
            self._until = int(steps[0]) - 1  # what was read before is in the first average
        missing = int(_due_since(spec, steps, self._until).sum() - _is_due(spec, steps).sum())
        self.ema = start[-1].tolist()
        self._last = self._until = int(steps[-1])
        raw, active = np.full((n, spec.n_tasks), np.nan), np.ones(n, dtype=bool)
        weights = saturate(start, spec.floor, spec.floor_mode)
        return Replay(spec, steps, raw, start, weights, active, 0, 0, missing, 0)

    def rows(self, norms: Array, seen: NDArray[np.bool_], steps: NDArray[np.int64]) -> Replay:
        """Replay the next rows.

        Parameters
        ----------
        norms : array, shape (steps, K)
            Gradient norms.
        seen : array of bool, shape (steps,)
            Where a reading was taken.
        steps : array of int, shape (steps,)
            Step numbers.

        Raises
        ------
        InputError
            The steps do not go on.
        """
        spec, coast, (n, k) = self.spec, self._coast, norms.shape
        if (n and steps[0] <= self._last) or (np.diff(steps) <= 0).any():
            raise InputError("step must be strictly increasing, counted from 1, one per row")
        active = np.asarray(steps > spec.warmup, dtype=bool)
        due = active & seen if coast else _is_due(spec, steps)
        # The rows that account for the readings due since the one before them.
        counted = seen if self._skips else np.ones(n, dtype=bool)
        counts = np.zeros(n, dtype=np.int64)
        counts[counted] = _due_since(spec, steps[counted], self._until)
        missing = int(counts.sum() - (_is_due(spec, steps) & counted).sum())
        taken = (due if coast else counts > 0) & seen
        raw = np.full((n, k), np.nan)
        raw[taken] = raw_weights(norms[taken], spec.law, spec.guard)
        moves = taken if spec.guard == "none" else taken & usable(norms, spec.law)
        held = int(taken.sum() - moves.sum())
        if coast:
            followed, self._raw = _held(raw, moves, self._raw)
            moves = moves | (active & ~taken)
        else:
            followed = raw
        ema = _averages(spec, followed[moves], counts[moves], self.ema)[np.cumsum(moves)]
        weights = saturate(ema, spec.floor, spec.floor_mode)
        untaken = due & ~seen & counted
        weights[~active | untaken] = 1.0 / k
        if n:
            self.ema, self._last = ema[-1].tolist(), int(steps[-1])
        if counted.any():
            self._until = int(steps[counted][-1])
        steps = steps.astype(np.int64, copy=False)
        counted_readings = int(taken.sum()), held, missing, int(untaken.sum())
        return Replay(spec, steps, raw, ema, weights, active, *counted_readings)


def _held(raw: Array, moves: NDArray[np.bool_], before: Array) -> tuple[Array, Array]:
    """Per step, the raw weights that a coasting average follows, shape (steps, K); and the last."""
    finite = moves & np.isfinite(raw).all(axis=1)
    last = np.maximum.accumulate(np.where(finite, np.arange(1, len(raw) + 1), 0))
    held: Array = np.vstack([before[None], raw])[last]
    after = held[-1].copy() if len(held) else before
    held[moves] = raw[moves]
    return held, after


def _is_due(spec: GabaSpec, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which steps take a reading: W + 1, W + 1 + N, W + 1 + 2 N, ..."""
    since = steps - spec.warmup - 1
    return np.asarray((since >= 0) & (since % spec.interval == 0), dtype=bool)


def _due_since(spec: GabaSpec, steps: NDArray[np.int64], before: int) -> NDArray[np.int64]:
    """For each row, the readings due since the row before it, or since a step."""
    until = np.maximum(0, -(-(np.append(before, steps) - spec.warmup) // spec.interval))
    return np.asarray(np.diff(until), dtype=np.int64)


def _averages(spec: GabaSpec, raw: Array, counts: NDArray[np.int64], start: list[float]) -> Array:
    """Average before the first reading and after each, shape (readings + 1, K)."""
    from scipy.signal import lfilter

    out = np.vstack([start, raw])
    if FLOORS[spec.floor_mode].replaces_state:
        for row, count in enumerate(counts.tolist(), 1):
            pole = (spec.beta**spec.interval) ** count
            start = [
                pole * e + (1 - pole) * r for e, r in zip(start, out[row].tolist(), strict=True)
            ]
            out[row] = start = _project(start, spec.floor)
        return out
    # One filter for each stretch of readings that stand for as many.
    ends = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist(), len(raw)]
    for first, end in itertools.pairwise(ends if len(raw) else []):
        pole = (spec.beta**spec.interval) ** int(counts[first])
        held = pole * out[first : first + 1]
        rows = lfilter([1 - pole], [1, -pole], raw[first:end], axis=0, zi=held)[0]
        out[first + 1 : end + 1] = rows
    return out


def _project(ema: list[float], floor: float) -> list[float]:
    """:func:`gabactl.law.floors.project` of one point, in floats: some 30 times faster there."""
    if any(e != e for e in ema):
        return [float("nan")] * len(ema)
    budget = 1 - len(ema) * floor
    total = 0.0
    threshold = 0.0
    for rank, value in enumerate(sorted((e - floor for e in ema), reverse=True), start=1):
        total += value
        candidate = (total - budget) / rank
        if not value > candidate:
            break
        threshold = candidate
    return [floor + max(e - floor - threshold, 0.0) for e in ema]
