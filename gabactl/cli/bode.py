"""``gabactl bode``."""

from __future__ import annotations

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
    def bode(
        spec: SpecOptions,
        plant: PlantOption,
        ratio: RatioOption = 1.0,
        sensor_delay: SensorDelayOption = 0,
        output: OutputFile = None,
        as_json: JsonFlag = False,
    ) -> None:
        """Bode plot of the open loop."""
        from gabactl.frequency import frequency_response
        from gabactl.linear import open_loop
        from gabactl.plants import parse_plant

        loop = open_loop(spec.resolve(), parse_plant(plant), ratio, sensor_delay)
        result = frequency_response(loop)
        picture(result, result.plot_bode, output, as_json, panels=2)
