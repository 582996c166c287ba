"""``gabactl identify``: from excited training runs to the plant and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError
from gabactl.cli._fields import Row
from gabactl.cli._options import options, plot_row
from gabactl.cli._output import canvas, show
from gabactl.cli._spec import SpecOptions, spec_options


@spec_options
@options(
    paired=Row("", "Twins, given one after the other: subtract the inverted run."),
    max_lag=Row("STEPS", "Longest lag looked for, in steps.", "the excitation's period"),
    max_delay=Row("STEPS", "Largest extra delay looked for, in steps, 0 or more."),
    level=Row("X", "Confidence of the intervals, between 0 and 1."),
    criterion=Row("NAME", "What chooses the ARX orders: bic or aic."),
    plot=plot_row("the response to the weights"),
)
def identify(
    traces: list[Path],
    paired: bool = False,
    max_lag: float | None = None,
    max_delay: int = 5,
    level: float = 0.95,
    criterion: str = "bic",
    seed: int = 0,
    plot: Path | None = None,
    as_json: bool = False,
    *,
    spec: SpecOptions,
) -> None:
    """How gradient norms answer to the weights: sign, size, speed.

    Each with its interval. Needs runs with an excitation (gabactl cmapss train --excite prbs:amplitude=0.5,period=50,seed=1):
    data of a closed loop alone cannot tell the plant from the noise.
    """
    from gabactl.identification import identify as run
    from gabactl.identification import identify_paired
    from gabactl.traces import load_trace

    if paired and len(traces) % 2:
        raise InputError(
            f"--paired with {len(traces)} traces: give pairs, each run followed by its twin"
        )
    loaded = [load_trace(path) for path in traces]
    options: dict[str, Any] = {
        "max_lag": max_lag,
        "max_delay": max_delay,
        "level": level,
        "criterion": criterion,
        "seed": seed,
    }
    results = [
        (identify_paired if paired else run)(
            *loaded[i : i + 1 + paired], spec=spec.resolve(loaded[i].spec), **options
        )
        for i in range(0, len(loaded), 1 + paired)
    ]
    if plot is not None:
        with canvas(plot, len(results), size=(7.0, 3.5 * len(results))) as axes:
            for (ax,), result in zip(axes, results, strict=True):
                result.plot(ax)
                ax.set_title(f"{result.name}: {ax.get_title()}")
    show(results, as_json)
