"""Pictures on the command line: a file with ``-o``, else a window, else a word on how to get one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gabactl.base.results import Result
from gabactl.cli._output import show

__all__ = ["picture"]


def picture(
    result: Result,
    draw: Callable[[Any], Any],
    output: Path | None,
    as_json: bool,
    panels: int = 1,
) -> None:
    """Print a result; then draw it on ``panels`` axes, into a file or a window."""
    if output is not None:
        from gabactl.base import plots

        with plots.style():
            figure = _figure(panels)
            draw(_axes(figure, panels))
        plots.save(figure, output)
        show(result, as_json)
        return
    show(result, as_json)
    if as_json:
        return
    if not _has_display():
        print("gabactl: no display here: add -o FILE.png for the picture", file=sys.stderr)
        return
    import matplotlib.pyplot as plt

    from gabactl.base import plots

    with plots.style():
        figure = plt.figure(figsize=_size(panels), layout="constrained")
        draw(_axes(figure, panels))
    plt.show()


def _size(panels: int) -> tuple[float, float]:
    return (7.0, 4.5) if panels == 1 else (7.0, 3.0 * panels)


def _figure(panels: int) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=_size(panels), layout="constrained")


def _axes(figure: Any, panels: int) -> Any:
    return figure.subplots() if panels == 1 else figure.subplots(panels, 1, sharex=True)


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
