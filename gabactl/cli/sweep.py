"""``gabactl sweep``: many loops over a grid or Sobol samples of settings."""

from __future__ import annotations

import sys
from pathlib import Path

from gabactl.cli._fields import Argument, Row
from gabactl.cli._options import options, output_row, plot_row, workers_row
from gabactl.cli._output import show


@options(
    grid=Argument("GRID", "A .toml file or a bundled name."),
    output=output_row("Folder of the results.", "DIR"),
    engine=Row("NAME", "local, dask or ray; the latter two come with gabactl[cluster]."),
    address=Row("ADDRESS", "Address of a running Dask or Ray cluster.", "one of its own, here"),
    device=Row(
        "NAME",
        "Compute with PyTorch there: cpu or cuda; it comes with gabactl[torch].",
        "compiled for the CPU",
    ),
    x=Row("NAME", "Axis across the plot.", "the first"),
    y=Row("NAME", "Axis up the plot.", "the second"),
    value=Row("NAME", "Column to plot, such as final_log_spread or stable."),
    workers=workers_row("Processes"),
    plot=plot_row("a heat map over two axes"),
)
def sweep(
    grid: str,
    output: Path,
    engine: str = "local",
    address: str | None = None,
    device: str | None = None,
    x: str | None = None,
    y: str | None = None,
    value: str = "settling_contributions",
    workers: int = 2,
    resume: bool = False,
    plot: Path | None = None,
    as_json: bool = False,
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
    show(result, as_json, plot, x=x, y=y, value=value)
