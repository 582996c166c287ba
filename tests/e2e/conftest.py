"""One server and one browser for all the journeys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, end_server, need_browser, start_server

import gabactl


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a running ``gabactl dashboard``."""
    pytest.importorskip("panel", reason="panel is not installed: pip install 'gabactl[app]'")
    process, address = start_server()
    yield address
    errors = end_server(process)
    # Bokeh reports connections that the browser dropped; nothing of ours may fail.
    assert f"{Path(gabactl.__file__).parent}{os.sep}" not in errors, errors


@pytest.fixture(scope="session")
def page(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The dashboard in a browser; pictures go to GABACTL_SCREENSHOTS or a temporary folder."""
    kept = os.environ.get("GABACTL_SCREENSHOTS")
    shots = Path(kept) if kept else tmp_path_factory.mktemp("screenshots")
    shots.mkdir(parents=True, exist_ok=True)
    browser = need_browser()
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(shots)}
    )
    yield Page(browser, server, shots)
    browser.quit()
