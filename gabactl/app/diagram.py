"""The loop as a block diagram with live values on its wires."""

from __future__ import annotations

from html import escape
from typing import Any

import panel as pn

from gabactl.app.session import Stages
from gabactl.app.tab import Tab, button
from gabactl.app.text import number, pane, paragraph
from gabactl.law.authority import residual_ratio, saturation_ratio

#: Buttons, by name: the imbalance each sets (0 follows the run).
PRESETS: dict[str, float] = {
    "this run": 0.0,
    "equal": 1.0,
    "10x": 10.0,
    "500x": 500.0,
    "2,400x": 2400.0,
}

#: Tasks whose values are written on the wires.
_MOST_TASKS = 3


class DiagramTab(Tab):
    """Sensor, comparator, law, low-pass and floor around the training."""

    controls = ("ratio", "step")

    def build(self) -> tuple[Any, ...]:
        """Presets and the picture."""
        self.buttons = {
            name: button(
                name,
                ["preset", f"preset-{ratio:g}"],
                self.request,
                {"ratio": ratio},
                margin=3,
            )
            for name, ratio in PRESETS.items()
        }
        self.picture = pane("", css_classes=["diagram"])
        return pn.FlexBox(*self.buttons.values()), self.picture, self.note

    def update(self) -> None:
        """Write the values on the wires."""
        now = self.session.stages()
        spec = self.session.pair_spec if self.session.view.ratio > 0.0 else self.session.spec
        self.picture.object = svg(now, spec)
        for name, preset in self.buttons.items():
            here = PRESETS[name] == self.session.view.ratio
            preset.button_type = "primary" if here else "default"
        knee = saturation_ratio(spec)
        text = f"{now.where[:1].upper()}{now.where[1:]}. The floor is reached at an imbalance of {number(knee)}. "
        if self.session.view.ratio > 0.0:
            left = float(residual_ratio(spec, self.session.view.ratio))
            text += f"Settled there, the contributions stay {number(left, 5)} to 1 apart."
        elif now.share[0] != now.share[0]:
            text += "This step took no reading: warm-up, or between two readings."
        self.note.object = paragraph(text)


def svg(now: Stages, spec: Any) -> str:
    """The loop as an SVG picture, in HTML: blocks with the settings, wires with the values.

    Parameters
    ----------
    now : Stages
        Values on the wires; NaN shows as a dash. Those of the first three tasks are drawn.
    spec : GabaSpec
        Settings written in the blocks.

    Returns
    -------
    str
        A style sheet and one ``<svg>``; the names of tasks are escaped.

    Examples
    --------
    >>> from gabactl.app.session import Session
    >>> session = Session()
    >>> picture = svg(session.stages(), session.spec)
    >>> "β = 0.99" in picture, "m = 0.05, renormalise" in picture
    (True, True)
    """
    k = len(now.tasks)
    names = [escape(name[:12]) for name in now.tasks[:_MOST_TASKS]]

    def wire(x: int, y: int, title: str, values: Any, digits: int = 4) -> str:
        lines = [f'<text x="{x}" y="{y}" class="w t">{title}</text>']
        for i, name in enumerate(names):
            value = number(float(values[i]), digits)
            lines.append(
                f'<text x="{x}" y="{y + 17 * (i + 1)}" class="w">'
                f'{name} <tspan class="v">{value}</tspan></text>'
            )
        return "".join(lines)

    def block(x: int, y: int, w: int, title: str, below: str) -> str:
        return (
            f'<rect x="{x}" y="{y}" width="{w}" height="64" rx="8" class="b"/>'
            f'<text x="{x + w // 2}" y="{y + 27}" class="h">{title}</text>'
            f'<text x="{x + w // 2}" y="{y + 48}" class="s">{below}</text>'
        )

    gain = "Kₚ = 1" if k == 2 else f"Kₚ = 1/{k - 1}"
    law = gain if spec.law == "complement" else "inverse"
    every = "" if spec.interval == 1 else f", every {spec.interval}"
    mode = spec.floor_mode.replace("_", " ")
    values = f"average {number(float(now.ema[0]), 6)}, applied {number(float(now.weights[0]), 6)}"
    return (
        "<style>svg.loop{width:100%;min-width:680px;max-width:1100px;height:auto;"
        "font-family:var(--sans,system-ui,sans-serif)}"
        "div.scroll{overflow-x:auto}"
        ".b{fill:var(--panel,#f5f6f8);stroke:var(--accent,#0072b2);stroke-width:1.6}"
        ".p{fill:none;stroke:var(--wire,#5a6370);stroke-width:1.8}"
        ".a{fill:var(--wire,#5a6370)}"
        ".h{text-anchor:middle;font-size:15px;font-weight:600;fill:var(--ink,#1d2329)}"
        ".s{text-anchor:middle;font-size:13px;fill:var(--soft,#5a6370)}"
        ".w{font-size:13px;fill:var(--soft,#5a6370)}.t{font-weight:600}"
        ".v{fill:var(--ink,#1d2329);font-variant-numeric:tabular-nums}</style>"
        '<div class="scroll" tabindex="0"><svg class="loop" viewBox="0 0 1060 400" role="img" '
        f'aria-label="Closed loop of {escape(", ".join(now.tasks[:_MOST_TASKS]))}: {values}">'
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path class="a" d="M0 0 L10 5 L0 10 z"/>'
        "</marker></defs>"
        # Forward: training, sensor, comparator, law.
        '<path class="p" marker-end="url(#arrow)" d="M150 82 H278"/>'
        '<path class="p" marker-end="url(#arrow)" d="M410 82 H538"/>'
        '<path class="p" marker-end="url(#arrow)" d="M584 82 H738"/>'
        '<path class="p" marker-end="url(#arrow)" d="M560 26 V58"/>'
        # Down, and back: low-pass, floor, training.
        '<path class="p" marker-end="url(#arrow)" d="M900 82 H960 V302 H872"/>'
        '<path class="p" marker-end="url(#arrow)" d="M740 302 H632"/>'
        '<path class="p" marker-end="url(#arrow)" d="M430 302 H85 V116"/>'
        + block(20, 50, 130, "Training", "the plant")
        + block(280, 50, 130, "Sensor", "share of norms")
        + '<circle cx="560" cy="82" r="22" class="b"/>'
        '<text x="560" y="88" class="h">−</text>'
        f'<text x="574" y="36" class="w">reference 1/{k} = {number(1.0 / k)}</text>'
        + block(740, 50, 160, "Law", law)
        + block(740, 270, 130, "Low-pass", f"β = {spec.beta:g}{every}")
        + block(430, 270, 200, "Floor", f"m = {spec.floor:g}, {mode}")
        + wire(162, 132, "gradient norms g", now.grad_norms)
        + wire(424, 132, "shares s", now.share, 6)
        + wire(604, 132, "errors e = 1/K − s", now.error, 6)
        + wire(800, 152, "raw weights", now.raw, 6)
        + wire(644, 340, "average", now.ema, 6)
        + wire(220, 328, "applied weights w", now.weights, 6)
        + wire(100, 202, "contributions w g", now.contributions)
        + "</svg></div>"
    )
