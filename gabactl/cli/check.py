"""``gabactl check``: a recorded run against its replay, its theory and its plant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gabactl.cli._fields import Row
from gabactl.cli._options import options, plot_row
from gabactl.cli._output import canvas, show
from gabactl.cli._spec import SpecOptions, spec_options

if TYPE_CHECKING:
    from gabactl.plants import LogRatio


@spec_options
@options(
    tolerance=Row(
        "X", "Largest absolute error of a replay that is accepted.", "1e-12, in float32 5e-6"
    ),
    plant=Row(
        "PLANT",
        "For the forecasts: an excited trace, or its twin as well (give --plant twice), or "
        "log-ratio:rho=-0.1,a=0.9.",
        "identified, where the trace itself is excited",
    ),
    replay_only=Row(
        "", "Compare with the replay, and no more: a run of any length, in bounded memory."
    ),
    plot=plot_row("replay errors and step response"),
)
def check(
    traces: list[Path],
    tolerance: float | None = None,
    plant: list[str] | None = None,
    replay_only: bool = False,
    last: int | None = None,
    seed: int = 0,
    plot: Path | None = None,
    as_json: bool = False,
    *,
    spec: SpecOptions,
) -> int:
    """Hold recorded runs against their replay and against theory.

    Theory is the controller's, and an identified plant's: time constant, step response, time to
    the floor, saturated share and noise, measured beside predicted; and forecasts of the loop,
    which must beat the last value. Exit code 1 when a replay exceeds the tolerance; nothing else
    that is found changes it.
    """
    from dataclasses import replace

    from gabactl.validation.check import check as compare

    system, origin = (None, "given") if not plant else _plant(plant)
    results = []
    for path in traces:
        if replay_only:
            held = path if last is None else spec.run(path, last)
            results.append(compare(held, spec.resolve_for(path), tolerance=tolerance))
            continue
        from gabactl.validation.prediction import predict

        run = spec.run(path, last)
        result = compare(run, tolerance=tolerance)
        made = predict(run, plant=system, plant_from=origin, seed=seed)
        results.append(replace(result, prediction=made))
    if plot is not None:
        _draw(results, plot)
    show(results, as_json)
    return 1 if any(result.ok is False for result in results) else 0


def _plant(texts: list[str]) -> tuple[LogRatio, str]:
    """A plant from its description, from an excited trace, or from a pair of twins."""
    from gabactl.base.errors import InputError
    from gabactl.identification import identify, identify_paired
    from gabactl.plants import LogRatio, parse_plant
    from gabactl.traces import load_trace

    if len(texts) == 1 and ":" in texts[0]:
        found: Any = parse_plant(texts[0])
        if not isinstance(found, LogRatio):
            raise InputError(
                f"--plant {texts[0]}: forecasts take log-ratio:rho=...,a=...,delay=..."
            )
        return found, "given"
    if len(texts) > 2:
        raise InputError(f"--plant given {len(texts)} times: give one excited trace, or two twins")
    runs = [load_trace(Path(text)) for text in texts]
    fit = identify_paired(*runs, draws=199) if len(runs) == 2 else identify(runs[0], draws=199)
    low, high = fit.rho_interval
    return (
        LogRatio(fit.rho, fit.a, fit.delay),
        f"identified from {fit.name}: rho in [{low:.3f}, {high:.3f}]",
    )


def _draw(results: list[Any], path: Path) -> None:
    rows, columns = len(results), 1 if all(r.prediction is None for r in results) else 2
    with canvas(path, rows, columns, size=(6.0 * columns, 3.2 * rows)) as axes:
        for row, result in zip(axes, results, strict=True):
            result.plot(row[0])
            row[0].set_title(result.source)
            if result.prediction is not None:
                result.prediction.plot(row[1])
