"""A training run in progress, as its recording shows it: state, and what is alarming about it.

Reading takes no lock and writes nothing: the run cannot notice.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.authority import saturation_ratio, weight_bounds
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.traces.reader import StreamSource, iter_trace, one_line
from gabactl.traces.schema import Trace, short_name, trace_from_columns
from gabactl.traces.writer import stream_path

__all__ = ["WatchState", "Watcher"]

#: Default of the steps in a row that may be saturated without an alarm.
SATURATED_STEPS = 500
#: Readings kept for the picture, and seconds over which their rate is taken.
_HISTORY = 2000
_RATE_SECONDS = 30.0
#: A record in float32 shows a clamped average this much below its floor.
_FLOAT32 = 1e-7


@dataclass(frozen=True, eq=False)
class WatchState(Result):
    """Where a run is.

    Attributes
    ----------
    source : str
        The recording.
    running : bool
        Its recording has not been closed: it runs, or was killed.
    age : float
        Seconds since something was written.
    tasks : tuple of K str
        Task names.
    spec : GabaSpec or None
        Recorded settings.
    step, steps, readings : int
        Last step, rows, and readings so far.
    readings_per_second : float
        Over the last 30 seconds of the run; NaN where the record has no times.
    grad_norms, weights, ema, losses : array, shape (K,), or None
        The last of each; norms are those of the last reading.
    ratio : float
        Largest over smallest gradient norm at the last reading.
    bounds : tuple of 2 floats, or None
        True range of the applied weights under ``spec``.
    saturation_ratio : float
        Imbalance at which the floor is reached; NaN without ``spec``.
    saturated_for : int
        Steps in a row, up to the last, at which some average was below the floor (at it, for
        ``clamp_state``).
    saturated_fraction : float
        Share of such steps among the active ones; NaN where the record cannot say.
    non_finite : int
        Readings that were not finite.
    last_non_finite : int or None
        Step of the last of them.
    saturated_steps : int
        More than so many in ``saturated_for`` are an alarm.
    history : array, shape (n, 2)
        Step and ratio of recent readings.
    """

    source: str
    running: bool
    age: float
    tasks: tuple[str, ...]
    spec: GabaSpec | None
    step: int
    steps: int
    readings: int
    readings_per_second: float
    grad_norms: NDArray[np.float64] | None
    weights: NDArray[np.float64] | None
    ema: NDArray[np.float64] | None
    losses: NDArray[np.float64] | None
    ratio: float
    bounds: tuple[float, float] | None
    saturation_ratio: float
    saturated_for: int
    saturated_fraction: float
    non_finite: int
    last_non_finite: int | None
    saturated_steps: int
    history: NDArray[np.float64] = field(repr=False)

    @property
    def title(self) -> str:  # type: ignore[override]
        """Which run."""
        return f"Watching {self.source}"

    @property
    def alarms(self) -> tuple[str, ...]:
        """What somebody should look at; empty where all is well."""
        stuck = (
            f"saturated for {self.saturated_for:,} steps: the weights are the floor's constants "
            "(gabactl tune says what to set)"
        )
        lost = f"{self.non_finite} reading(s) not finite, the last at step {self.last_non_finite}"
        is_stuck = self.saturated_for > self.saturated_steps
        alarms = ((is_stuck, stuck), (self.non_finite > 0, lost))
        return tuple(words for rings, words in alarms if rings)

    def facts(self) -> dict[str, Any]:
        """Keys as the attributes, and the alarms; without the history."""
        facts = super().facts() | self.series() | {"alarms": list(self.alarms)}
        del facts["history"]
        return facts

    def rows(self) -> list[tuple[str, ...]]:
        """Table rows."""
        rate = self.readings_per_second
        floor = "" if self.spec is None else f" (floor {self.spec.floor:g})"
        knee, within = self.saturation_ratio, self.bounds
        allowed = f" (the floor allows {knee:.4g})" if math.isfinite(knee) else ""
        limits = "" if within is None else f" (in [{within[0]:.4f}, {within[1]:.4f}])"
        lines: list[tuple[str, ...]] = [
            ("step", f"{self.step:,}, {'recording' if self.running else 'closed'}"),
            ("readings", f"{self.readings:,}" + (f", {rate:.1f} a second" if rate == rate else "")),
            ("gradient norms", self._by_task(self.grad_norms)),
            ("ratio", f"{self.ratio:.4g}{allowed}"),
            ("weights", self._by_task(self.weights) + limits),
            ("average", self._by_task(self.ema) + (floor if self.ema is not None else "")),
            ("losses", self._by_task(self.losses)),
            ("saturated", self._saturated()),
        ]
        if self.running:
            lines.append(("last written", f"{self.age:.0f} s ago"))
        return [*lines, *(("ALARM", alarm) for alarm in self.alarms)]

    def plot(self, ax: Any | None = None) -> Any:
        """Ratio of the recent readings, and where the floor is reached; returns the axes."""
        from gabactl.base import plots

        with plots.style():
            ax = plots.axes(ax)
            ax.semilogy(self.history[:, 0], self.history[:, 1], label="largest over smallest norm")
            knee = self.saturation_ratio
            if math.isfinite(knee):
                said = f"floor reached at {knee:.3g}"
                ax.axhline(knee, color=plots.PALETTE[1], ls="--", label=said)
            ax.set(xlabel="step", ylabel="ratio of the gradient norms", title=self.title)
            ax.legend()
        return ax

    def _by_task(self, values: NDArray[np.float64] | None) -> str:
        if values is None:
            return "not recorded"
        return ", ".join(f"{t} {v:.4g}" for t, v in zip(self.tasks, values, strict=True))

    def _saturated(self) -> str:
        if math.isnan(self.saturated_fraction):
            return "no settings or no averages in the record to tell by, or still in the warm-up"
        now = f"for {self.saturated_for:,} steps" if self.saturated_for else "not now"
        return f"{now}; {self.saturated_fraction:.1%} of the active steps"


class Watcher:
    """Follows one recording, reading only what is new.

    Parameters
    ----------
    path : path
        ``run.arrows``, or the ``run.parquet`` it is to become.
    saturated_steps : int, at least 0
        See :class:`WatchState`.
    rows : function of a Trace and an int, optional
        Called at a look with each piece of the record, and the step after which it is new.

    Raises
    ------
    InputError
        Another ending, or a negative number of steps.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.traces import TraceWriter
    >>> file = Path(tempfile.mkdtemp()) / "run.arrows"
    >>> writer = TraceWriter(file, ["a", "b"], groups=["grad_norm"])
    >>> watcher = Watcher(file)
    >>> writer.append({"step": [1], "grad_norm_a": [5.0], "grad_norm_b": [2.0]})
    >>> watcher.look().ratio
    2.5
    >>> writer.append({"step": [2], "grad_norm_a": [6.0], "grad_norm_b": [2.0]})
    >>> state = watcher.look()
    >>> state.step, state.ratio, state.running
    (2, 3.0, True)
    >>> _ = writer.close()
    >>> watcher.look().running
    False
    """

    def __init__(
        self,
        path: str | Path,
        *,
        saturated_steps: int = SATURATED_STEPS,
        rows: Callable[[Trace, int], object] | None = None,
    ) -> None:
        if saturated_steps < 0:
            raise InputError(f"saturated_steps = {saturated_steps} is below 0: try 500")
        self.stream = stream_path(path)
        self.parquet = Path(path).with_suffix(".parquet")
        self._limit = saturated_steps
        self._rows = rows or (lambda piece, after: None)
        self._source: StreamSource | None = None
        self._file_id: tuple[int, int] = (0, 0)
        self._sums = _Sums()

    def look(self) -> WatchState | None:
        """The state now; None where nothing has been recorded yet.

        Raises
        ------
        InputError
            The recording is damaged, or is none.
        """
        for again in (True, False):
            try:
                return self._look()
            except FileNotFoundError:
                # Between a clean end's last two moments, or before the first.
                return self._finished() if self.parquet.exists() else None
            except OSError as error:
                raise InputError(
                    f"{short_name(self.stream)}: cannot be read ({error.strerror}): check the path"
                ) from None
            except InputError:
                # A run that was resumed has rewritten its last steps: read it from the start.
                if self._source is None or not again:
                    raise
                self._source = None
        raise AssertionError("unreachable")

    def _look(self) -> WatchState | None:
        name = short_name(self.stream)
        with open(self.stream, "rb") as file, one_line(name):
            seen = os.fstat(file.fileno())
            identity = (seen.st_dev, seen.st_ino)
            if self._source is not None and (
                identity != self._file_id or seen.st_size < self._source.reader.good_end
            ):
                self._source = None
            if self._source is None:
                self._source = StreamSource(file, seen.st_size, name, False)
                self._file_id, self._sums = identity, _Sums()
            else:
                self._source.reader.grow(file, seen.st_size)
            for columns, _ in self._source.chunks():
                if len(columns["step"][0]):
                    piece = trace_from_columns(
                        columns,
                        self._source.metadata,
                        source=name,
                        precision=self._source.precision,
                        after_step=self._sums.step,
                    )
                    self._rows(piece, self._sums.step)
                    self._sums.add(piece)
        if self._source.reader.closed and self.parquet.exists():
            return self._finished()
        age = max(0.0, time.time() - seen.st_mtime)
        return self._sums.state(name, not self._source.reader.closed, age, self._limit)

    def _finished(self) -> WatchState | None:
        sums = _Sums()
        for piece in iter_trace(self.parquet):
            sums.add(piece)
            if piece.step[-1] > self._sums.step:
                self._rows(piece, self._sums.step)
        return sums.state(short_name(self.parquet), False, 0.0, self._limit)


def follow(
    watcher: Watcher, *, every: float = 1.0, patience: float = 10.0
) -> Iterator[WatchState | None]:
    """States of a run until it is closed, one for each look.

    Parameters
    ----------
    watcher : Watcher
        Of the run.
    every : float, positive
        Seconds between looks.
    patience : float
        Seconds for which a recording that cannot be read yet (its header is being written) is
        waited for.

    Yields
    ------
    WatchState or None
        None while there is nothing yet.

    Raises
    ------
    InputError
        It still cannot be read after that.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.traces import TraceWriter
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "run.arrows"
    ...     with TraceWriter(file, ["a", "b"], groups=["grad_norm"]) as writer:
    ...         writer.append({"step": [1], "grad_norm_a": [5.0], "grad_norm_b": [2.0]})
    ...     [(state.step, state.running) for state in follow(Watcher(file))]
    [(1, False)]
    """
    if not every > 0:
        raise InputError(f"every = {every} seconds is not above 0: try 1")
    good = time.monotonic()
    while True:
        state = None
        try:
            state = watcher.look()
            good = time.monotonic()
        except InputError:
            if time.monotonic() - good > patience:
                raise
        yield state
        if state is not None and not state.running:
            return
        time.sleep(every)


class _Sums:
    """What is kept of the rows seen, whatever their number."""

    def __init__(self) -> None:
        self.step = self.rows = self.readings = self.active = self.saturated = 0
        self.non_finite = 0
        self.free: int | None = None
        self.last_non_finite: int | None = None
        self.last: Trace | None = None
        self.norms: NDArray[np.float64] | None = None
        self.knows = False
        self.history = np.empty((0, 3))

    def add(self, piece: Trace) -> None:
        spec, seen = piece.spec, piece.measured
        self.rows += len(piece)
        self.readings += int(seen.sum())
        norms = piece.grad_norms[seen]
        finite = np.isfinite(norms).all(axis=1)
        self.non_finite += int((~finite).sum())
        if not finite.all():
            self.last_non_finite = int(piece.step[seen][~finite][-1])
        if len(norms):
            self.norms = norms[-1]
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                ratio = norms.max(axis=1) / norms.min(axis=1)
            wall = np.full(len(piece), np.nan) if piece.wall_time is None else piece.wall_time
            rows = np.column_stack([piece.step[seen], ratio, wall[seen]])
            self.history = np.vstack([self.history, rows])[-_HISTORY:]
        if spec is not None and piece.ema is not None:
            self._saturation(piece, spec, piece.ema)
        self.step, self.last = int(piece.step[-1]), piece.replace(param_norms=None)

    def _saturation(self, piece: Trace, spec: GabaSpec, ema: NDArray[np.float64]) -> None:
        active = piece.step > spec.warmup
        if not active.any():
            return
        self.knows = True
        floor = spec.floor + (_FLOAT32 if FLOORS[spec.floor_mode].replaces_state else 0.0)
        low = np.asarray((ema[active] < floor).any(axis=1), dtype=bool)
        self.active += len(low)
        self.saturated += int(low.sum())
        free = np.flatnonzero(~low)
        if len(free):
            self.free = int(piece.step[active][free[-1]])
        elif self.free is None:
            # All so far: since the last step that was none of these.
            self.free = max(spec.warmup, int(piece.step[0]) - 1)

    def state(self, source: str, running: bool, age: float, limit: int) -> WatchState | None:
        if self.last is None:
            return None
        last, spec = self.last, self.last.spec
        groups: dict[str, Any] = {"weights": last.weights, "ema": last.ema, "losses": last.losses}
        bounds = None if spec is None else weight_bounds(spec)
        return WatchState(
            source=source,
            running=running,
            age=age,
            tasks=last.tasks,
            spec=spec,
            step=self.step,
            steps=self.rows,
            readings=self.readings,
            readings_per_second=self._rate(),
            grad_norms=self.norms,
            **{name: None if rows is None else rows[-1] for name, rows in groups.items()},
            ratio=float(self.history[-1, 1]) if len(self.history) else math.nan,
            bounds=None if bounds is None else (bounds.lower, bounds.upper),
            saturation_ratio=math.nan if spec is None else saturation_ratio(spec),
            saturated_for=0 if self.free is None else self.step - self.free,
            saturated_fraction=self.saturated / self.active if self.knows else math.nan,
            non_finite=self.non_finite,
            last_non_finite=self.last_non_finite,
            saturated_steps=limit,
            history=self.history[:, :2],
        )

    def _rate(self) -> float:
        """Readings a second, over the last seconds of the run."""
        walls = self.history[:, 2]
        walls = walls[np.isfinite(walls)]
        if len(walls) < 2:
            return math.nan
        recent = walls[walls >= walls[-1] - _RATE_SECONDS]
        with np.errstate(over="ignore"):  # a clock may have said anything
            span = walls[-1] - recent[0] if len(recent) else math.nan
        return float((len(recent) - 1) / span) if span > 0 else math.nan
