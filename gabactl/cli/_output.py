"""How commands answer: a table for people, strict JSON for machines, and a picture."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gabactl.base.results import Result


def show(
    result: Result | Sequence[Result] | dict[str, Any],
    as_json: bool,
    plot: Path | None = None,
    **drawn: Any,
) -> None:
    """Print a result (or several), as a table or as JSON; first draw the one that has a ``plot``."""
    # Here, because it loads NumPy, which `gabactl --version` has no use for.
    from gabactl.base.results import Result, to_jsonable

    if plot is not None and isinstance(result, Result):
        from gabactl.base.plots import save, style

        with style():
            save(result.plot(**drawn).figure, plot)
    if as_json:
        print(json.dumps(to_jsonable(result), indent=2, allow_nan=False))
        return
    results = [result] if isinstance(result, (Result, dict)) else list(result)
    print("\n\n".join(str(item) for item in results))


def say(text: str, facts: dict[str, Any], as_json: bool) -> None:
    """Print some words, or as JSON what they are about."""
    if as_json:
        show(facts, True)
    else:
        print(text)


def show_verdicts(table: Any, details: bool, as_json: bool) -> int:
    """Print a table of verdicts, or each of them; the exit code, 1 where one is a surprise."""
    if details and not as_json:
        show([*table.results], False)
        print(f"\n{table.title}")
    else:
        show(table, as_json)
    return 1 if table.surprises else 0


@contextmanager
def canvas(
    path: Path | None, rows: int, columns: int = 1, *, size: tuple[float, float], **shared: Any
) -> Iterator[Any]:
    """Axes, shape (rows, columns), to draw on: they end in a file, or else in a window."""
    from gabactl.base import plots

    with plots.style():
        if path is None:
            from matplotlib.pyplot import figure as new
        else:
            from matplotlib.figure import Figure as new
        figure = new(figsize=size, layout="constrained")
        yield figure.subplots(rows, columns, squeeze=False, **shared)
    if path is not None:
        plots.save(figure, path)
    else:
        import matplotlib.pyplot as plt

        plt.show()


def picture(
    result: Result,
    draw: Callable[[Any], Any],
    output: Path | None,
    as_json: bool,
    panels: int = 1,
) -> None:
    """Print a result; and draw it on ``panels`` axes, into a file or a window."""
    if output is None:
        show(result, as_json)
        if as_json:
            return
        if not _has_display():
            print("gabactl: no display here: add -o FILE.png for the picture", file=sys.stderr)
            return
    with canvas(output, panels, size=(7.0, max(4.5, 3.0 * panels)), sharex=True) as axes:
        draw(axes[0, 0] if panels == 1 else axes[:, 0])
    if output is not None:
        show(result, as_json)


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
