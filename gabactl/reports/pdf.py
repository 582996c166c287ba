"""The report on paper: the page, printed by a browser of the Chromium family."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from gabactl.base.errors import InputError
from gabactl.base.files import whole_file

_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
    "brave-browser",
)
_SECONDS = 120


def find_browser() -> str:
    """Path of an installed browser that prints without a window.

    Returns
    -------
    str
        That in the environment variable ``GABACTL_BROWSER``, or the first found on the path.

    Raises
    ------
    InputError
        There is none.

    Examples
    --------
    >>> os.environ["GABACTL_BROWSER"] = "/nowhere/chromium"
    >>> find_browser()
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: GABACTL_BROWSER = '/nowhere/chromium' is no program: name a Chromium browser
    >>> del os.environ["GABACTL_BROWSER"]
    """
    chosen = os.environ.get("GABACTL_BROWSER")
    if chosen:
        if shutil.which(chosen) is None:
            raise InputError(f"GABACTL_BROWSER = {chosen!r} is no program: name a Chromium browser")
        return chosen
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise InputError(
            "no browser of the Chromium family is installed to print with: install one (or name it "
            "in GABACTL_BROWSER), or open the HTML page in any browser and print it"
        )
    return found


def write_pdf(page: str | Path, path: str | Path) -> Path:
    """Print a report's page to PDF, whole or not at all.

    Parameters
    ----------
    page : path
        From :func:`gabactl.reports.write_html`.
    path : path
        Where to; the folder must exist.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        No browser, or it did not print, or the place cannot be written.

    Examples
    --------
    It starts a browser:

    >>> write_pdf("report.html", "report.pdf")  # doctest: +SKIP
    PosixPath('report.pdf')
    """
    file = Path(path)
    command = [find_browser(), "--headless", "--disable-gpu", "--no-pdf-header-footer"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # Chromium's sandbox refuses to run as root, as in a container; the page is our own.
        command.append("--no-sandbox")
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "report.pdf"
        command += [
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={printed}",
            Path(page).resolve().as_uri(),
        ]
        try:
            subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(
                f"{command[0]} did not print ({type(error).__name__}): print the HTML page from a "
                "browser"
            ) from None
        if not printed.exists() or not printed.read_bytes().startswith(b"%PDF"):
            raise InputError(f"{command[0]} wrote no PDF: print the HTML page from a browser")
        with whole_file(file, "choose another place with --pdf") as sink:
            sink.write(printed.read_bytes())
    return file
