"""GABA against GradNorm: where each would put the weights, and how each gets there."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource
from numpy.typing import NDArray

from gabactl.app.figures import COLOURS, MUTED, Board, plain_powers
from gabactl.app.session import Session
from gabactl.app.text import number, pane, paragraph, table
from gabactl.balancers import GradNorm
from gabactl.balancers.gradnorm import target_weights
from gabactl.law.spec import GabaSpec
from gabactl.loops.profiles import Profile, published_disturbance
from gabactl.runs.replay import replay

__all__ = ["GradNormTab", "disturbance"]

#: Steps each level of the disturbance is held: 5,000 in all.
_HOLDS = (1500, 1500, 2000)
#: Norm of the quiet task, as in the published comparison at g = (5, 0.01).
_QUIET = 0.01
#: Steps in which the losses go most of their way.
_LOSS_STEPS = 800.0


@lru_cache(maxsize=8)
def disturbance(progress_1: float, progress_2: float) -> Profile:
    """The published 50x, 2,400x, 500x, while the losses fall to these shares of their start.

    Parameters
    ----------
    progress_1, progress_2 : float, positive
        Losses in the long run over their initial values.

    Examples
    --------
    >>> disturbance(0.5, 0.5).steps
    5000
    """
    profile = published_disturbance(_HOLDS, quiet_norm=_QUIET)
    return profile.with_losses(1.0, [progress_1, progress_2], _LOSS_STEPS)


@lru_cache(maxsize=8)
def _gaba_weights(spec: GabaSpec) -> NDArray[np.float64]:
    """GABA's weights under the disturbance: it does not look at the losses."""
    weights = replay(spec, disturbance(1.0, 1.0).norms).weights
    weights.setflags(write=False)
    return weights


class GradNormTab:
    """Bars of where the weights would settle, and both trajectories under one disturbance.

    Parameters
    ----------
    session : Session
        What is looked at.
    """

    controls = ("ratio", "alpha", "progress_1", "progress_2", "variant")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.bars = Board(
            "Weight of task 1, settled",
            "",
            "weight",
            height=250,
            x_range=["GABA raw", "GABA applied", "GradNorm target"],
            y_axis_type="log",
            y_range=(1e-4, 1.3),
        )
        self.bars.figure.yaxis.formatter = plain_powers()
        self._source = ColumnDataSource({"name": [], "top": [], "colour": []})
        self.bars.figure.vbar(
            x="name",
            top="top",
            bottom=1e-4,
            width=0.55,
            color="colour",
            source=self._source,
            name="bars",
        )
        self.weights = Board(
            "Weight of task 1 at 50x, 2,400x, 500x", "", "weight", height=250, y_range=(-0.5, 1.1)
        )
        self.left = Board(
            "Largest over smallest contribution",
            "step",
            "ratio",
            height=220,
            x_range=self.weights.figure.x_range,
            y_axis_type="log",
        )
        self.left.figure.yaxis.formatter = plain_powers()
        self.boards = [self.bars, self.weights, self.left]
        self._gaba = self.weights.line("GABA", COLOURS[0])
        self._gradnorm = self.weights.line("GradNorm", COLOURS[1], line_width=1)
        self._gaba_left = self.left.line("GABA, left over", COLOURS[0])
        self._gradnorm_left = self.left.line("GradNorm, left over", COLOURS[1], line_width=1)
        zero = self.weights.level("dotted", MUTED)
        zero.location = 0.0
        self.note = pane()
        self.readout = pane()
        self.view = pn.Column(
            self.note,
            *(board.view for board in self.boards),
            self.readout,
            sizing_mode="stretch_width",
        )

    def update(self) -> None:
        """Compute both and draw them."""
        view, spec = self.session.view, self.session.pair_spec
        progress = np.array([view.progress_1, view.progress_2])
        rows: list[tuple[str, ...]] = []
        if self.session.n_tasks == 2 or view.ratio > 0.0:
            now = self.session.stages()
            target = target_weights(now.grad_norms, progress, np.ones(2), view.alpha)
            values = [now.raw[0], now.weights[0], target[0]]
            self._source.data = {
                "name": ["GABA raw", "GABA applied", "GradNorm target"],
                "top": [v if np.isfinite(v) else 1e-4 for v in values],
                "colour": [COLOURS[5], COLOURS[0], COLOURS[1]],
            }
            rows = [
                (f"weights, {now.where}", "task 1", "task 2"),
                ("GABA raw", number(now.raw[0], 4), number(now.raw[1], 6)),
                ("GABA applied", number(now.weights[0], 4), number(now.weights[1], 6)),
                ("GradNorm target", number(target[0], 4), number(target[1], 6)),
            ]
        rule = GradNorm(view.variant, alpha=view.alpha)  # type: ignore[arg-type]
        profile = disturbance(view.progress_1, view.progress_2)
        steps = np.arange(1, profile.steps + 1)
        gaba = _gaba_weights(spec)
        learnt = rule.run(profile.norms, profile.losses)
        self._gaba.set(steps, gaba[:, 0])
        # Set against GABA's, which sum to 1, GradNorm's (which start at 1 each) are halved.
        self._gradnorm.set(steps, learnt[:, 0] / 2.0)
        low, high = min(-0.05, learnt[:, 0].min() / 2.0), max(1.05, learnt[:, 0].max() / 2.0)
        self.weights.frame("x", 1, profile.steps)
        self.weights.frame("y", float(max(low, -20.0)), float(min(high, 20.0)))
        over = [_left_over(weights * profile.norms) for weights in (gaba, learnt)]
        for line, ratio in zip((self._gaba_left, self._gradnorm_left), over, strict=True):
            line.set(steps, ratio)
        self.left.frame_data("y", *over, log=True)
        negative = float((learnt < 0).any(axis=1).mean())
        rows += [
            ("over the disturbance", "GABA", "GradNorm"),
            ("largest weight of task 1", number(gaba[:, 0].max()), number(learnt[:, 0].max())),
            ("smallest", number(gaba[:, 0].min()), number(learnt[:, 0].min())),
            ("steps with a negative weight", "0 %", f"{100 * negative:.1f} %"),
            (
                "relay step at the end (task 1, task 2)",
                "–",
                ", ".join(number(x) for x in rule.relay_step(profile.norms[-1])),
            ),
        ]
        self.note.object = paragraph(
            "GABA looks at gradient norms alone: the progress sliders do not move it. GradNorm "
            "gives the task that lags MORE weight as α grows, and moves by a fixed relay step: a "
            "step larger than the weight makes the weight negative. GradNorm's weights start at 1 "
            "each; they are drawn halved."
        )
        self.readout.object = table(rows)


def _left_over(contributions: np.ndarray) -> np.ndarray:
    from gabactl.loops.result import spread

    ratio = np.exp(spread(contributions))
    return np.asarray(np.where(np.isfinite(ratio), ratio, np.nan))
