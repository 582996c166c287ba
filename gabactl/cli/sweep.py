"""``gabactl sweep``: many loops over a grid or Sobol samples of settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._output import JsonFlag, show


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sweep)


def sweep(
    grid: Annotated[str, typer.Argument(metavar="GRID", help="A .toml file or a bundled name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    engine: Annotated[
        str, typer.Option("--engine", help="local, dask or ray (the latter: gabactl[cluster]).")
    ] = "local",
    address: Annotated[
        str | None, typer.Option("--address", help="Of a running Dask or Ray cluster.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Worker processes.")] = 2,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Compute with PyTorch there, such as cuda: gabactl[torch]."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier run stopped.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw a heat map of two axes here.")
    ] = None,
    x: Annotated[str | None, typer.Option("--x", help="Axis across. Default: the first.")] = None,
    y: Annotated[str | None, typer.Option("--y", help="Axis up. Default: the second.")] = None,
    value: Annotated[
        str, typer.Option("--value", help="Column to draw, such as final_log_spread or stable.")
    ] = "settling_contributions",
    as_json: JsonFlag = False,
) -> None:
    """Run many loops in chunks that survive a crash, into a Parquet data set."""
    from gabactl.sweep import load_sweep, run_sweep

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
        from gabactl import plots

        plots.save(result.plot(x=x, y=y, value=value).figure, plot)
    show(result, as_json)
