"""The ledger as one self-contained HTML page."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from gabactl.base.files import write_text
from gabactl.claims.check import ClaimTable


def render_page(table: ClaimTable) -> str:
    """The page as text; everything in it is escaped.

    Parameters
    ----------
    table : ClaimTable
        From :func:`gabactl.claims.settle_claims`.

    Returns
    -------
    str
        HTML, with nothing loaded from elsewhere.

    Examples
    --------
    >>> from gabactl.claims import settle_claims
    >>> "C08" in render_page(settle_claims(["C08"]))
    True
    """
    from jinja2 import Environment

    source = resources.files("gabactl.claims").joinpath("page.html.j2").read_text(encoding="utf-8")
    words = [r.evidence.verdict for r in table.results]
    counts = {word: words.count(word) for word in dict.fromkeys(words)}
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(table=table, counts=counts)


def write_page(table: ClaimTable, path: str | Path) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    table : ClaimTable
        From :func:`gabactl.claims.settle_claims`.
    path : path
        Replaced if it exists.

    Raises
    ------
    InputError
        The folder is missing or cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.claims import settle_claims
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page(settle_claims(["C08"]), Path(folder) / "claims.html")
    ...     [file.name for file in Path(folder).iterdir()]
    ['claims.html']
    """
    write_text(path, render_page(table), "check the folder")
