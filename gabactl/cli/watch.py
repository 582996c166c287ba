"""``gabactl watch``: a training run in progress, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gabactl.base.errors import InputError
from gabactl.cli._fields import Argument, Row
from gabactl.cli._options import options
from gabactl.cli._output import show

if TYPE_CHECKING:
    from gabactl.runs.watch import Watcher, WatchState


@options(
    run=Argument("RUN.arrows", "The recording; it need not exist yet."),
    saturated_steps=Row("STEPS", "More saturated steps in a row than these: an alarm."),
    every=Row("SECONDS", "Seconds between looks, above 0."),
    once=Row("", "Print the state as it is now, and end."),
)
def watch(
    run: Path,
    saturated_steps: int = 500,
    every: float = 1.0,
    once: bool = False,
    as_json: bool = False,
) -> int:
    """Watch a run while it is recorded.

    Shows ratio, weights, saturation, readings a second. Ends when the recording is closed, or with
    Ctrl-C. Exit code 1 when there is an alarm: too long saturated, or a reading that was not
    finite. With --json, one line for each new state.
    """
    from gabactl.runs.watch import Watcher

    watcher = Watcher(run, saturated_steps=saturated_steps)
    if once:
        state = watcher.look()
        if state is None:
            raise InputError(f"{run}: nothing is recorded there yet: leave --once out to wait")
        show(state, as_json)
    else:
        state = _lines(watcher, every) if as_json else _screen(watcher, every)
    return 1 if state is not None and state.alarms else 0


def _lines(watcher: Watcher, every: float) -> WatchState | None:
    from gabactl.runs.watch import follow

    last = None
    try:
        for state in follow(watcher, every=every):
            if state is not None and (
                last is None or (state.step, state.running) != (last.step, last.running)
            ):
                print(state.to_json(indent=None), flush=True)
                last = state
    except KeyboardInterrupt:
        pass
    return last


def _screen(watcher: Watcher, every: float) -> WatchState | None:
    from rich.console import Console
    from rich.live import Live

    from gabactl.runs.watch import follow

    last = None
    console = Console()
    try:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            for state in follow(watcher, every=every):
                last = state or last
                live.update(_panel(last, watcher, console.width), refresh=True)
        if not console.is_terminal:
            console.line()
    except KeyboardInterrupt:
        pass
    return last


def _panel(state: WatchState | None, watcher: Watcher, width: int) -> Any:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    if state is None:
        return Panel(Text(f"waiting for {watcher.stream}"), title="gabactl watch")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, value in state.rows():
        alarm = label == "ALARM"
        table.add_row(Text(label, "bold red" if alarm else ""), Text(value, "red" if alarm else ""))
        if label == "ratio":
            table.add_row("", Text(_spark(state.history[:, 1], max(10, min(60, width - 26)))))
    style = "red" if state.alarms else "green" if state.running else "dim"
    return Panel(table, title=Text(watcher.stream.stem), border_style=style)


def _spark(values: Any, width: int) -> str:
    """Recent ratios as a row of blocks, on a logarithmic scale."""
    import numpy as np

    good = values[np.isfinite(values) & (values > 0)][-width:]
    if len(good) < 2:
        return ""
    logs = np.log(good)
    span = logs.max() - logs.min()
    level = np.zeros(len(logs)) if span == 0 else (logs - logs.min()) / span
    return "".join("▁▂▃▄▅▆▇█"[round(7 * x)] for x in level)
