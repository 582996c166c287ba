"""GABA against GradNorm: where each would put the weights, and how each gets there."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from bokeh.models import ColumnDataSource
from numpy.typing import NDArray

from gabactl.app.figures import COLOURS, MUTED
from gabactl.app.tab import Tab
from gabactl.app.text import number, paragraph, table
from gabactl.balancers import GradNorm
from gabactl.balancers.gradnorm import target_weights
from gabactl.law.spec import GabaSpec
from gabactl.loops.profiles import Profile, published_disturbance
from gabactl.runs.replay import replay

#: Steps each level of the disturbance is held: 5,000 in all.
_HOLDS = (1500, 1500, 2000)
#: Norm of the quiet task, as in the published comparison at g = (5, 0.01).
_QUIET = 0.01
#: The bars and their colours.
_BARS = {"GABA raw": COLOURS[5], "GABA applied": COLOURS[0], "GradNorm target": COLOURS[1]}
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


class GradNormTab(Tab):
    """Bars of where the weights would settle, and both trajectories under one disturbance."""

    controls = ("ratio", "alpha", "progress_1", "progress_2", "variant")

    def build(self) -> None:
        """Bars and trajectories."""
        self.bars = self.board(
            "Weight of task 1, settled",
            "",
            "weight",
            height=250,
            x_range=[*_BARS],
            y_range=(1e-4, 1.3),
            log="y",
        )
        self._source = ColumnDataSource({"name": [], "top": [], "colour": []})
        style = {"bottom": 1e-4, "width": 0.55, "color": "colour", "name": "bars"}
        self.bars.figure.vbar(x="name", top="top", source=self._source, **style)
        self.weights = self.board(
            "Weight of task 1 at 50x, 2,400x, 500x", "", "weight", height=250, y_range=(-0.5, 1.1)
        )
        self.left = self.board(
            "Largest over smallest contribution", "step", "ratio", x_range=self.weights, log="y"
        )
        self._gaba = self.weights.line("GABA", COLOURS[0])
        self._gradnorm = self.weights.line("GradNorm", COLOURS[1], line_width=1)
        self._gaba_left = self.left.line("GABA, left over", COLOURS[0])
        self._gradnorm_left = self.left.line("GradNorm, left over", COLOURS[1], line_width=1)
        self.weights.level("dotted", MUTED)

    def update(self) -> None:
        """Compute both and draw them."""
        view, spec = self.session.view, self.session.pair_spec
        progress = np.array([view.progress_1, view.progress_2])
        rows: list[tuple[str, ...]] = []
        if self.session.n_tasks == 2 or view.ratio > 0.0:
            now = self.session.stages()
            target = target_weights(now.grad_norms, progress, np.ones(2), view.alpha)
            settled = dict(zip(_BARS, (now.raw, now.weights, target), strict=True))
            self._source.data = {
                "name": [*_BARS],
                "top": [pair[0] if np.isfinite(pair[0]) else 1e-4 for pair in settled.values()],
                "colour": [*_BARS.values()],
            }
            rows = [(f"weights, {now.where}", "task 1", "task 2")]
            rows += [(name, number(a, 4), number(b, 6)) for name, (a, b) in settled.items()]
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
