"""``gabactl analyze``: a setting, and its loop around a plant."""

from __future__ import annotations

from typing import Annotated

import typer

from gabactl.cli._output import JsonFlag, show
from gabactl.cli._picture import RatioOption, SensorDelayOption
from gabactl.cli._spec import SpecOptions, spec_options


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    @spec_options
    def analyze(
        spec: SpecOptions,
        plant: Annotated[
            str | None,
            typer.Option(
                "--plant",
                metavar="PLANT",
                help="What answers to the weights, such as log-ratio:rho=-0.1,a=0.9,delay=1.",
                show_default="none: the controller alone",
            ),
        ] = None,
        ratio: RatioOption = 1.0,
        sensor_delay: SensorDelayOption = 0,
        disturbance: Annotated[
            float,
            typer.Option("--disturbance", metavar="X", help="Constant imbalance, in nats."),
        ] = 0.0,
        noise: Annotated[
            float,
            typer.Option(
                "--noise", metavar="X", help="Noise of log(g_1/g_2) per step, in nats.", min=0.0
            ),
        ] = 0.5,
        skew: Annotated[
            float,
            typer.Option("--skew", metavar="X", help="Skew of the disk margin; 0 is balanced."),
        ] = 0.0,
        certify: Annotated[
            bool, typer.Option("--certify", help="Try certificates of global stability too.")
        ] = False,
        as_json: JsonFlag = False,
    ) -> None:
        """Stability, margins, noise and reach of a setting. Exit 0 even if unstable."""
        from gabactl.control.analysis import analyze as analyse
        from gabactl.plants import parse_plant

        model = None if plant is None else parse_plant(plant)
        base = None
        if model is not None and model.n_tasks != 2:
            from gabactl.law.spec import GabaSpec

            base = GabaSpec(n_tasks=model.n_tasks, floor=min(0.05, 0.5 / model.n_tasks))
        settings = spec.resolve(base)
        result = analyse(
            settings, model, ratio, sensor_delay, disturbance, noise, skew, certify=certify
        )
        show(result, as_json)
