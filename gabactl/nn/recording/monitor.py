"""What a recorder has written, as TensorBoard scalars and figures.

The rows are read back from the recording itself, so that training waits for nothing it would not
have waited for: the recorder moves them from the device once per flush, and this reads the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError
from gabactl.runs.watch import SATURATED_STEPS, Watcher, WatchState
from gabactl.traces import Trace
from gabactl.traces.schema import GROUPS

__all__ = ["BoardMonitor"]


class BoardMonitor:
    """Puts a recording into TensorBoard while it is made; call :meth:`update` now and then.

    Parameters
    ----------
    writer : torch.utils.tensorboard.SummaryWriter
        Or anything with its ``add_scalar`` and ``add_figure``.
    recorder : TraceRecorder
        Or anything with its ``path``.
    every : int, at least 1
        Of the recorded steps, each so many is written; 1 keeps all, so that the event files hold
        what the trace does.
    figures : bool
        Write figures of the ratio and the weights too.
    prefix : str
        Put before every name: ``<prefix>/grad_norm_<task>``, ``raw_``, ``ema_``, ``weight_`` and
        ``loss_``, ``<prefix>/ratio``, ``<prefix>/saturated_for``.
    saturated_steps : int
        As for :class:`gabactl.runs.watch.Watcher`.

    Raises
    ------
    InputError
        ``every`` is not a whole number >= 1, or a writer without the methods of a SummaryWriter.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from gabactl.traces import TraceWriter
    >>> class Board:
    ...     def add_scalar(self, name, value, step): print(name, value, step)
    ...     def add_figure(self, name, figure, step): print(name)
    >>> recorder = TraceWriter(pathlib.Path(tempfile.mkdtemp()) / "run.arrows", ["a", "b"],
    ...                        groups=["grad_norm"])
    >>> recorder.append({"step": [1], "grad_norm_a": [5.0], "grad_norm_b": [2.0]})
    >>> state = BoardMonitor(Board(), recorder, every=1, figures=False).update()
    balance/grad_norm_a 5.0 1
    balance/grad_norm_b 2.0 1
    balance/ratio 2.5 1
    """

    def __init__(
        self,
        writer: Any,
        recorder: Any,
        *,
        every: int = 10,
        figures: bool = True,
        prefix: str = "balance",
        saturated_steps: int = SATURATED_STEPS,
    ) -> None:
        check_int("every", every, 1, "try 10")
        wanted = ["add_scalar", *(["add_figure"] if figures else [])]
        for name in wanted:
            if not hasattr(writer, name):
                raise InputError(f"a {type(writer).__name__} has no {name}: pass a SummaryWriter")
        self._writer, self._every, self._figures, self._prefix = writer, every, figures, prefix
        self._watcher = Watcher(recorder.path, saturated_steps=saturated_steps, rows=self._scalars)
        self._weights: list[tuple[int, Any]] = []
        self._drawn = 0

    def update(self) -> WatchState | None:
        """Write what the recorder has flushed since the last call.

        Returns
        -------
        WatchState or None
            Where the run is, with its alarms; None before the first flush.
        """
        state = self._watcher.look()
        if state is not None and state.step > self._drawn:
            if not np.isnan(state.saturated_fraction):
                name = f"{self._prefix}/saturated_for"
                self._writer.add_scalar(name, state.saturated_for, state.step)
            if self._figures:
                self._draw(state)
            self._drawn = state.step
        return state

    def _scalars(self, piece: Trace, after: int) -> None:
        new = (piece.step > after) & (piece.step % self._every == 0 if self._every > 1 else True)
        for row in np.flatnonzero(new):
            step = int(piece.step[row])
            for group, attribute in GROUPS.items():
                values = getattr(piece, attribute)
                if values is None or not piece.present[attribute][row]:
                    continue
                for task, value in zip(piece.tasks, values[row].tolist(), strict=True):
                    self._writer.add_scalar(f"{self._prefix}/{group}_{task}", value, step)
            norms = piece.grad_norms[row]
            if piece.measured[row] and norms.min() > 0:
                ratio = float(norms.max() / norms.min())
                self._writer.add_scalar(f"{self._prefix}/ratio", ratio, step)
        if piece.weights is not None:
            kept = np.flatnonzero(piece.step > after)[:: max(1, len(piece) // 200)]
            self._weights += [(int(piece.step[row]), piece.weights[row]) for row in kept]
            self._weights = self._weights[-2000:]

    def _draw(self, state: WatchState) -> None:
        from matplotlib.figure import Figure

        from gabactl.base import plots

        with plots.style():
            figure = Figure(figsize=(7.0, 5.0), layout="constrained")
            top, bottom = figure.subplots(2, sharex=True)
            state.plot(top)
            top.set(xlabel="", title="")
            steps = [step for step, _ in self._weights]
            for i, task in enumerate(state.tasks if self._weights else ()):
                bottom.plot(steps, [weights[i] for _, weights in self._weights], label=task)
            for bound in state.bounds or ():
                bottom.axhline(bound, color="0.5", lw=0.8, ls="--")
            bottom.set(xlabel="step", ylabel="applied weight", ylim=(-0.02, 1.02))
            if self._weights:
                bottom.legend()
        self._writer.add_figure(f"{self._prefix}/run", figure, state.step)
