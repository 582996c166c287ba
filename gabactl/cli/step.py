"""``gabactl step``."""

from __future__ import annotations

from typing import Annotated

import typer

from gabactl.cli._output import JsonFlag
from gabactl.cli._picture import (
    OutputFile,
    PlantOption,
    RatioOption,
    SensorDelayOption,
    picture,
)
from gabactl.cli._spec import SpecOptions, spec_options


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    @spec_options
    def step(
        spec: SpecOptions,
        plant: PlantOption = "log-ratio:rho=0",
        size: Annotated[
            float, typer.Option("--size", metavar="X", help="Step of the log ratio, in nats.")
        ] = 1.0,
        steps: Annotated[
            int | None,
            typer.Option(
                "--steps",
                metavar="STEPS",
                help="How many steps, 1 or more.",
                show_default="what the slowest pole takes",
            ),
        ] = None,
        ramp: Annotated[
            bool, typer.Option("--ramp", help="A ramp of --size per 1,000 steps instead.")
        ] = False,
        ratio: RatioOption = 1.0,
        sensor_delay: SensorDelayOption = 0,
        output: OutputFile = None,
        as_json: JsonFlag = False,
    ) -> None:
        """Answer of the linear loop to a step or ramp of imbalance."""
        from gabactl.control.linear import open_loop
        from gabactl.control.responses import ramp_response, step_response
        from gabactl.plants import parse_plant

        loop = open_loop(spec.resolve(), parse_plant(plant), ratio, sensor_delay)
        if ramp:
            result = ramp_response(loop, size / 1000.0, steps)
        else:
            result = step_response(loop, size, steps)
        picture(result, result.plot, output, as_json)
