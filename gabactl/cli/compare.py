"""``gabactl compare``: several balancers in one scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._complete import scenario_names
from gabactl.cli._options import plot_option
from gabactl.cli._output import JsonFlag, show


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A .toml file or a bundled name.",
            autocompletion=scenario_names,
        ),
    ],
    balancers: Annotated[
        str | None,
        typer.Option(
            "--balancers",
            metavar="NAMES",
            help="Separated by commas: names in the scenario, methods, or package.module:factory "
            "(which runs that code).",
            show_default="the scenario's",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            metavar="N",
            help="How many seeds, 1 or more: 0 to N - 1.",
            show_default="the scenario's",
        ),
    ] = None,
    plot: Annotated[Path | None, plot_option("norms, weights and contributions")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare balancers on the same disturbance, noise and plant."""
    from gabactl.base.errors import InputError
    from gabactl.loops.compare import compare as run
    from gabactl.loops.scenarios import load_scenario

    setting = load_scenario(scenario)
    if seeds is not None and seeds < 1:
        raise InputError(f"--seeds {seeds} is below 1: give how many seeds to run")
    result = run(
        setting.choose(balancers) if balancers is not None else setting.balancers,
        setting.profile,
        setting.plant,
        noise=setting.noise,
        seeds=setting.seeds if seeds is None else range(seeds),
        tolerance=setting.tolerance,
    )
    if plot is not None:
        from gabactl.base import plots

        plots.save(result.figure(), plot)
    show(result, as_json)
