"""The frequency plots: one command, drawn in three ways."""

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

__all__ = ["register_plot"]


def register_plot(app: typer.Typer, name: str, text: str, panels: int = 1) -> None:
    """Add the command ``name``, which draws with ``FrequencyResponse.plot_<name>``."""

    @app.command(name, help=text)
    @spec_options
    def plot(
        spec: SpecOptions,
        plant: PlantOption,
        ratio: RatioOption = 1.0,
        sensor_delay: SensorDelayOption = 0,
        output: OutputFile = None,
        as_json: JsonFlag = False,
    ) -> None:
        from gabactl.control.frequency import frequency_response
        from gabactl.control.linear import open_loop
        from gabactl.plants import parse_plant

        loop = open_loop(spec.resolve(), parse_plant(plant), ratio, sensor_delay)
        result = frequency_response(loop)
        picture(result, getattr(result, f"plot_{name}"), output, as_json, panels=panels)
