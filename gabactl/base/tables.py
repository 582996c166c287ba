"""Rows of words as aligned lines."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as aligned lines.

    Parameters
    ----------
    rows : sequence of sequences of str
        May be ragged.

    Examples
    --------
    >>> format_table([("a", "1"), ("long", "2")])
    ['a     1', 'long  2']
    """
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[c]) for row in rows if c < len(row)), default=0) for c in range(columns)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() for row in rows
    ]


def cut_short(text: str, width: int) -> str:
    """A text of at most so many characters, with three dots where some are left out.

    Parameters
    ----------
    text : str
        One line.
    width : int, at least 3
        Most characters.

    Examples
    --------
    >>> cut_short("a long statement", 9)
    'a long...'
    """
    return text if len(text) <= width else text[: width - 3] + "..."
