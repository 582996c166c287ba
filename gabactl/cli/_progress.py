"""How far a long command is, on stderr, where it leaves nothing behind."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def counter(done: int, count: int, name: str) -> None:
    """One line that is written over: ``3/43 C08``.

    Parameters
    ----------
    done, count : int
        How many are done, of how many.
    name : str
        What was last.
    """
    end = "\n" if done == count else ""
    print(f"\r\x1b[K{done}/{count} {name}", end=end, file=sys.stderr, flush=True)


@contextmanager
def bars(*texts: str, counts: Sequence[type[ProgressColumn]] = ()) -> Iterator[Progress]:
    """Bars that go away when the work is done.

    Parameters
    ----------
    *texts : str
        What stands in a row, before the bar and after it.
    counts : sequence of classes of rich.progress.ProgressColumn
        What says how much is done; default: how many of how many.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    first, *rest = map(TextColumn, texts)
    numbers = (count() for count in counts or (MofNCompleteColumn,))
    columns = (first, BarColumn(), *numbers, *rest)
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        yield progress


def epoch_words(epoch: float, epochs: float) -> str:
    """The epoch that runs, of all.

    Examples
    --------
    >>> epoch_words(0, 30)
    '1/30'
    """
    return f"{min(int(epoch) + 1, int(epochs))}/{int(epochs)}"


def quality_words(rmse: float) -> str:
    """The last validation, where there was one.

    Examples
    --------
    >>> quality_words(14.2), quality_words(math.nan)
    ('validation RMSE 14.20', '')
    """
    return "" if math.isnan(rmse) else f"validation RMSE {rmse:.2f}"
