"""The live loop: norms, ratio, weights and combined loss of a run, on one step axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from gabactl.app.figures import COLOURS, MUTED
from gabactl.app.tab import Tab
from gabactl.app.text import number, paragraph, table
from gabactl.law.authority import saturation_ratio, weight_bounds
from gabactl.loops.result import spread

#: Tasks drawn; a run may have more.
_MOST_TASKS = len(COLOURS)


class LiveTab(Tab):
    """Four panels of a recorded run replayed under the settings."""

    controls = ("step",)

    def build(self) -> None:
        """Norms, ratio, weights and loss over the steps."""
        self.norms = self.board("Gradient norms", "", "norm", log="y", height=200)
        self.ratio = self.board(
            "Ratio, loudest to quietest",
            "",
            "ratio",
            x_range=self.norms,
            y_range=(0.1, 1e4),
            log="y",
            height=180,
        )
        self.weights = self.board(
            "Weights", "", "weight", x_range=self.norms, y_range=(-0.02, 1.02), height=230
        )
        self.loss = self.board(
            "Combined loss Σ wᵢ Lᵢ", "step", "loss", x_range=self.norms, height=200
        )
        pairs = list(zip(self.session.trace.tasks, COLOURS, strict=False))
        self._norms = [self.norms.line(name, c, line_width=1) for name, c in pairs]
        self._ratio = self.ratio.line("", COLOURS[2], line_width=1)
        self._knees = [self.ratio.level(colour=COLOURS[1]) for _ in range(2)]
        self._applied = [self.weights.line(f"{name}, applied", c) for name, c in pairs]
        self._ema = [
            self.weights.line(f"{name}, average", c, "dotted", line_width=1.5) for name, c in pairs
        ]
        self._low, self._high = (self.weights.level(colour=COLOURS[3]) for _ in range(2))
        self._floor = self.weights.level("dotdash", colour=MUTED)
        self._loss = self.loss.line("", COLOURS[4], line_width=1)
        self._bands = [board.band() for board in self.boards]
        self._marks = [board.upright() for board in self.boards]
        for board in self.boards:
            board.hover("step")

    def update(self) -> None:
        """Draw the run under the present settings."""
        session = self.session
        trace, run, spec = session.trace, session.replayed, session.spec
        for i, line in enumerate(self._norms):
            line.set(trace.step, _positive(trace.grad_norms[:, i]))
        norms = _positive(trace.grad_norms)
        logs = spread(norms)
        if session.n_tasks == 2:
            logs = np.log(norms[:, 0] / norms[:, 1])
            self.ratio.figure.title.text = f"Ratio {trace.tasks[0]} / {trace.tasks[1]}"
        self._ratio.set(trace.step, np.exp(logs))
        for i in range(len(self._applied)):
            self._applied[i].set(trace.step, run.weights[:, i])
            self._ema[i].set(trace.step, run.ema[:, i])
        if trace.losses is None:
            self._loss.clear()
            self.loss.figure.title.text = "Combined loss: this run recorded no losses"
        else:
            loss = run.combined_loss(trace.losses)
            self._loss.set(trace.step, loss)
            self.loss.frame_data("y", loss)
            self.loss.figure.title.text = "Combined loss Σ wᵢ Lᵢ with these weights"
        bounds = weight_bounds(spec)
        self._low.location, self._high.location = bounds.lower, bounds.upper
        self._floor.location = spec.floor
        knee = saturation_ratio(spec)
        for line, place in zip(self._knees, (knee, 1.0 / knee), strict=True):
            line.location = place if np.isfinite(knee) else 1.0
            line.visible = bool(np.isfinite(knee)) and (place == knee or session.n_tasks == 2)
        self._frame(logs, knee)
        first = int(trace.step[0])
        self.norms.frame("x", first, int(trace.step[-1]))
        self.norms.frame_data("y", norms[:, : len(self._norms)], log=True)
        for band in self._bands:
            band.left, band.right = first, max(first, spec.warmup)
            band.visible = spec.warmup >= first
        for mark in self._marks:
            mark.location = int(trace.step[session.row])
        self._write()

    def _frame(self, logs: Any, knee: float) -> None:
        """A range of the ratio panel that shows the run, and the imbalance that the floor allows."""
        seen = logs[np.isfinite(logs)]
        reach = float(np.log(knee)) if np.isfinite(knee) else 0.0
        low, high = seen.min(initial=0.0), seen.max(initial=reach)
        self.ratio.frame("y", float(np.exp(low - 0.3)), float(np.exp(high + 0.3)))

    def _write(self) -> None:
        session = self.session
        run, row, trace = session.replayed, session.row, session.trace
        spec = session.spec
        bounds = weight_bounds(spec)
        saturated = run.saturated_fraction
        self.note.object = paragraph(
            f"{trace.source}: {len(trace):,} steps replayed through a controller with these "
            "settings. Grey band: warm-up. Dashed: bounds that the weights can really reach "
            f"({bounds.lower:.6f} and {bounds.upper:.6f}), and in the ratio panel the imbalance "
            f"that the floor allows ({number(saturation_ratio(spec))}). Dash-dotted: the floor "
            f"setting. The average is below the floor in {number(100 * saturated, 3)} % of the "
            "active steps"
            + (
                f"; {len(trace.tasks)} tasks, the first {_MOST_TASKS} drawn."
                if session.n_tasks > _MOST_TASKS
                else "."
            )
        )
        norms = trace.grad_norms[row]
        contributions = run.weights[row] * norms
        stages = (run.raw[row], run.ema[row], run.weights[row])
        rows = [
            (name, number(norms[i]), *(number(s[i], 6) for s in stages), number(contributions[i]))
            for i, name in enumerate(trace.tasks[:_MOST_TASKS])
        ]
        self.readout.object = table(
            rows,
            ("task", "gradient norm", "raw", "average", "applied weight", "contribution"),
            f"At step {int(trace.step[row]):,}",
        )


def _positive(norms: Any) -> Any:
    """Norms for a logarithmic axis: what is not positive is a gap."""
    return np.where(norms > 0, norms, np.nan)
