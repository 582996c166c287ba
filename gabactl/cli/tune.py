"""``gabactl tune``: recommended settings, and the trade-off behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError
from gabactl.cli._fields import Row
from gabactl.cli._options import options, output_row, plot_row
from gabactl.cli._output import show


@options(
    ratio_range=Row("LOW:HIGH", "Range of g_1/g_2, such as 50:2400, in place of a trace."),
    noise=Row(
        "X",
        "Noise of log(g_1/g_2) from step to step, in nats, 0 or more.",
        "the trace's, or 0.5",
    ),
    noise_pole=Row(
        "X", "Correlation of the noise from step to step, in [0, 1).", "the trace's, or 0.4"
    ),
    drift=Row(
        "X",
        "Random walk of log(g_1/g_2) per step, in nats, 0 or more.",
        "the trace's, or 0.005",
    ),
    ramp_steps=Row("STEPS", "Steps in which the ratio crosses its range steadily, above 0."),
    rho=Row("X|LOW:HIGH", "Feedback of the plant, as gabactl identify measures it."),
    lag=Row("STEPS", "Lag of the plant in steps, 0 or more."),
    delay=Row("STEPS", "Extra delay of the plant in steps, 0 or more."),
    n_tasks=Row("K", "Number of tasks, 2 or more.", "the trace's, or 2", "--tasks"),
    reading_cost=Row("X", "Cost of a reading, in plain steps.", "0.55 per task"),
    noise_target=Row("X", "Largest jitter of log(w_1/w_2) allowed, in nats."),
    max_overhead=Row("X", "Largest cost of the readings, as a share of training."),
    output=output_row("Write the settings, ready for --spec: .toml.", "FILE.toml"),
    plot=plot_row("noise against lag, over the time constant"),
)
def tune(
    trace: Path | None = None,
    ratio_range: str | None = None,
    noise: float | None = None,
    noise_pole: float | None = None,
    drift: float | None = None,
    ramp_steps: float | None = None,
    rho: str | None = None,
    lag: float | None = None,
    delay: int | None = None,
    n_tasks: int | None = None,
    reading_cost: float | None = None,
    noise_target: float = 0.1,
    max_overhead: float = 0.1,
    seed: int = 0,
    output: Path | None = None,
    plot: Path | None = None,
    as_json: bool = False,
) -> None:
    """Recommend settings, and say which constraint binds.

    Beta, floor, warm-up, law and interval, from a trace (an excited one is identified first) or
    from a range of ratios; options beat what the trace says.
    """
    import dataclasses
    import math

    from gabactl.base.files import write_text
    from gabactl.synthesis import Workload
    from gabactl.synthesis import tune as run

    if (trace is None) == (ratio_range is None):
        raise InputError("give a TRACE or --ratio-range LOW:HIGH (one of them), such as 50:2400")
    if trace is not None:
        base = _measured(trace, rho is not None, seed)
    else:
        base = Workload(*_pair("--ratio-range", ratio_range or ""))
    if n_tasks is not None and trace is not None and n_tasks != base.n_tasks:
        raise InputError(f"--tasks {n_tasks}: the trace has {base.n_tasks} tasks; leave it out")
    tasks = base.n_tasks if n_tasks is None else n_tasks
    if tasks < 2:
        raise InputError(f"--tasks {tasks}: balancing needs at least two losses")
    if reading_cost is None:
        reading_cost = base.sensor_cost * (tasks / base.n_tasks)
    given = {
        "noise_std": noise,
        "noise_pole": noise_pole,
        "drift_std": drift,
        "lag_steps": lag,
        "delay": delay,
        "n_tasks": n_tasks,
        "rho": None if rho is None else _pair("--rho", rho),
        "sensor_cost": reading_cost,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    work = dataclasses.replace(base, **changes)
    if ramp_steps is not None:
        if not ramp_steps > 0:
            raise InputError(f"--ramp-steps {ramp_steps:g} must be positive, such as 500")
        span = math.log(work.ratio_high / work.ratio_low)
        work = dataclasses.replace(work, ramp=span / ramp_steps)
    result = run(work, noise_target=noise_target, max_overhead=max_overhead)
    if output is not None:
        if output.suffix.lower() != ".toml":
            raise InputError(f"{output}: settings are written as .toml; pictures go to --plot")
        write_text(output, result.to_toml(), "choose another place")
    show(result, as_json, plot)


def _measured(path: Path, rho_given: bool, seed: int) -> Any:
    from gabactl.identification import identify
    from gabactl.runs.run import Run
    from gabactl.synthesis import workload_of

    run = Run.of(path)
    excited = run.trace.excitation is not None and len(run.tasks) == 2
    found = identify(run, draws=399, seed=seed) if excited and not rho_given else None
    source = f"{run.source}, {'identified' if found else 'rho not identified'}"
    return workload_of(run, identified=found, source=source)


def _pair(option: str, text: str) -> tuple[float, float]:
    parts = text.split(":")
    try:
        low, high = float(parts[0]), float(parts[-1])
    except ValueError:
        low = high = float("nan")
    if len(parts) > 2 or not low <= high or (option == "--ratio-range" and len(parts) != 2):
        example = "50:2400" if option == "--ratio-range" else "-0.2 or -0.3:-0.1"
        raise InputError(f"{option} {text}: give {example}")
    return low, high
