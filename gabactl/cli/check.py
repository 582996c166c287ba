"""``gabactl check``: a recorded run against its replay, its theory and its plant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gabactl.cli._complete import trace_names
from gabactl.cli._options import TRACES, SeedOption, last_option, plot_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options

if TYPE_CHECKING:
    from gabactl.plants import LogRatio


@spec_options
def check(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE...", help=TRACES, autocompletion=trace_names)
    ],
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest absolute error of a replay that is accepted.",
            show_default="1e-12, in float32 5e-6",
        ),
    ] = None,
    plant: Annotated[
        list[str] | None,
        typer.Option(
            "--plant",
            metavar="PLANT",
            help="For the forecasts: an excited trace, or its twin as well (give --plant twice), "
            "or log-ratio:rho=-0.1,a=0.9.",
            show_default="identified, where the trace itself is excited",
        ),
    ] = None,
    replay_only: Annotated[
        bool,
        typer.Option(
            "--replay-only",
            help="Compare with the replay, and no more: a run of any length, in bounded memory.",
        ),
    ] = False,
    last: Annotated[int | None, last_option("a million")] = None,
    seed: SeedOption = 0,
    plot: Annotated[Path | None, plot_option("replay errors and step response")] = None,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> int:
    """Hold recorded runs against their replay and against theory.

    Theory is the controller's, and an identified plant's: time constant, step response, time to
    the floor, saturated share and noise, measured beside predicted; and forecasts of the loop,
    which must beat the last value. Exit code 1 when a replay exceeds the tolerance; nothing else
    that is found changes it.
    """
    from dataclasses import replace

    from gabactl.runs.run import Run
    from gabactl.traces import MOST_STEPS
    from gabactl.validation.check import check as compare

    system, origin = (None, "given") if not plant else _plant(plant)
    results = []
    for path in traces:
        settings = spec.resolve_for(path)
        if replay_only:
            held = (
                path if last is None else Run.of(path, settings, last=last, most_steps=MOST_STEPS)
            )
            results.append(compare(held, settings, tolerance=tolerance))
            continue
        from gabactl.validation.prediction import predict

        run = Run.of(path, settings, last=last, most_steps=MOST_STEPS)
        result = compare(run, tolerance=tolerance)
        made = predict(run, plant=system, plant_from=origin, seed=seed)
        result = replace(result, prediction=made)
        results.append(result)
    if plot is not None:
        _draw(results, plot)
    show(results, as_json)
    return 1 if any(result.ok is False for result in results) else 0


def _plant(texts: list[str]) -> tuple[LogRatio, str]:
    """A plant from its description, from an excited trace, or from a pair of twins."""
    from gabactl.base.errors import InputError
    from gabactl.identification import identify, identify_paired
    from gabactl.plants import LogRatio, parse_plant
    from gabactl.traces import load_trace

    if len(texts) == 1 and ":" in texts[0]:
        found: Any = parse_plant(texts[0])
        if not isinstance(found, LogRatio):
            raise InputError(
                f"--plant {texts[0]}: forecasts take log-ratio:rho=...,a=...,delay=..."
            )
        return found, "given"
    if len(texts) > 2:
        raise InputError(f"--plant given {len(texts)} times: give one excited trace, or two twins")
    runs = [load_trace(Path(text)) for text in texts]
    fit = identify_paired(*runs, draws=199) if len(runs) == 2 else identify(runs[0], draws=199)
    low, high = fit.rho_interval
    return (
        LogRatio(fit.rho, fit.a, fit.delay),
        f"identified from {fit.name}: rho in [{low:.3f}, {high:.3f}]",
    )


def _draw(results: list[Any], path: Path) -> None:
    from matplotlib.figure import Figure

    from gabactl.base.plots import save, style

    columns = 1 if all(result.prediction is None for result in results) else 2
    with style():
        figure = Figure(figsize=(6.0 * columns, 3.2 * len(results)), layout="constrained")
        axes = figure.subplots(len(results), columns, squeeze=False)
        for row, result in zip(axes, results, strict=True):
            result.plot(row[0])
            row[0].set_title(result.source)
            if result.prediction is not None:
                result.prediction.plot(row[1])
        save(figure, path)
