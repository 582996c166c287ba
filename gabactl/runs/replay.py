"""Replay: recorded gradient norms through our own controller, faster than stepping it.

The averages follow ``ema <- p ema + (1 - p) raw`` with p = beta**interval, which is a loop over
floats; every other stage is vectorised. ``gabactl.Controller`` stepped by hand gives the same
numbers, and what the other implementations are tested against.

Between readings the average is held, or it coasts: under a sensor that chooses its own times it
goes on following the last raw weights at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import raw_weights, saturate, usable

if TYPE_CHECKING:
    from gabactl.traces import Trace

__all__ = ["Replay", "Replayer", "replay", "replay_trace"]

Array = NDArray[np.float64]
Unmeasured = Literal["uniform", "hold"]

#: Readings whose averages are held as Python's own numbers at once.
_BLOCK = 1 << 16


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
    unrecorded_readings : int
        Readings that the settings call for at steps the record leaves out, from its first to its
        last step. More than 0 makes the average an estimate.
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
    start_ema: ArrayLike | None = None,
    start_raw: ArrayLike | None = None,
    unmeasured: Literal["uniform", "hold"] = "uniform",
    coast: bool = False,
) -> Replay:
    """What a GABA controller would have done on these gradient norms.

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
    start_ema : array, shape (K,), optional
        Average before the first row; default 1/K.
    start_raw : array, shape (K,), optional
        With ``coast``: raw weights of the last reading before the first row; default 1/K.
    unmeasured : {"uniform", "hold"}
        Weights at a due reading that was not taken: uniform, as the controller does when it is
        given no shared parameters, or those of the average. The average is kept either way.
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
    state = _State(spec, unmeasured, coast)
    if start_ema is not None:
        state.ema = np.asarray(start_ema, dtype=float).tolist()
    if len(state.ema) != k:
        raise InputError(f"start_ema has {len(state.ema)} values: give n_tasks = {k}")
    if start_raw is not None:
        state.raw = np.asarray(start_raw, dtype=np.float64)
    return state.run(norms, seen, steps)


def replay_trace(
    trace: Trace, spec: GabaSpec, *, unmeasured: Literal["uniform", "hold"] = "uniform"
) -> Replay:
    """:func:`replay` on a trace: its norms, step numbers and, where it starts late, its average.

    A trace that starts after the first reading continues from the first average it recorded, if
    it has one; else from 1/K. One whose sensor coasts continues from the first reading in it: what
    the average followed before is not in the record. A sensor that coasts coasts in the replay too,
    unless the settings name an interval.

    Parameters
    ----------
    trace : Trace
        The record.
    spec : GabaSpec
        Settings, the trace's own or others.
    unmeasured : {"uniform", "hold"}
        As for :func:`replay`.

    Examples
    --------
    >>> from gabactl.traces import Trace
    >>> replay_trace(Trace.from_arrays([[1.0, 3.0]]), GabaSpec(warmup=0, beta=0)).weights.tolist()
    [[0.75, 0.25]]
    """
    return Replayer(spec, unmeasured=unmeasured).add(trace)


