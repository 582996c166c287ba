"""One recorded run: what its rows mean, under which settings, and its one replay.

A recording is more than an array of norms. Its rows have step numbers, and may leave steps out; a
row may hold no reading, or one that no controller can act on; it may begin in the middle of the
training; its weights may be GABA's, under these settings or others, or those of something else. Every
analysis of a recording asks a :class:`Run`, which knows all of that, so that no two of them differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.runs.replay import Replay, Replayer
from gabactl.traces.library import load_trace, trace_pieces
from gabactl.traces.schema import Trace, short_name

__all__ = ["Run"]

Array = NDArray[np.float64]
SpecFrom = Literal["recorded", "given", "assumed", "what-if"]


class Run:
    """A recorded run, seen under the settings of a controller.

    Parameters
    ----------
    trace : Trace
        The record.
    spec : GabaSpec, optional
        Settings; default: the recorded ones, or the package's where the record names none.

    Attributes
    ----------
    trace : Trace
        The record.
    spec : GabaSpec
        The settings.
    spec_from : {"recorded", "given", "assumed", "what-if"}
        Where they come from: the record; the caller, for a record that names none; nobody, and they
        are the defaults; or the caller, against the record: what would have been.

    Raises
    ------
    InputError
        The number of tasks does not fit.

    Examples
    --------
    Every 20th step of a run:

    >>> norms = np.tile([500.0, 1.0], (50, 1))
    >>> run = Run(Trace.from_arrays(norms, step=range(1, 1000, 20)), GabaSpec(warmup=0))
    >>> run.estimated, round(run.replay.saturated_fraction, 2), run.last(10).replay.saturated_fraction
    (True, 0.76, 1.0)
    """

    def __init__(self, trace: Trace, spec: GabaSpec | None = None) -> None:
        own = trace.spec
        if spec is None:
            self.spec_from: SpecFrom = "assumed" if own is None else "recorded"
        elif own is None:
            self.spec_from = "given"
        else:
            self.spec_from = "recorded" if spec == own else "what-if"
        self.trace = trace
        self.spec = spec or own or GabaSpec(n_tasks=len(trace.tasks))
        if len(trace.tasks) != self.spec.n_tasks:
            raise InputError(
                f"{trace.source}: {len(trace.tasks)} tasks ({', '.join(trace.tasks[:6])}), but "
                f"n_tasks = {self.spec.n_tasks}: pass --tasks {len(trace.tasks)}"
            )
        self._start: Replayer | None = None

    @classmethod
    def of(
        cls,
        source: Run | Trace | str | Path,
        spec: GabaSpec | None = None,
        *,
        last: int | None = None,
        most_steps: int | None = None,
    ) -> Run:
        """The run of a trace, of its file, or of a bundled name.

        Parameters
        ----------
        source : Run, Trace or path
            A run is returned as it is where no other settings are given.
        spec : GabaSpec, optional
            As for the class.
        last : int, at least 1, optional
            Only so many rows of the end; the average comes from those before.
        most_steps : int, optional
            Refuse a longer file, before it fills the memory.

        Examples
        --------
        >>> run = Run.of("fd001-gaba", last=500)
        >>> len(run.trace), run.spec_from, run.replay.saturated_fraction
        (500, 'recorded', 1.0)
        """
        if isinstance(source, Run):
            run = source if spec in (None, source.spec) else cls(source.trace, spec)
            return run if last is None else run.last(last)
        if isinstance(source, Trace):
            return cls.of(cls(source, spec), last=last)
        if not isinstance(source, (str, Path)):
            raise InputError(f"{type(source).__name__} is no run: give a Run, a Trace or a path")
        start: Replayer | None = None

        def before(piece: Trace) -> None:
            nonlocal start
            start = start or cls(piece, spec)._replayer()
            start.add(piece)

        run = cls(load_trace(source, last=last, most_steps=most_steps, before=before), spec)
        run._start = start
        return run

    @classmethod
    def pieces(
        cls, source: Run | Trace | str | Path, spec: GabaSpec | None = None
    ) -> Iterator[Run]:
        """Consecutive parts of a run, each with its replay: for files too long to hold.

        Parameters
        ----------
        source : Run, Trace or path
            What is in memory already comes in one piece.
        spec : GabaSpec, optional
            As for the class.

        Yields
        ------
        Run

        Raises
        ------
        InputError
            The file has no rows yet.

        Examples
        --------
        >>> [len(piece.replay.step) for piece in Run.pieces("fd001-gaba")]
        [2440]
        """
        if isinstance(source, (Run, Trace)):
            yield cls.of(source, spec)
            return
        replayer: Replayer | None = None
        for trace in trace_pieces(source):
            run = cls(trace, spec)
            replayer = replayer or run._replayer()
            run.replay = replayer.add(trace)
            yield run
        if replayer is None:
            raise InputError(
                f"{short_name(source)}: the trace has no rows yet: nothing was recorded"
            )

    def __repr__(self) -> str:
        return f"Run({self.trace!r}, {self.spec!r}, {self.spec_from})"

    @property
    def source(self) -> str:
        """What the record is called."""
        return self.trace.source

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the K tasks."""
        return self.trace.tasks

    @property
    def by_gaba(self) -> bool:
        """Whether GABA made the recorded weights: the record says so, or has its settings or stages."""
        trace = self.trace
        if trace.balancer is not None:
            return trace.balancer == "gaba"
        return trace.spec is not None or trace.ema is not None or trace.raw is not None

    @property
    def as_trained(self) -> bool:
        """Whether the replay is what happened, not what would have."""
        return self.by_gaba and self.spec_from != "what-if"

    @property
    def starts_late(self) -> bool:
        """Whether readings went into the average before the first recorded step."""
        return len(self.trace) > 0 and int(self.trace.step[0]) > self.spec.warmup + 1

    @property
    def start_known(self) -> bool:
        """Whether the average before the first row is known: from its record, or rows before."""
        return not self.starts_late or self._start is not None or self.trace.ema is not None

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """Rows with a positive, finite norm of every task: those that have a ratio."""
        norms = self.trace.grad_norms
        return np.asarray((np.isfinite(norms) & (norms > 0)).all(axis=1), dtype=bool)

    @property
    def spacing(self) -> float:
        """Steps from one positive reading to the next: the median."""
        steps = self.trace.step[self.positive]
        return float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0

    def log_ratio(self, first: int = 0, second: int = 1) -> Array:
        """log(g_first/g_second) per row, shape (steps,); NaN where there is none.

        Parameters
        ----------
        first, second : int
            Which tasks, from 0.

        Examples
        --------
        >>> Run(Trace.from_arrays([[1.0, 1.0], [0.0, 1.0]])).log_ratio().tolist()
        [0.0, nan]
        """
        found = np.full(len(self.trace), np.nan)
        norms = self.trace.grad_norms[self.positive]
        found[self.positive] = np.log(norms[:, first]) - np.log(norms[:, second])
        return found

    @cached_property
    def replay(self) -> Replay:
        """The recorded norms through a controller with these settings, worked out once.

        Steps that the record leaves out count: the next reading stands for theirs. A record that
        begins in the middle goes on from its first recorded average, or else has its first reading
        stand for all before it. Where GABA made the weights, a row without a reading is a step at
        which it had none; in other records it is one that was not written down.
        """
        return self._replayer().add(self.trace)

    def _replayer(self) -> Replayer:
        """In the state before the first row."""
        if self._start is not None:
            return copy.copy(self._start)
        replayer = self._fresh()
        if self.starts_late:
            replayer.start_from(self.trace)
        return replayer

    def _fresh(self) -> Replayer:
        coasts = self.trace.coasts and self.spec.interval == 1
        return Replayer(self.spec, unread="uniform" if self.by_gaba else "unrecorded", coast=coasts)

    @property
    def estimated(self) -> bool:
        """Whether readings are missing, so that the average is an estimate."""
        return self.replay.unrecorded_readings > 0

    def last(self, rows: int) -> Run:
        """The end of the run, its average as the rows before left it.

        Parameters
        ----------
        rows : int, at least 1
            How many rows.

        Examples
        --------
        >>> run = Run(Trace.from_arrays([[3.0, 1.0]] * 3), GabaSpec(warmup=0))
        >>> bool((run.last(1).replay.ema == run.replay.ema[2:]).all())
        True
        """
        if rows < 1:
            raise InputError(f"last = {rows} is below 1: give the number of steps to keep")
        if rows >= len(self.trace):
            return self
        start = self._replayer()
        start.add(self.trace.rows(slice(None, -rows)))
        return self._like(self.trace.rows(slice(-rows, None)), start)

    def scaled(self, factors: Mapping[str, float]) -> Run:
        """What would have been recorded with some losses multiplied by constants.

        A factor on a loss multiplies its gradient norm by exactly that factor. The feedback of the
        weights, which would have been others, is left out.

        Parameters
        ----------
        factors : mapping of str to float
            By task.

        Examples
        --------
        >>> Run(Trace.from_arrays([[3.0, 1.0]])).scaled({"task_0": 2.0}).trace.grad_norms.tolist()
        [[6.0, 1.0]]
        """
        scale = np.array([factors.get(task, 1.0) for task in self.tasks])
        norms = self.trace.grad_norms * scale
        bare = dict.fromkeys(("raw", "ema", "weights", "losses", "param_norms"))
        run = self._like(self.trace.replace(grad_norms=norms, **bare), self._fresh())
        run.spec_from = "what-if"
        return run

    @cached_property
    def every_step(self) -> Run:
        """The run with a row for every step, each standing for those left out before it.

        It is the run itself where none is left out.
        """
        whole = self.trace.every_step()
        if whole is self.trace:
            return self
        return self._like(whole, self._start)

    @property
    def head(self) -> Run:
        """Its first row alone, for what the rows after it do not change; it holds none of them."""
        return self._like(self.trace.rows(np.arange(min(1, len(self.trace)))), self._start)

    def _like(self, trace: Trace, start: Replayer | None) -> Run:
        run = Run(trace, self.spec)
        run.spec_from, run._start = self.spec_from, start
        return run
