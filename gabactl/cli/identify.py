"""``gabactl identify``: from excited training runs to the plant and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gabactl.cli._complete import trace_names
from gabactl.cli._options import TRACES, SeedOption, plot_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options


@spec_options
def identify(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE...", help=TRACES, autocompletion=trace_names)
    ],
    paired: Annotated[
        bool,
        typer.Option(
            "--paired", help="Twins, given one after the other: subtract the inverted run."
        ),
    ] = False,
    max_lag: Annotated[
        float | None,
        typer.Option(
            metavar="STEPS",
            help="Longest lag looked for, in steps.",
            show_default="the excitation's period",
        ),
    ] = None,
    max_delay: Annotated[
        int,
        typer.Option(metavar="STEPS", help="Largest extra delay looked for, in steps, 0 or more."),
    ] = 5,
    level: Annotated[
        float, typer.Option(metavar="X", help="Confidence of the intervals, between 0 and 1.")
    ] = 0.95,
    criterion: Annotated[
        str, typer.Option(metavar="NAME", help="What chooses the ARX orders: bic or aic.")
    ] = "bic",
    seed: SeedOption = 0,
    plot: Annotated[Path | None, plot_option("the response to the weights")] = None,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> None:
    """How gradient norms answer to the weights: sign, size, speed.

    Each with its interval. Needs runs with an excitation (gabactl cmapss train --excite prbs:amplitude=0.5,period=50,seed=1):
    data of a closed loop alone cannot tell the plant from the noise.
    """
    from gabactl.base.errors import InputError
    from gabactl.base.plots import save, style
    from gabactl.identification import Identification, identify_paired
    from gabactl.identification import identify as run
    from gabactl.traces import load_trace

    if paired and len(traces) % 2:
        raise InputError(
            f"--paired with {len(traces)} traces: give pairs, each run followed by its twin"
        )
    loaded = [load_trace(path) for path in traces]
    results: list[Identification] = []
    for i in range(0, len(loaded), 2 if paired else 1):
        options: dict[str, Any] = {
            "spec": spec.resolve(loaded[i].spec),
            "max_lag": max_lag,
            "max_delay": max_delay,
            "level": level,
            "criterion": criterion,
            "seed": seed,
        }
        if paired:
            results.append(identify_paired(loaded[i], loaded[i + 1], **options))
        else:
            results.append(run(loaded[i], **options))
    if plot is not None:
        from matplotlib.figure import Figure

        with style():
            figure = Figure(figsize=(7.0, 3.5 * len(results)), layout="constrained")
            for ax, result in zip(
                figure.subplots(len(results), squeeze=False)[:, 0], results, strict=True
            ):
                result.plot(ax)
                ax.set_title(f"{result.name}: {ax.get_title()}")
            save(figure, plot)
    show(results, as_json)
