"""``gabactl sweep``: many loops over a grid or Sobol samples of settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._options import ResumeFlag, output_option, plot_option, workers_option
from gabactl.cli._output import JsonFlag, show


def sweep(
    grid: Annotated[str, typer.Argument(metavar="GRID", help="A .toml file or a bundled name.")],
    output: Annotated[Path, output_option("Folder of the results.", "DIR")],
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="local, dask or ray; the latter two come with gabactl[cluster].",
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="Address of a running Dask or Ray cluster.",
            show_default="one of its own, here",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Compute with PyTorch there: cpu or cuda; it comes with gabactl[torch].",
            show_default="compiled for the CPU",
        ),
    ] = None,
    x: Annotated[
        str | None,
        typer.Option("--x", metavar="NAME", help="Axis across the plot.", show_default="the first"),
    ] = None,
    y: Annotated[
        str | None,
        typer.Option("--y", metavar="NAME", help="Axis up the plot.", show_default="the second"),
    ] = None,
    value: Annotated[
        str,
        typer.Option(
            "--value",
            metavar="NAME",
            help="Column to plot, such as final_log_spread or stable.",
        ),
    ] = "settling_contributions",
    workers: Annotated[int, workers_option("Processes")] = 2,
    resume: ResumeFlag = False,
    plot: Annotated[Path | None, plot_option("a heat map over two axes")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run many loops, in chunks that survive a crash.

    The result is a Parquet data set.
    """
    from gabactl.loops.sweeps import load_sweep, run_sweep

    result = run_sweep(
        load_sweep(grid),
        output,
        engine=engine,  # type: ignore[arg-type]
        address=address,
        workers=workers,
        resume=resume,
        progress=sys.stderr.isatty(),
        device=device,
    )
    if plot is not None:
        from gabactl.base import plots

        plots.save(result.plot(x=x, y=y, value=value).figure, plot)
    show(result, as_json)
