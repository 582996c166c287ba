"""The report as one HTML file: no network, readable on a phone, on paper and in the dark."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from gabactl.base.files import write_text
from gabactl.base.results import Result, to_jsonable
from gabactl.base.version import __version__
from gabactl.reports.build import Report
from gabactl.reports.pictures import data_uri, pictures

__all__ = ["write_html"]


def render_html(report: Report) -> str:
    """The page as text: one file, with nothing loaded from elsewhere.

    Parameters
    ----------
    report : Report
        What it shows.

    Returns
    -------
    str
        HTML with the pictures and, as JSON, all numbers in it.

    Examples
    --------
    Report and pictures together take some seconds:

    >>> from gabactl.reports import report
    >>> from gabactl.traces import load_bundled
    >>> page = render_html(report(load_bundled("fd001-gaba")))  # doctest: +SKIP
    """
    from jinja2 import Environment, StrictUndefined

    template = (resources.files("gabactl.reports") / "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    small = pictures(report, narrow=True)
    figures = {
        name: (data_uri(figure), text, data_uri(small[name][0]))
        for name, (figure, text) in pictures(report).items()
    }
    # "<" cannot end the script element when it is written as an escape.
    data = json.dumps(to_jsonable(report), allow_nan=False).replace("<", "\\u003c")
    return environment.from_string(template).render(
        report=report,
        rows=report.rows(),
        table=_table,
        figures=figures,
        data=data,
        version=__version__,
    )


def write_html(report: Report, path: str | Path) -> Path:
    """Write the page, whole or not at all.

    Parameters
    ----------
    report : Report
        What it shows.
    path : path
        Where to; the folder must exist.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        The place cannot be written.

    Examples
    --------
    >>> from gabactl.reports import report
    >>> from gabactl.traces import load_bundled
    >>> write_html(report(load_bundled("fd001-gaba")), "report.html")  # doctest: +SKIP
    PosixPath('report.html')
    """
    return write_text(path, render_html(report), "choose another place with -o")


def _table(result: Result) -> list[list[str]]:
    rows = [list(row) for row in result.rows()]
    width = max(len(row) for row in rows)
    return [row + [""] * (width - len(row)) for row in rows]
