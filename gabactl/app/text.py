"""Pieces of HTML. Everything that comes from a file or the address is escaped here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import panel as pn

_TABLE = (
    "<style>"
    "table{border-collapse:collapse;font:13px/1.45 var(--sans,system-ui,sans-serif);width:100%}"
    "th,td{text-align:left;padding:3px 10px 3px 0;border-bottom:1px solid var(--line,#8884);"
    "vertical-align:top;overflow-wrap:break-word}"
    "td.n{font-variant-numeric:tabular-nums;white-space:nowrap}"
    "th{font-weight:600}th[scope=row]{width:24%;min-width:7.5em}caption{text-align:left;font-weight:600;"
    "font-size:14px;padding:14px 0 3px}"
    "div.wide{overflow-x:auto}table.many{min-width:560px}"
    "</style>"
)


def number(value: Any, digits: int = 4) -> str:
    """A number for people: NaN as a dash.

    Parameters
    ----------
    value : float or None
        What to write.
    digits : int
        Significant digits, at least 1. Whole parts are written in full, up to a million; from
        there on, and below 1e-4, as a power of ten.

    Examples
    --------
    >>> number(0.047619), number(2400.0), number(float("nan")), number(None)
    ('0.04762', '2,400', '–', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{digits}g}" if size < 10**digits else f"{value:,.0f}"


def table(
    rows: Sequence[Sequence[str]], header: Sequence[str] = (), caption: str = "", heads: bool = True
) -> str:
    """Rows of text as an HTML table, escaped.

    Parameters
    ----------
    rows : sequence of sequences of str
        The cells; short rows are filled up with empty ones.
    header : sequence of str
        Headings of the columns; none by default.
    caption : str
        Above the table; none by default.
    heads : bool
        Whether the first column are headings of the rows.

    Returns
    -------
    str
        A style sheet and one ``<table>``.

    Examples
    --------
    >>> "<td>&lt;b&gt;</td>" in table([("a", "<b>")])
    True
    """
    width = max((len(row) for row in rows), default=0)
    lines = []
    if caption:
        lines.append(f"<caption>{escape(caption)}</caption>")
    if header:
        cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    for row in rows:
        first = f'<th scope="row">{escape(row[0])}</th>' if heads else f"<td>{escape(row[0])}</td>"
        rest = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        pad = "<td></td>" * (width - len(row))
        lines.append(f"<tr>{first}{rest}{pad}</tr>")
    kind = ' class="many"' if width > 3 else ""
    return f'{_TABLE}<div class="wide"><table{kind}>{"".join(lines)}</table></div>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of HTML, escaped.

    Parameters
    ----------
    text : str
        Plain text.
    kind : {"", "bad"}
        "bad" in the colour of refusals.

    Examples
    --------
    >>> paragraph("beta < 1").endswith(">beta &lt; 1</p>")
    True
    >>> "var(--bad" in paragraph("Not loaded.", "bad")
    True
    """
    colour = "color:var(--bad,#b3261e);" if kind == "bad" else ""
    return (
        f'<p style="font:14px/1.5 var(--sans,system-ui,sans-serif);{colour}margin:4px 0;'
        f'max-width:75ch">{escape(text)}</p>'
    )


def pane(html: str = "", **options: Any) -> Any:
    """A piece of HTML on the page.

    Parameters
    ----------
    html : str
        Shown as it is: whoever writes it escapes what comes from outside (:func:`paragraph` and
        :func:`table` do).
    **options
        For ``panel.pane.HTML``; it has the width of the page unless told otherwise.

    Returns
    -------
    panel.pane.HTML
        Changed with ``.object``.

    Examples
    --------
    >>> pane("<b>ready</b>", margin=0).object
    '<b>ready</b>'
    """
    settings = {"sizing_mode": "stretch_width", "margin": (4, 8)} | options
    return pn.pane.HTML(html, sanitize_html=False, **settings)
