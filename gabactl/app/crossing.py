"""Where the curves cross: contributions of both tasks over the weight of the first."""

from __future__ import annotations

import numpy as np

from gabactl.app.figures import COLOURS, MUTED
from gabactl.app.tab import Tab
from gabactl.app.text import number, paragraph, table
from gabactl.law.authority import residual_ratio, saturation_ratio, weight_bounds

#: Weights at which the contributions are drawn: fine near both ends, where they matter.
_ENDS = np.geomspace(1e-5, 0.5, 150)
_WEIGHTS = np.concatenate([_ENDS, 1.0 - _ENDS[::-1]])
_RATIOS = np.geomspace(0.1, 10_000.0, 301)


class CrossingTab(Tab):
    """lambda g_1 against (1 - lambda) g_2, and what the floor leaves."""

    controls = ("ratio", "step")

    def build(self) -> None:
        """Contributions, and what is left of the imbalance."""
        self.curves = self.board(
            "Contributions over the weight of task 1",
            "weight λ of task 1",
            "contribution",
            height=340,
            x_range=(0.0, 1.0),
            y_range=(1e-3, 1e3),
            log="y",
        )
        self.left = self.board(
            "Contribution ratio left, once settled",
            "imbalance g₁/g₂",
            "left over",
            height=260,
            log="xy",
        )
        self._first = self.curves.line("λ g₁", COLOURS[0])
        self._second = self.curves.line("(1 − λ) g₂", COLOURS[1])
        self._cross = self.curves.dots("crossing: raw weight", COLOURS[2], size=12)
        self._applied = self.curves.dots("applied weight", COLOURS[3], "diamond", 14)
        self._mark = self.curves.upright(colour=COLOURS[3])
        self._bands = [self.curves.band(left=0.0), self.curves.band(right=1.0)]
        self._left = self.left.line("left over", COLOURS[0])
        self._here = self.left.dots("now", COLOURS[3], "diamond", 14)
        self._knee = self.left.upright("dashed", COLOURS[1])
        self.left.level("dotted", MUTED, at=1.0)

    def update(self) -> None:
        """Draw the crossing at the imbalance looked at."""
        session = self.session
        now, spec = session.stages(), session.pair_spec
        bounds = weight_bounds(spec)
        self._bands[0].right, self._bands[1].left = bounds.lower, bounds.upper
        residual = residual_ratio(spec, _RATIOS)
        self._left.set(_RATIOS, residual)
        self.left.frame("x", float(_RATIOS[0]), float(_RATIOS[-1]))
        self.left.frame_data("y", residual, [1.0], log=True)
        knee = saturation_ratio(spec)
        self._knee.visible = bool(np.isfinite(knee))
        self._knee.location = knee if self._knee.visible else 1.0
        norms = now.grad_norms[:2]
        if session.n_tasks != 2 and session.view.ratio == 0.0:
            self._blank("This picture is for two tasks, and the run has more: set an imbalance.")
            return
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            self._blank(
                f"No reading to draw at {now.where} (warm-up, or between readings): choose a "
                "later step, or set an imbalance."
            )
            return
        self._first.set(_WEIGHTS, _WEIGHTS * norms[0])
        self._second.set(_WEIGHTS, (1.0 - _WEIGHTS) * norms[1])
        crossing = now.raw[0]
        level = crossing * norms[0]
        self.curves.frame("y", float(level) / 30.0, 1.5 * float(norms.max()))
        self._cross.set([crossing], [crossing * norms[0]])
        self._applied.set([now.weights[0]] * 2, now.contributions)
        self._mark.location, self._mark.visible = now.weights[0], True
        ratio = norms[0] / norms[1]
        left = now.contributions[0] / now.contributions[1]
        self._here.set([ratio], [left])
        first, second = now.tasks[:2]
        self.note.object = paragraph(
            f"{now.where[:1].upper()}{now.where[1:]}. The raw weight is where both contributions are equal. Grey: weights "
            "that the floor keeps out of reach. The imbalance slider at its left end follows the run."
        )
        self.readout.object = table(
            [
                (
                    "gradient norms",
                    f"{first} {number(norms[0])}, {second} {number(norms[1])}: "
                    f"ratio {number(ratio)}",
                ),
                ("raw weight (crossing)", number(crossing, 6)),
                ("average", number(now.ema[0], 6)),
                ("applied weight", number(now.weights[0], 6)),
                ("weights within reach", f"{bounds.lower:.6f} to {bounds.upper:.6f}"),
                ("imbalance the floor allows", number(knee)),
                ("contribution ratio left over", f"{number(left, 5)} (1 is balance)"),
            ]
        )

    def _blank(self, why: str) -> None:
        for line in (self._first, self._second, self._cross, self._applied, self._here):
            line.clear()
        self._mark.visible = False
        self.note.object = paragraph(why)
        self.readout.object = ""