class Replayer:
    """:func:`replay_trace` a piece at a time: the same numbers, for runs too long to hold.

    Parameters
    ----------
    spec : GabaSpec
        Settings.
    unmeasured : {"uniform", "hold"}
        As for :func:`replay`.

    Examples
    --------
    >>> from gabactl.traces import Trace
    >>> norms = [[1.0, 3.0], [2.0, 2.0], [9.0, 1.0]]
    >>> pieces = [Trace.from_arrays(norms[:2]), Trace.from_arrays(norms[2:], step=[3])]
    >>> replayer = Replayer(GabaSpec(warmup=0))
    >>> [replayer.add(piece).ema[-1].round(4).tolist() for piece in pieces]
    [[0.5025, 0.4975], [0.4985, 0.5015]]
    >>> replay(GabaSpec(warmup=0), norms).ema[-1].round(4).tolist()
    [0.4985, 0.5015]
    """

    def __init__(self, spec: GabaSpec, *, unmeasured: Literal["uniform", "hold"] = "uniform"):
        self._spec, self._unmeasured = spec, unmeasured
        self._state: _State | None = None
        self._copying = False

    def add(self, piece: Trace) -> Replay:
        """Replay the rows that follow those of the piece before.

        Parameters
        ----------
        piece : Trace
            Later rows of the same trace. Its readings, and those that are missing between it and
            the piece before, are counted in the result.

        Raises
        ------
        InputError
            The number of tasks does not fit, or the steps do not go on.
        """
        spec = self._spec
        if len(piece.tasks) != spec.n_tasks:
            raise InputError(
                f"{piece.source}: {len(piece.tasks)} tasks ({', '.join(piece.tasks[:6])}), but "
                f"n_tasks = {spec.n_tasks}: pass --tasks {len(piece.tasks)}"
            )
        if self._state is None:
            self._state = _State(spec, self._unmeasured, piece.coasts and spec.interval == 1)
            if starts_late(piece, spec) and piece.ema is not None:
                self._copying = not bool(np.isnan(piece.ema[0]).any())
        copied = self._copy(piece, self._state) if self._copying else None
        n = 0 if copied is None else len(copied.step)
        rest = self._state.run(piece.grad_norms[n:], piece.measured[n:], piece.step[n:])
        if copied is None:
            return rest
        return Replay(
            spec,
            piece.step,
            np.vstack([copied.raw, rest.raw]),
            np.vstack([copied.ema, rest.ema]),
            np.vstack([copied.weights, rest.weights]),
            np.concatenate([copied.active, rest.active]),
            rest.readings,
            copied.unrecorded_readings + rest.unrecorded_readings,
            rest.untaken_readings,
        )

    def _copy(self, piece: Trace, state: _State) -> Replay:
        """The first rows of a trace that starts late, whose averages hold their readings already.

        One row; where the average coasts, those up to the first usable reading, from which on it
        can be rebuilt.
        """
        assert piece.ema is not None
        spec, n = self._spec, 1
        self._copying = False
        if state.coast:
            known = piece.measured & usable(piece.grad_norms, spec.law)
            known &= ~np.isnan(piece.ema).any(axis=1)
            self._copying = not known.any()
            n = len(piece) if self._copying else int(np.argmax(known)) + 1
            state.raw = raw_weights(piece.grad_norms[n - 1], spec.law, spec.guard)
        start = piece.ema[:n]
        state.ema = start[-1].tolist()
        missing = _unrecorded(spec, piece.step[:n], state.before)
        state.before = int(piece.step[n - 1])
        return Replay(
            spec,
            piece.step[:n],
            np.full((n, spec.n_tasks), np.nan),
            start,
            saturate(start, spec.floor, spec.floor_mode),
            np.ones(n, dtype=bool),
            0,
            missing,
            0,
        )


