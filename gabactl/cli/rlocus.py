"""``gabactl rlocus``."""

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
    def rlocus(
        spec: SpecOptions,
        plant: PlantOption = "log-ratio:rho=-1",
        over: Annotated[
            str, typer.Option("--over", metavar="NAME", help="What varies: rho, beta or interval.")
        ] = "rho",
        low: Annotated[
            float | None, typer.Option("--from", metavar="X", help="First value; needs --to.")
        ] = None,
        high: Annotated[
            float | None, typer.Option("--to", metavar="X", help="Last value; needs --from.")
        ] = None,
        ratio: RatioOption = 1.0,
        sensor_delay: SensorDelayOption = 0,
        output: OutputFile = None,
        as_json: JsonFlag = False,
    ) -> None:
        """Closed-loop poles as rho, beta or the interval varies."""
        import numpy as np

        from gabactl.base.errors import InputError
        from gabactl.control.frequency import root_locus
        from gabactl.plants import LogRatio, parse_plant

        model = parse_plant(plant)
        if not isinstance(model, LogRatio):
            raise InputError(f"plant {plant!r}: the root locus takes log-ratio plants")
        if (low is None) != (high is None):
            raise InputError("give both --from and --to, or neither")
        values = None
        if low is not None and high is not None:
            if not low < high:
                raise InputError(f"--from {low:g} is not below --to {high:g}: swap them")
            values = np.linspace(low, high, 300)
            if over == "interval":
                values = np.unique(np.maximum(1, values.round()))
        result = root_locus(spec.resolve(), model, over, values, ratio, sensor_delay)
        picture(result, result.plot, output, as_json)
