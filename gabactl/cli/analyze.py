"""``gabactl analyze``: a setting and its loop around a plant, in a table or drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError
from gabactl.cli._fields import Row, takes
from gabactl.cli._options import options, output_row
from gabactl.cli._output import picture, show
from gabactl.cli._spec import SpecOptions, spec_options

#: What is drawn, and the plant it is drawn of where none is given.
_CURVES = {
    "bode": None,
    "nyquist": None,
    "nichols": None,
    "rlocus": "log-ratio:rho=-1",
    "step": "log-ratio:rho=0",
}


@dataclass(frozen=True)
class _Own:
    """What is of the table alone, or of one curve."""

    disturbance: float | None = None
    noise_std: float | None = None
    skew: float | None = None
    certify: bool = False
    over: str | None = None
    low: float | None = None
    high: float | None = None
    size: float | None = None
    steps: int | None = None
    ramp: bool = False


_ROWS = {
    "disturbance": Row("X", "Constant imbalance, in nats.", "0"),
    "noise_std": Row("X", "Noise of log(g_1/g_2) per step, in nats.", "0.5", "--noise", least=0.0),
    "skew": Row("X", "Skew of the disk margin; 0 is balanced.", "0"),
    "certify": Row("", "Try certificates of global stability too."),
    "over": Row("NAME", "Of rlocus: what varies, {}.", "rho", offer=("rho", "beta", "interval")),
    "low": Row("X", "Of rlocus: first value; needs --to.", option="--from"),
    "high": Row("X", "Of rlocus: last value; needs --from.", option="--to"),
    "size": Row("X", "Of step: height, in nats of the log ratio.", "1"),
    "steps": Row("STEPS", "Of step: how many steps, 1 or more.", "what the slowest pole takes"),
    "ramp": Row("", "Of step: a ramp of --size per 1,000 steps instead."),
}
#: The curve that an option belongs to; those of the table are the rest.
_BELONGS = {
    **dict.fromkeys(("over", "low", "high"), "rlocus"),
    **dict.fromkeys(("size", "steps", "ramp"), "step"),
}


@spec_options
@takes("given", _Own, _ROWS)
@options(
    plant=Row(
        "PLANT",
        "What answers to the weights, such as log-ratio:rho=-0.1,a=0.9,delay=1.",
        "none: the controller alone; of rlocus rho=-1, of step rho=0",
    ),
    ratio=Row("X", "Imbalance g_1/g_2 to linearise at.", least=0.0),
    sensor_delay=Row("STEPS", "Age of a reading in steps.", least=0),
    plot=Row(
        "KIND",
        "Draw, and tabulate, one curve instead: {}.",
        offer=tuple(_CURVES),
    ),
    output=output_row("Write the picture of --plot: .png, .svg or .pdf.", default="a window"),
)
def analyze(
    plant: str | None = None,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    plot: str | None = None,
    *,
    given: dict[str, Any],
    output: Path | None = None,
    as_json: bool = False,
    spec: SpecOptions,
) -> None:
    """Stability, margins, noise and reach of a setting.

    With --plot: the open loop as a Bode, Nyquist or Nichols plot, the closed-loop poles as rho,
    beta or the interval varies (rlocus), or the answer of the linear loop to a step or ramp of
    imbalance. Exit code 0 even if the loop is unstable.
    """
    if plot is not None and plot not in _CURVES:
        raise InputError(f"--plot {plot}: choose one of {', '.join(_CURVES)}; files go to -o")
    _refuse_strays(given, plot, output)
    at = {"ratio": ratio, "sensor_delay": sensor_delay}
    if plot is None:
        show(_table(spec, plant, **at, **given), as_json)
        return
    result, draw = _curve(plot, spec, plant or _CURVES[plot], at, given)
    picture(result, draw, output, as_json, panels=2 if plot == "bode" else 1)


def _refuse_strays(given: dict[str, Any], plot: str | None, output: Path | None) -> None:
    for name in given:
        kind = _BELONGS.get(name)
        if kind != plot:
            place = f"with --plot {kind}" if kind else "without --plot"
            option = _ROWS[name].option or f"--{name}"
            raise InputError(f"{option} says something only {place}: leave it out")
    if output is not None and plot is None:
        raise InputError(f"-o {output}: which picture? add --plot, one of {', '.join(_CURVES)}")


def _table(spec: SpecOptions, plant: str | None, **given: Any) -> Any:
    from gabactl.control.analysis import analyze as run
    from gabactl.law.spec import GabaSpec
    from gabactl.plants import parse_plant

    model = None if plant is None else parse_plant(plant)
    base = None
    if model is not None and model.n_tasks != 2:
        base = GabaSpec(n_tasks=model.n_tasks, floor=min(0.05, 0.5 / model.n_tasks))
    return run(spec.resolve(base), model, **given)


def _curve(
    kind: str, spec: SpecOptions, plant: str | None, at: dict[str, Any], given: dict[str, Any]
) -> tuple[Any, Callable[[Any], Any]]:
    """The result, and what draws it."""
    from gabactl.control.frequency import frequency_response, root_locus
    from gabactl.control.linear import open_loop
    from gabactl.control.responses import ramp_response, step_response
    from gabactl.plants import parse_plant

    if plant is None:
        raise InputError(f"--plot {kind} is of a loop: add --plant, such as log-ratio:rho=-0.1")
    model = parse_plant(plant)
    if kind == "rlocus":
        over, values = _locus_values(**given)
        locus = root_locus(spec.resolve(), model, **at, parameter=over, values=values)
        return locus, locus.plot
    loop = open_loop(spec.resolve(), model, **at)
    if kind != "step":
        curve = frequency_response(loop)
        return curve, getattr(curve, f"plot_{kind}")
    size, steps = given.get("size", 1.0), given.get("steps")
    if "ramp" in given:
        response = ramp_response(loop, slope_per_step=size / 1000.0, steps=steps)
    else:
        response = step_response(loop, size=size, steps=steps)
    return response, response.plot


def _locus_values(
    over: str = "rho", low: float | None = None, high: float | None = None
) -> tuple[str, Any]:
    import numpy as np

    if low is None and high is None:
        return over, None
    if low is None or high is None:
        raise InputError("give both --from and --to, or neither")
    if not low < high:
        raise InputError(f"--from {low:g} is not below --to {high:g}: swap them")
    values = np.linspace(low, high, 300)
    if over == "interval":
        values = np.unique(np.maximum(1, values.round()))
    return over, values
