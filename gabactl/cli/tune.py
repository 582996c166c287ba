"""``gabactl tune``: recommended settings, and the trade-off behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gabactl.cli._complete import trace_names
from gabactl.cli._options import TRACE, SeedOption, output_option, plot_option
from gabactl.cli._output import JsonFlag, show


def tune(
    trace: Annotated[
        Path | None,
        typer.Argument(metavar="[TRACE]", help=TRACE, autocompletion=trace_names),
    ] = None,
    ratio_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH", help="Range of g_1/g_2, such as 50:2400, in place of a trace."
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Noise of log(g_1/g_2) from step to step, in nats, 0 or more.",
            show_default="the trace's, or 0.5",
        ),
    ] = None,
    noise_pole: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Correlation of the noise from step to step, in [0, 1).",
            show_default="the trace's, or 0.4",
        ),
    ] = None,
    drift: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Random walk of log(g_1/g_2) per step, in nats, 0 or more.",
            show_default="the trace's, or 0.005",
        ),
    ] = None,
    ramp_steps: Annotated[
        float | None,
        typer.Option(
            metavar="STEPS", help="Steps in which the ratio crosses its range steadily, above 0."
        ),
    ] = None,
    rho: Annotated[
        str | None,
        typer.Option(
            metavar="X|LOW:HIGH",
            help="Feedback of the plant, as gabactl identify measures it.",
        ),
    ] = None,
    lag: Annotated[
        float | None, typer.Option(metavar="STEPS", help="Lag of the plant in steps, 0 or more.")
    ] = None,
    delay: Annotated[
        int | None,
        typer.Option(metavar="STEPS", help="Extra delay of the plant in steps, 0 or more."),
    ] = None,
    n_tasks: Annotated[
        int | None,
        typer.Option(
            "--tasks",
            metavar="K",
            help="Number of tasks, 2 or more.",
            show_default="the trace's, or 2",
        ),
    ] = None,
    reading_cost: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Cost of a reading, in plain steps.", show_default="0.55 per task"
        ),
    ] = None,
    noise_target: Annotated[
        float, typer.Option(metavar="X", help="Largest jitter of log(w_1/w_2) allowed, in nats.")
    ] = 0.1,
    max_overhead: Annotated[
        float,
        typer.Option(metavar="X", help="Largest cost of the readings, as a share of training."),
    ] = 0.1,
    seed: SeedOption = 0,
    output: Annotated[
        Path | None, output_option("Write the settings, ready for --spec: .toml.", "FILE.toml")
    ] = None,
    plot: Annotated[Path | None, plot_option("noise against lag, over the time constant")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Recommend settings, and say which constraint binds.

    Beta, floor, warm-up, law and interval, from a trace (an excited one is identified first) or
    from a range of ratios; options beat what the trace says.
    """
    import dataclasses
    import math

    from gabactl.base.errors import InputError
    from gabactl.synthesis import Workload
    from gabactl.synthesis import tune as run

    if (trace is None) == (ratio_range is None):
        raise InputError("give a TRACE or --ratio-range LOW:HIGH (one of them), such as 50:2400")
    if trace is not None:
        base = _measured(trace, rho is not None, seed)
    else:
        low, high = _pair("--ratio-range", ratio_range or "")
        base = Workload(low, high)
    given: dict[str, Any] = {
        "noise_std": noise,
        "noise_pole": noise_pole,
        "drift_std": drift,
        "lag_steps": lag,
        "delay": delay,
        "n_tasks": n_tasks if trace is None else None,
        "rho": None if rho is None else _pair("--rho", rho),
    }
    if n_tasks is not None and trace is not None and n_tasks != base.n_tasks:
        raise InputError(f"--tasks {n_tasks}: the trace has {base.n_tasks} tasks; leave it out")
    changes = {key: value for key, value in given.items() if value is not None}
    tasks = changes.get("n_tasks", base.n_tasks)
    if tasks < 2:
        raise InputError(f"--tasks {tasks}: balancing needs at least two losses")
    work = dataclasses.replace(base, **changes)
    if reading_cost is not None or "n_tasks" in changes:
        cost = base.sensor_cost / base.n_tasks * tasks if reading_cost is None else reading_cost
        work = dataclasses.replace(work, sensor_cost=cost)
    if ramp_steps is not None:
        if not ramp_steps > 0:
            raise InputError(f"--ramp-steps {ramp_steps:g} must be positive, such as 500")
        span = math.log(work.ratio_high / work.ratio_low)
        work = dataclasses.replace(work, ramp=span / ramp_steps)
    result = run(work, noise_target=noise_target, max_overhead=max_overhead)
    if output is not None:
        _write(result, output)
    if plot is not None:
        from gabactl.base.plots import save, style

        with style():
            save(result.plot().figure, plot)
    show(result, as_json)


def _measured(path: Path, rho_given: bool, seed: int) -> Any:
    from gabactl.identification import identify
    from gabactl.runs.run import Run
    from gabactl.synthesis import workload_of

    run = Run.of(path)
    found = None
    excited = run.trace.excitation is not None and len(run.tasks) == 2
    if excited and not rho_given:
        found = identify(run, draws=399, seed=seed)
    return workload_of(
        run,
        identified=found,
        source=f"{run.source}, {'identified' if found else 'rho not identified'}",
    )


def _pair(option: str, text: str) -> tuple[float, float]:
    from gabactl.base.errors import InputError

    parts = text.split(":")
    try:
        low, high = float(parts[0]), float(parts[-1])
    except ValueError:
        low = high = float("nan")
    if len(parts) > 2 or not low <= high or (option == "--ratio-range" and len(parts) != 2):
        example = "50:2400" if option == "--ratio-range" else "-0.2 or -0.3:-0.1"
        raise InputError(f"{option} {text}: give {example}")
    return low, high


def _write(result: Any, file: Path) -> None:
    from gabactl.base.errors import InputError
    from gabactl.base.files import write_text

    if file.suffix.lower() != ".toml":
        raise InputError(f"{file}: settings are written as .toml; pictures go to --plot")
    try:
        write_text(file, result.to_toml())
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}): choose another place"
        ) from None
