"""``gabactl simulate``: one balancer in one scenario, or several side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gabactl.base.errors import InputError
from gabactl.cli._complete import scenario_names
from gabactl.cli._options import output_option, plot_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options

if TYPE_CHECKING:
    from gabactl.balancers import Balancer
    from gabactl.loops.scenarios import Scenario


@spec_options
def simulate(
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
            metavar="NAME",
            help="A name in the scenario, a method, or package.module:factory (which runs that "
            "code).",
            show_default="the scenario's first",
        ),
    ] = None,
    balancers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Compare several, separated by commas; all: the scenario's.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Of a comparison: how many seeds, 1 or more (0 to N - 1).",
            show_default="the scenario's",
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
    output: Annotated[
        Path | None, output_option("Write every step of one balancer: .arrow or .csv.")
    ] = None,
    plot: Annotated[Path | None, plot_option("norms, weights and contributions")] = None,
    names: Annotated[bool, typer.Option("--list", help="Name the bundled scenarios.")] = False,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> None:
    """Run one balancer through a disturbance, or compare several.

    Several see the same disturbance, noise and plant. GABA options override the scenario's.
    """
    from gabactl.loops.scenarios import load_scenario

    if names:
        _list(as_json)
        return
    if scenario is None:
        raise InputError("no SCENARIO was given: name a .toml file, or see gabactl simulate --list")
    setting = load_scenario(scenario)
    if balancers is None:
        if seeds is not None:
            raise InputError(f"--seeds {seeds} is of a comparison: add --balancers, or give --seed")
        result = _one(setting, balancer, seed, spec)
    else:
        for name, value in (("--balancer", balancer), ("--seed", seed), ("-o", output)):
            if value is not None:
                raise InputError(f"{name} {value} is of one balancer: leave --balancers out, or it")
        result = _several(setting, balancers, seeds, spec)
    if plot is not None:
        from gabactl.base import plots

        plots.save(result.figure(), plot)
    if output is not None:
        from gabactl.loops.trajectories import write_trajectory

        write_trajectory(result, output)
    show(result, as_json)


def _one(setting: Scenario, balancer: str | None, seed: int | None, spec: SpecOptions) -> Any:
    from gabactl.loops.simulate import simulate as run

    name = balancer or next(iter(setting.balancers))
    chosen = setting.choose(name)
    if len(chosen) > 1:
        raise InputError(f"--balancer {name}: several are compared with --balancers")
    (rule,) = _with_options(chosen, spec).values()
    return run(
        rule,
        setting.profile,
        setting.plant,
        noise=setting.noise,
        seed=setting.seeds[0] if seed is None else seed,
        tolerance=setting.tolerance,
    )


def _several(setting: Scenario, balancers: str, seeds: int | None, spec: SpecOptions) -> Any:
    from gabactl.loops.compare import compare

    if seeds is not None and seeds < 1:
        raise InputError(f"--seeds {seeds} is below 1: give how many seeds to run")
    chosen = setting.balancers if balancers == "all" else setting.choose(balancers)
    return compare(
        _with_options(chosen, spec),
        setting.profile,
        setting.plant,
        noise=setting.noise,
        seeds=setting.seeds if seeds is None else range(seeds),
        tolerance=setting.tolerance,
    )


def _with_options(chosen: Mapping[str, Balancer], spec: SpecOptions) -> dict[str, Balancer]:
    """Every GABA among them under the settings given."""
    from gabactl.balancers import Gaba

    if spec and not any(isinstance(rule, Gaba) for rule in chosen.values()):
        raise InputError(f"GABA options do not apply to {', '.join(chosen)}: leave them out")
    return {
        name: Gaba(spec.resolve(rule.spec)) if spec and isinstance(rule, Gaba) else rule
        for name, rule in chosen.items()
    }


def _list(as_json: bool) -> None:
    from gabactl.loops.scenarios import bundled_scenarios, load_scenario

    titles = {name: load_scenario(file).title for name, file in bundled_scenarios().items()}
    if as_json:
        show({"scenarios": titles}, True)
        return
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        print(f"{name.ljust(width)}  {title}")
