"""One visitor's dashboard: the view, the run looked at, and what both amount to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.app.state import GIVEN, View
from gabactl.base.errors import InputError
from gabactl.law.authority import settled_weights
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import error, raw_weights, share
from gabactl.loops.profiles import constant
from gabactl.runs.replay import Replay
from gabactl.runs.run import Run
from gabactl.traces import Trace, load_bundled

Array = NDArray[np.float64]


class Stages:
    """Every wire of the loop at one moment, arrays of shape (K,).

    Attributes
    ----------
    tasks : tuple of K str
        Their names.
    where : str
        Which moment.
    grad_norms, share, error, raw, ema, weights, contributions : arrays, shape (K,)
        NaN where the step took no reading.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        where: str,
        grad_norms: Array,
        raw: Array,
        ema: Array,
        weights: Array,
    ) -> None:
        self.tasks = tasks
        self.where = where
        self.grad_norms = grad_norms
        self.share = share(grad_norms)
        self.error = error(self.share)
        self.raw = raw
        self.ema = ema
        self.weights = weights
        self.contributions = weights * grad_norms


class Session:
    """The view, its run, and who wants to know of changes.

    Parameters
    ----------
    trace : Trace, optional
        The run that was named at the start.
    view : View, optional
        What to show first.

    Attributes
    ----------
    view : View
        What is shown.
    base : View
        What an address without a query shows.
    trace : Trace
        The run looked at.
    message : str
        One line on what was refused last, or "".

    Examples
    --------
    >>> session = Session()
    >>> session.change(floor=0.3)
    True
    >>> session.change(floor=0.7), session.message
    (False, 'floor = 0.7 is not a number from 0 to 0.4999')
    """

    def __init__(self, trace: Trace | None = None, view: View | None = None) -> None:
        self.given = trace
        first = view or (View() if trace is None else View(source=GIVEN))
        self.trace = self._load(first.source)
        if view is None:
            first = _as_recorded(first, self.trace)
        first.spec(len(self.trace.tasks))
        self.base = self.view = first
        self.message = ""
        self._watchers: list[Callable[[], None]] = []
        self._run: Run | None = None

    def watch(self, callback: Callable[[], None]) -> None:
        """Have a function called after each change.

        Parameters
        ----------
        callback : function of nothing
            Called once a change, refused ones too; they are called in the order they came in.
        """
        self._watchers.append(callback)

    def tell(self, message: str = "") -> None:
        """Show a line, and let everybody look again.

        Parameters
        ----------
        message : str
            The line; "" takes the last one away.
        """
        self.message = message
        for callback in self._watchers:
            callback()

    def change(self, **changes: Any) -> bool:
        """Change the view.

        Picking another run takes over the settings it was recorded with.

        Parameters
        ----------
        **changes
            New values of fields of :class:`View`, by name.

        Returns
        -------
        bool
            False where the change was refused: the view stays, and ``message`` says why.
        """
        try:
            view, trace = self.view.changed(**changes), self.trace
            if view.source != self.view.source:
                trace = self._load(view.source)
                view = _as_recorded(view.changed(step=0), trace)
            self._look_at(trace, view)
        except InputError as refused:
            self.tell(str(refused))
            return False
        self.tell()
        return True

    def _look_at(self, trace: Trace, view: View) -> None:
        view.spec(len(trace.tasks))
        self.trace, self.view = trace, view

    def restore(self, query: Mapping[str, Sequence[str | bytes]]) -> None:
        """Take over the view of an address, what is wrong with it left out.

        Parameters
        ----------
        query : mapping of str to sequence of str or bytes
            The parsed query of the address; of repeated values the last one counts.
        """
        asked, problems = self.base.updated_by(query)
        source = asked.source
        try:
            trace = self._load(source)
        except InputError as refused:
            problems.append(str(refused))
            source, trace = self.base.source, self._load(self.base.source)
        # Again, on top of the settings that this run was recorded with.
        usual = self._usual(source, trace)
        try:
            self._look_at(trace, usual.updated_by(query)[0].changed(source=source))
        except InputError as refused:
            problems.append(f"{refused}: the address is left out")
            self.trace, self.view = trace, usual
        self.tell("; ".join(problems))

    def to_query(self) -> str:
        """The address of this view, for :meth:`restore`."""
        usual = self._usual(self.view.source, self.trace).changed(source=self.base.source)
        return self.view.to_query(usual)

    def _usual(self, source: str, trace: Trace) -> View:
        """The view of an address that says nothing but the run."""
        view = self.base.changed(source=source)
        return view if source == self.base.source else _as_recorded(view, trace)

    def take(self, trace: Trace) -> bool:
        """Look at an uploaded run.

        Parameters
        ----------
        trace : Trace
            The run; settings recorded with it become those of the page.

        Returns
        -------
        bool
            False where it does not fit the page: the view stays, and ``message`` says why.
        """
        view = self.view if self.view.source != GIVEN else View(tab=self.view.tab)
        try:
            view = _as_recorded(view, trace).changed(source=GIVEN, step=0, without=())
            self._look_at(trace, view)
        except InputError as refused:
            self.tell(str(refused))
            return False
        self.given = trace
        self.tell()
        return True

    def _load(self, source: str) -> Trace:
        if source != GIVEN:
            return _bundled(source)
        if self.given is None:
            raise InputError("no run of your own is loaded: choose a bundled one, or upload yours")
        return self.given

    @property
    def n_tasks(self) -> int:
        """Number of tasks of the run."""
        return len(self.trace.tasks)

    @property
    def spec(self) -> GabaSpec:
        """The settings, for the run's number of tasks."""
        return self.view.spec(self.n_tasks)

    @property
    def pair_spec(self) -> GabaSpec:
        """The settings for two tasks, for the tabs that live in the log ratio."""
        return self.view.spec(2)

    @property
    def run(self) -> Run:
        """The run looked at, under these settings."""
        if self._run is None or self._run.trace is not self.trace or self._run.spec != self.spec:
            self._run = Run(self.trace, self.spec)
        return self._run

    @property
    def replayed(self) -> Replay:
        """The run's norms through a controller with these settings."""
        return self.run.replay

    @property
    def row(self) -> int:
        """Row of the run that the view's step is at (the last one up to it)."""
        if self.view.step == 0:
            return len(self.trace) - 1
        return max(0, int(np.searchsorted(self.trace.step, self.view.step, side="right")) - 1)

    def stages(self) -> Stages:
        """The wires at the step looked at; or settled, at the imbalance looked at."""
        ratio = self.view.ratio
        if ratio > 0.0:
            spec = self.pair_spec
            norms = constant(ratio, 1).norms[0]
            raw = raw_weights(norms, spec.law)
            tasks = self.trace.tasks if self.n_tasks == 2 else ("task 1", "task 2")
            where = f"settled at g₁/g₂ = {ratio:,.4g}"
            weights = settled_weights(spec, ratio)
            ema = weights if FLOORS[spec.floor_mode].replaces_state else raw
            return Stages(tasks, where, norms, raw, ema, weights)
        run, row = self.replayed, self.row
        return Stages(
            self.trace.tasks,
            f"step {int(run.step[row]):,} of {self.trace.source}",
            self.trace.grad_norms[row],
            run.raw[row],
            run.ema[row],
            run.weights[row],
        )


def _as_recorded(view: View, trace: Trace) -> View:
    """The view under the settings that a run was recorded with, where it has them."""
    return view if trace.spec is None else view.of_spec(trace.spec)


@lru_cache(maxsize=4)
def _bundled(name: str) -> Trace:
    return load_bundled(name)
