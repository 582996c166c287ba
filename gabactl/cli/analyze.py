"""``gabactl analyze``: a setting and its loop around a plant, in a table or drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gabactl.base.errors import InputError
from gabactl.cli._complete import words
from gabactl.cli._options import output_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._picture import picture
from gabactl.cli._spec import SpecOptions, spec_options

#: What is drawn, and the plant it is drawn of where none is given.
_CURVES = {
    "bode": None,
    "nyquist": None,
    "nichols": None,
    "rlocus": "log-ratio:rho=-1",
    "step": "log-ratio:rho=0",
}
#: Options of one curve alone; those of the table, where nothing is drawn, under "".
_BELONGS = {
    "over": "rlocus",
    "from": "rlocus",
    "to": "rlocus",
    "size": "step",
    "steps": "step",
    "ramp": "step",
    "disturbance": "",
    "noise": "",
    "skew": "",
    "certify": "",
}


@spec_options
def analyze(
    plant: Annotated[
        str | None,
        typer.Option(
            "--plant",
            metavar="PLANT",
            help="What answers to the weights, such as log-ratio:rho=-0.1,a=0.9,delay=1.",
            show_default="none: the controller alone; of rlocus rho=-1, of step rho=0",
        ),
    ] = None,
    ratio: Annotated[
        float,
        typer.Option("--ratio", metavar="X", help="Imbalance g_1/g_2 to linearise at.", min=0.0),
    ] = 1.0,
    sensor_delay: Annotated[
        int,
        typer.Option("--sensor-delay", metavar="STEPS", help="Age of a reading in steps.", min=0),
    ] = 0,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="KIND",
            help="Draw, and tabulate, one curve instead: bode, nyquist, nichols, rlocus or step.",
            autocompletion=words(*_CURVES),
        ),
    ] = None,
    disturbance: Annotated[
        float | None,
        typer.Option(metavar="X", help="Constant imbalance, in nats.", show_default="0"),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Noise of log(g_1/g_2) per step, in nats.",
            show_default="0.5",
            min=0.0,
        ),
    ] = None,
    skew: Annotated[
        float | None,
        typer.Option(metavar="X", help="Skew of the disk margin; 0 is balanced.", show_default="0"),
    ] = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Try certificates of global stability too.")
    ] = False,
    over: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of rlocus: what varies, rho, beta or interval.",
            show_default="rho",
            autocompletion=words("rho", "beta", "interval"),
        ),
    ] = None,
    low: Annotated[
        float | None,
        typer.Option("--from", metavar="X", help="Of rlocus: first value; needs --to."),
    ] = None,
    high: Annotated[
        float | None,
        typer.Option("--to", metavar="X", help="Of rlocus: last value; needs --from."),
    ] = None,
    size: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Of step: height, in nats of the log ratio.", show_default="1"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            help="Of step: how many steps, 1 or more.",
            show_default="what the slowest pole takes",
        ),
    ] = None,
    ramp: Annotated[
        bool,
        typer.Option("--ramp", help="Of step: a ramp of --size per 1,000 steps instead."),
    ] = False,
    output: Annotated[
        Path | None,
        output_option("Write the picture of --plot: .png, .svg or .pdf.", default="a window"),
    ] = None,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> None:
    """Stability, margins, noise and reach of a setting.

    With --plot: the open loop as a Bode, Nyquist or Nichols plot, the closed-loop poles as rho,
    beta or the interval varies (rlocus), or the answer of the linear loop to a step or ramp of
    imbalance. Exit code 0 even if the loop is unstable.
    """
    if plot is not None and plot not in _CURVES:
        raise InputError(f"--plot {plot}: choose one of {', '.join(_CURVES)}; files go to -o")
    own = {
        "disturbance": disturbance, "noise": noise, "skew": skew, "certify": certify or None,
        "over": over, "from": low, "to": high, "size": size, "steps": steps, "ramp": ramp or None,
    }  # fmt: skip
    given = {name: value for name, value in own.items() if value is not None}
    _refuse_strays(given, plot, output)
    if plot is None:
        show(_table(spec, plant, ratio, sensor_delay, given), as_json)
        return
    result, draw = _curve(plot, spec, plant or _CURVES[plot], ratio, sensor_delay, given)
    picture(result, draw, output, as_json, panels=2 if plot == "bode" else 1)


def _refuse_strays(given: dict[str, Any], plot: str | None, output: Path | None) -> None:
    for name in given:
        if _BELONGS[name] != ("" if plot is None else plot):
            place = f"with --plot {_BELONGS[name]}" if _BELONGS[name] else "without --plot"
            raise InputError(f"--{name} says something only {place}: leave it out")
    if output is not None and plot is None:
        raise InputError(f"-o {output}: which picture? add --plot, one of {', '.join(_CURVES)}")


def _table(
    spec: SpecOptions, plant: str | None, ratio: float, sensor_delay: int, given: dict[str, Any]
) -> Any:
    from gabactl.control.analysis import analyze as run
    from gabactl.law.spec import GabaSpec
    from gabactl.plants import parse_plant

    model = None if plant is None else parse_plant(plant)
    base = None
    if model is not None and model.n_tasks != 2:
        base = GabaSpec(n_tasks=model.n_tasks, floor=min(0.05, 0.5 / model.n_tasks))
    if "noise" in given:
        given["noise_std"] = given.pop("noise")
    return run(spec.resolve(base), model, ratio=ratio, sensor_delay=sensor_delay, **given)


def _curve(
    kind: str,
    spec: SpecOptions,
    plant: str | None,
    ratio: float,
    sensor_delay: int,
    given: dict[str, Any],
) -> tuple[Any, Callable[[Any], Any]]:
    """The result, and what draws it."""
    from gabactl.control.frequency import frequency_response
    from gabactl.control.linear import open_loop
    from gabactl.control.responses import ramp_response, step_response
    from gabactl.plants import parse_plant

    if plant is None:
        raise InputError(f"--plot {kind} is of a loop: add --plant, such as log-ratio:rho=-0.1")
    if kind == "rlocus":
        locus = _locus(spec, plant, ratio, sensor_delay, given)
        return locus, locus.plot
    loop = open_loop(spec.resolve(), parse_plant(plant), ratio, sensor_delay)
    if kind != "step":
        curve = frequency_response(loop)
        return curve, getattr(curve, f"plot_{kind}")
    size, steps = given.get("size", 1.0), given.get("steps")
    if "ramp" in given:
        response = ramp_response(loop, slope_per_step=size / 1000.0, steps=steps)
    else:
        response = step_response(loop, size=size, steps=steps)
    return response, response.plot


def _locus(
    spec: SpecOptions, plant: str, ratio: float, sensor_delay: int, given: dict[str, Any]
) -> Any:
    import numpy as np

    from gabactl.control.frequency import root_locus
    from gabactl.plants import parse_plant

    over, low, high = given.get("over", "rho"), given.get("from"), given.get("to")
    if (low is None) != (high is None):
        raise InputError("give both --from and --to, or neither")
    values = None
    if low is not None and high is not None:
        if not low < high:
            raise InputError(f"--from {low:g} is not below --to {high:g}: swap them")
        values = np.linspace(low, high, 300)
        if over == "interval":
            values = np.unique(np.maximum(1, values.round()))
    return root_locus(
        spec.resolve(),
        parse_plant(plant),
        ratio=ratio,
        sensor_delay=sensor_delay,
        parameter=over,
        values=values,
    )
