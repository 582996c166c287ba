"""Draw the picture of the README from a bundled run: docs/_static/first-screen.svg.

Run it as ``python simulations/first_screen.py``.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gabactl.base import plots
from gabactl.law.spec import GabaSpec
from gabactl.runs.run import Run
from gabactl.runs.saturation import saturation
from gabactl.traces import load_bundled

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "_static" / "first-screen.svg"


def main() -> None:
    """Draw it."""
    trace = load_bundled("fd001-gaba")
    spec = trace.spec or GabaSpec()
    seen = Run(trace, spec)
    judged, run = saturation(seen), seen.replay
    positive = (trace.grad_norms > 0).all(axis=1)
    with plots.style():
        figure = Figure(figsize=(9.0, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        ratio = np.divide(*trace.grad_norms[positive].T)
        left.plot(trace.step[positive], ratio, linewidth=0.5, rasterized=False, label="measured")
        left.axhline(
            judged.saturation_ratio,
            color=plots.PALETTE[1],
            label=f"all that a floor of {spec.floor:g} allows: {judged.saturation_ratio:.0f}x",
        )
        left.set(yscale="log", xlabel="step", title="gradient norm ratio, C-MAPSS FD001")
        left.legend(loc="lower right")
        for i, name in enumerate(trace.tasks):
            color = plots.PALETTE[i]
            right.plot(trace.step, run.weights[:, i], color=color, label=f"{name}: applied")
            right.plot(
                trace.step, run.ema[:, i], color=color, linestyle=":", label=f"{name}: average"
            )
        right.set(
            xlabel="step",
            ylim=(0, 1),
            title=f"weights: at the floor for {judged.pinned_fraction:.0%} of the run",
        )
        right.legend(loc="center right")
        figure.savefig(OUTPUT, metadata={"Date": None})
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
