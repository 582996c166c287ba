"""The sensor: which parameters count, from a run recorded with the norms of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn

from gabactl.app.figures import COLOURS, MUTED
from gabactl.app.tab import Tab, button
from gabactl.app.text import number, pane, paragraph, table
from gabactl.law.stages import raw_weights
from gabactl.traces import Trace

#: The bundled run that has them.
_EXAMPLE = "fd001-parameters"
_HEADS = ("rul_head", "health_head")


def groups_of(trace: Trace) -> dict[str, list[str]]:
    """Parameters of a run by the module they belong to (the first part of the dotted name).

    Parameters
    ----------
    trace : Trace
        A run whose metadata has ``param_names``: recorded with ``param_norms``.

    Returns
    -------
    dict of str to list of str
        Names of the parameters by module, in the order of the run; empty where none were recorded.

    Examples
    --------
    >>> groups_of(Trace.from_arrays([[1.0, 2.0]], metadata={"param_names": ["a.w", "a.b", "c.w"]}))
    {'a': ['a.w', 'a.b'], 'c': ['c.w']}
    """
    groups: dict[str, list[str]] = {}
    for name in trace.metadata.get("param_names") or []:
        groups.setdefault(str(name).partition(".")[0], []).append(str(name))
    return groups


class SensorTab(Tab):
    """Tick parameter groups in and out, and see what the sensor would have read."""

    lasting = True

    def build(self) -> tuple[Any, ...]:
        """Ticks and figures, or the way to a run that has them."""
        self.ticks = pn.widgets.CheckBoxGroup(
            name="Parameters that count", inline=True, css_classes=["groups"], margin=(4, 8)
        )
        self.ticks.param.watch(self._ticked, "value")
        self.heading = pane(paragraph("Parameters that count:"))
        self.load = button(
            "Show the bundled run that has them",
            ["load-example"],
            self.request,
            {"source": _EXAMPLE},
        )
        self.norms = self.board("What the sensor reads", "", "norm", height=240, log="y")
        self.ratio = self.board(
            "Ratio of task 1 to task 2", "step", "ratio", height=240, x_range=self.norms, log="y"
        )
        # Thin and whole: wide or dashed lines of noise take the browser as long as all the rest.
        self._first = self.norms.line("task 1", COLOURS[0], line_width=1)
        self._second = self.norms.line("task 2", COLOURS[1], line_width=1)
        self._every = self.ratio.line("as recorded", MUTED, line_width=1)
        self._ticked_ratio = self.ratio.line("ticked parameters", COLOURS[2], line_width=1)
        self._figures = pn.Column(*self.figures(), self.readout, sizing_mode="stretch_width")
        self._quiet = False
        #: Medians that were worked out already, by the parameters counted.
        self._of: Trace | None = None
        self._alone: dict[tuple[str, ...], tuple[str, ...]] = {}
        return self.note, self.load, self.heading, self.ticks, self._figures

    def _ticked(self, event: Any) -> None:
        if not self._quiet:
            known = groups_of(self.session.trace)
            self.request(without=tuple(name for name in known if name not in event.new))

    def update(self) -> None:
        """Read the run with the ticked parameters."""
        session = self.session
        trace = session.trace
        groups = groups_of(trace)
        possible = trace.param_norms is not None and bool(groups) and session.n_tasks == 2
        if trace is not self._of:
            self._of, self._alone = trace, {}
        self._figures.visible = self.ticks.visible = self.heading.visible = possible
        self.load.visible = not possible
        if not possible:
            self.note.object = paragraph(
                f"{trace.source} was recorded without the gradient norm of each parameter. Record "
                "a run of two tasks with TraceRecorder(..., param_norms=model.named_parameters()), "
                "or look at the bundled one."
            )
            return
        counted = [name for name in groups if name not in session.view.without]
        self._quiet = True
        self.ticks.param.update(options=list(groups), value=counted)
        self._quiet = False
        norms = trace.norms_over([name for group in counted for name in groups[group]])
        norms = np.where(norms > 0, norms, np.nan)
        self._first.set(trace.step, norms[:, 0])
        self._second.set(trace.step, norms[:, 1])
        ratio = norms[:, 0] / norms[:, 1]
        recorded = np.where(trace.grad_norms > 0, trace.grad_norms, np.nan)
        every = recorded[:, 0] / recorded[:, 1]
        self._ticked_ratio.set(trace.step, ratio)
        self._every.set(trace.step, every)
        self.norms.frame("x", int(trace.step[0]), int(trace.step[-1]))
        self.norms.frame_data("y", norms, log=True)
        self.ratio.frame_data("y", ratio, every, log=True)
        self.norms.legend.labels = list(trace.tasks)
        rows = [("counted", "parameters", *trace.tasks, "ratio", f"raw weight of {trace.tasks[0]}")]
        shared = [name for name in groups if name not in _HEADS]
        for label, chosen in (
            ("ticked", counted),
            ("all", list(groups)),
            ("all but the heads", shared),
            *((f"{name} alone", [name]) for name in groups),
        ):
            names = tuple(name for group in chosen for name in groups[group])
            if names not in self._alone:
                self._alone[names] = _medians(trace, list(names))
            rows.append((label, str(len(names)), *self._alone[names]))
        self.note.object = paragraph(
            f"{trace.source}: untick what the sensor should not count. Heads belong to one task "
            "each, so counting them mixes their own training into the balance of the shared part. "
            "The table has medians over the readings."
        )
        self.readout.object = table(rows)


def _medians(trace: Trace, names: list[str]) -> tuple[str, ...]:
    norms = trace.norms_over(names)
    norms = norms[np.isfinite(norms).all(axis=1)]
    if not names or not norms.size:
        return ("–", "–", "–", "–")
    middle = np.median(norms, axis=0)
    raw = raw_weights(middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.median(norms[:, 0] / norms[:, 1]))
    return number(middle[0]), number(middle[1]), number(ratio), number(raw[0])
