"""``gabactl simulate``: one balancer in one scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._complete import scenario_names
from gabactl.cli._options import output_option, plot_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(spec_options(simulate))


def simulate(
    spec: SpecOptions,
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[SCENARIO]",
            help="A .toml file or a bundled name.",
            autocompletion=scenario_names,
        ),
    ] = None,
    balancer: Annotated[
        str | None,
        typer.Option(
            "--balancer",
            metavar="NAME",
            help="A name in the scenario, a method, or package.module:factory (which runs that "
            "code).",
            show_default="the scenario's first",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of everything random, 0 or more.",
            show_default="the scenario's first",
        ),
    ] = None,
    output: Annotated[Path | None, output_option("Write every step: .arrow or .csv.")] = None,
    plot: Annotated[Path | None, plot_option("norms, weights and contributions")] = None,
    names: Annotated[bool, typer.Option("--list", help="Name the bundled scenarios.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run one balancer through a disturbance. GABA options override the scenario's."""
    from gabactl.balancers import Gaba
    from gabactl.base.errors import InputError
    from gabactl.loops.scenarios import load_scenario
    from gabactl.loops.simulate import simulate as run

    if names:
        _list(as_json)
        return
    if scenario is None:
        raise InputError("no SCENARIO was given: name a .toml file, or see gabactl simulate --list")
    setting = load_scenario(scenario)
    name = balancer or next(iter(setting.balancers))
    rule = setting.choose(name)[name]
    if spec.given or spec.file:
        if not isinstance(rule, Gaba):
            raise InputError(f"GABA options do not apply to {name}: leave them out")
        rule = Gaba(spec.resolve(rule.spec))
    result = run(
        rule,
        setting.profile,
        setting.plant,
        noise=setting.noise,
        seed=setting.seeds[0] if seed is None else seed,
        tolerance=setting.tolerance,
    )
    if plot is not None:
        from gabactl.base import plots

        plots.save(result.figure(), plot)
    if output is not None:
        from gabactl.loops.trajectories import write_trajectory

        write_trajectory(result, output)
    show(result, as_json)


def _list(as_json: bool) -> None:
    from gabactl.loops.scenarios import bundled_scenarios, load_scenario

    titles = {name: load_scenario(file).title for name, file in bundled_scenarios().items()}
    if as_json:
        show({"scenarios": titles}, True)
        return
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        print(f"{name.ljust(width)}  {title}")
