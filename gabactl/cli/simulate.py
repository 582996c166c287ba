"""``gabactl simulate``: one balancer in one scenario, or several side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gabactl.base.errors import InputError
from gabactl.cli._complete import scenario_names
from gabactl.cli._fields import Argument, Row
from gabactl.cli._options import options, output_row, plot_row
from gabactl.cli._output import say, show
from gabactl.cli._spec import SpecOptions, spec_options

if TYPE_CHECKING:
    from gabactl.balancers import Balancer
    from gabactl.loops.scenarios import Scenario


@spec_options
@options(
    scenario=Argument("[SCENARIO]", "A .toml file or a bundled name.", offer=scenario_names),
    balancer=Row(
        "NAME",
        "A name in the scenario, a method, or package.module:factory (which runs that code).",
        "the scenario's first",
    ),
    balancers=Row("NAMES", "Compare several, separated by commas; all: the scenario's."),
    seeds=Row("N", "Of a comparison: how many seeds, 1 or more (0 to N - 1).", "the scenario's"),
    seed=Row("N", "Seed of everything random, 0 or more.", "the scenario's first"),
    output=output_row("Write every step of one balancer: .arrow or .csv."),
    plot=plot_row("norms, weights and contributions"),
    names=Row("", "Name the bundled scenarios.", option="--list"),
)
def simulate(
    scenario: str | None = None,
    balancer: str | None = None,
    balancers: str | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    output: Path | None = None,
    plot: Path | None = None,
    names: bool = False,
    as_json: bool = False,
    *,
    spec: SpecOptions,
) -> None:
    """Run one balancer through a disturbance, or compare several.

    Several see the same disturbance, noise and plant. GABA options override the scenario's.
    """
    from gabactl.loops.scenarios import bundled_scenarios, load_scenario

    if names:
        titles = {name: load_scenario(file).title for name, file in bundled_scenarios().items()}
        width = max(map(len, titles), default=0)
        lines = (f"{name.ljust(width)}  {title}" for name, title in titles.items())
        say("\n".join(lines), {"scenarios": titles}, as_json)
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