class _State:
    """What a replay carries from one row to the next."""

    def __init__(self, spec: GabaSpec, unmeasured: Unmeasured, coast: bool) -> None:
        if coast and spec.interval != 1:
            raise InputError(
                f"interval = {spec.interval} with a sensor that chooses its own times: replay with "
                "interval = 1, or as a sampled sensor (coast=False)"
            )
        self.spec, self.unmeasured, self.coast = spec, unmeasured, coast
        self.ema: list[float] = [1.0 / spec.n_tasks] * spec.n_tasks
        # With a coasting average: raw weights that it follows.
        self.raw = np.array(self.ema)
        # Last row's step; None before the first, whose own reading alone is counted.
        self.before: int | None = None

    def run(self, norms: Array, seen: NDArray[np.bool_], steps: NDArray[np.int64]) -> Replay:
        spec, coast, (n, k) = self.spec, self.coast, norms.shape
        if (norms < 0).any():
            row = int(np.argmax((norms < 0).any(axis=1)))
            raise InputError(f"grad_norms in row {row} are {norms[row].tolist()}: norms are >= 0")
        if (n and steps[0] <= (self.before or 0)) or (np.diff(steps) <= 0).any():
            raise InputError("step must be strictly increasing, counted from 1, one per row")
        active = np.asarray(steps > spec.warmup, dtype=bool)
        due = active & seen if coast else _is_due(spec, steps)
        counts = _readings_up_to(spec, steps, self.before)
        taken = (due if coast else counts > 0) & seen
        raw = np.full((n, k), np.nan)
        raw[taken] = raw_weights(norms[taken], spec.law, spec.guard)
        moves = taken if spec.guard == "none" else taken & usable(norms, spec.law)
        if coast:
            followed, self.raw = _held(raw, moves, self.raw)
            moves = moves | (active & ~taken)
        else:
            followed = raw
        ema = _averages(spec, followed[moves], counts[moves], self.ema)[np.cumsum(moves)]
        weights = saturate(ema, spec.floor, spec.floor_mode)
        uniform = ~active if self.unmeasured == "hold" else ~active | (due & ~seen)
        weights[uniform] = 1.0 / k
        missing = _unrecorded(spec, steps, self.before)
        if n:
            self.ema, self.before = ema[-1].tolist(), int(steps[-1])
        return Replay(
            spec,
            steps.astype(np.int64, copy=False),
            raw,
            ema,
            weights,
            active,
            int(taken.sum()),
            missing,
            int((due & ~seen).sum()),
        )


def starts_late(trace: Trace, spec: GabaSpec) -> bool:
    """Whether readings went into the average before the first recorded step.

    Examples
    --------
    >>> from gabactl.traces import Trace
    >>> starts_late(Trace.from_arrays([[1.0, 3.0]], step=[102]), GabaSpec())
    True
    """
    return len(trace) > 0 and int(trace.step[0]) > spec.warmup + 1


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


def _readings_up_to(
    spec: GabaSpec, steps: NDArray[np.int64], before: int | None
) -> NDArray[np.int64]:
    """For each row, the readings due since the row before; for the very first, its own alone."""
    until = np.maximum(0, -(-(steps - spec.warmup) // spec.interval)).astype(np.int64)
    earlier = until[:1]
    if before is not None:
        earlier = np.array([max(0, -(-(before - spec.warmup) // spec.interval))])
    counts = np.diff(until, prepend=earlier[: len(until)])
    if len(steps) and before is None:
        counts[0] = int(_is_due(spec, steps[:1])[0])
    return np.asarray(counts)


def _unrecorded(spec: GabaSpec, steps: NDArray[np.int64], before: int | None) -> int:
    """Steps with a reading due, from the row before on or between the rows, that have no row."""
    return int(_readings_up_to(spec, steps, before).sum() - _is_due(spec, steps).sum())


def _averages(spec: GabaSpec, raw: Array, counts: NDArray[np.int64], start: list[float]) -> Array:
    """Average before the first reading and after each, shape (readings + 1, K)."""
    clamp = FLOORS[spec.floor_mode].replaces_state
    one = spec.beta**spec.interval
    ema = start
    out = np.empty((len(raw) + 1, spec.n_tasks))
    out[0] = start
    for first in range(0, len(raw), _BLOCK):
        part = slice(first, first + _BLOCK)
        counted = counts[part].tolist()
        poles = [one if count == 1 else one**count for count in counted]
        rows: list[Sequence[float]] = []
        if len(ema) == 2 and not clamp:  # the same, without a loop over tasks: half the time
            a, b = ema
            for (x, y), pole in zip(raw[part].tolist(), poles, strict=True):
                gain = 1 - pole
                a, b = pole * a + gain * x, pole * b + gain * y
                rows.append((a, b))
            ema = [a, b]
        else:
            for reading, pole in zip(raw[part].tolist(), poles, strict=True):
                gain = 1 - pole
                ema = [pole * e + gain * r for e, r in zip(ema, reading, strict=True)]
                if clamp:
                    ema = _project(ema, spec.floor)
                rows.append(ema)
        out[first + 1 : first + 1 + len(rows)] = rows
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
