"""Driving the dashboard in headless Chromium: what the journeys share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest


def need_browser() -> Any:
    """A headless browser, or a skip that says what is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    pytest.importorskip("panel", reason="panel is not installed: pip install 'gabactl[app]'")
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1280,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.set_script_timeout(60)
    # Nothing may wait for ever, on a busy machine neither.
    browser.set_page_load_timeout(120)
    return browser


#: Where each server writes its complaints: a pipe that nobody reads fills up, and then it stops.
_ERRORS: dict[int, Any] = {}


def end_server(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """Stop a server, and return what it wrote to its standard error."""
    process.send_signal(number)
    try:
        process.wait(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()
        file = _ERRORS.pop(process.pid)
        file.seek(0)
        errors = str(file.read())
        file.close()
    return errors


def start_server(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """``gabactl dashboard`` on a free port: the process and its address.

    Stop it with :func:`end_server`.
    """
    errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 closed in end_server
    process = subprocess.Popen(
        [sys.executable, "-m", "gabactl", "dashboard", "--no-browser", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )
    _ERRORS[process.pid] = errors
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("http://127.0.0.1:"):
        raise AssertionError(f"no address printed: {line!r} {end_server(process)}")
    return process, line.split()[0]


#: Every model of the page, the newest first: a tab that was left may leave its own behind.
_MODELS = "const all = [...Bokeh.documents[0]._all_models.values()].reverse();"


class Page:
    """The dashboard in the browser, read and driven through Bokeh's own document."""

    def __init__(self, browser: Any, address: str, shots: Path) -> None:
        self.browser = browser
        self.address = address
        self.shots = shots

    def open(self, query: str = "") -> None:
        """Load the page and wait until its figures are there."""
        self.browser.execute_script("window.left = true")
        self.browser.get(self.address + query)
        self.wait(
            "return window.left === undefined && window.Bokeh !== undefined && "
            "Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle && "
            "Bokeh.documents[0]._all_models.size > 20;",
            seconds=120.0,
        )

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript; ``all`` is the list of the page's models."""
        return self.browser.execute_script(_MODELS + script, *arguments)

    def wait(self, script: str, *arguments: Any, seconds: float = 90.0) -> Any:
        """Run a script until it returns something true, and return that."""
        end = time.monotonic() + seconds
        while True:
            value = self.browser.execute_script(script, *arguments)
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"never true in {seconds} s: {script[:300]} {arguments}")
            time.sleep(0.05)

    def set(self, css_class: str, value: Any) -> None:
        """Set the value of the widget with this class, as a hand would."""
        self.wait(
            _MODELS + "const m = all.find(m => (m.css_classes || []).includes(arguments[0]));"
            "if (!m) return false; m.value = arguments[1];"
            "if ('value_throttled' in m) m.value_throttled = arguments[1]; return true;",
            css_class,
            value,
        )

    def value(self, css_class: str) -> Any:
        """The value of the widget with this class."""
        return self.run(
            "return all.find(m => (m.css_classes || []).includes(arguments[0])).value;", css_class
        )

    def wait_value(self, css_class: str, value: Any) -> None:
        """Wait until the widget with this class shows a value."""
        self.wait(
            _MODELS + "const m = all.find(m => (m.css_classes || []).includes(arguments[0]));"
            "return m && m.value === arguments[1];",
            css_class,
            value,
        )

    def click(self, css_class: str) -> None:
        """Click the button with this class."""
        self.browser.execute_script(
            _FIND + "const host = find(document, arguments[0]);"
            "host.shadowRoot.querySelector('button').click();",
            css_class,
        )

    def click_link(self, css_class: str) -> None:
        """Click the download link with this class."""
        self.browser.execute_script(
            _FIND + "const host = find(document, arguments[0]);"
            "host.shadowRoot.querySelector('a').click();",
            css_class,
        )

    def wait_file(self, name: str, seconds: float = 90.0) -> Path:
        """Wait until a download is complete."""
        file = self.shots / name
        end = time.monotonic() + seconds
        while not file.exists() or not file.stat().st_size:
            assert time.monotonic() < end, f"{name} was not downloaded"
            time.sleep(0.05)
        return file

    def line(self, name: str) -> tuple[list[float], list[float]]:
        """Points of the line with this legend name."""
        found = self.run(
            "const r = all.find(m => m.type === 'GlyphRenderer' && m.name === arguments[0]);"
            "return r ? [Array.from(r.data_source.data.x), Array.from(r.data_source.data.y)] : null;",
            name,
        )
        assert found is not None, f"no line {name!r}"
        return found[0], found[1]

    def wait_line(
        self, name: str, condition: str, *arguments: Any
    ) -> tuple[list[float], list[float]]:
        """Wait until a condition on ``x`` and ``y`` of a line holds, and return its points."""
        self.wait(
            _MODELS + "const r = all.find(m => m.type === 'GlyphRenderer' && m.name === "
            f"{name!r}); if (!r) return false; const x = Array.from(r.data_source.data.x), "
            f"y = Array.from(r.data_source.data.y); return {condition};",
            *arguments,
        )
        return self.line(name)

    def text(self) -> str:
        """All the text of the page, as it is shown."""
        return str(self.browser.execute_script(_TEXT))

    def wait_text(self, part: str, seconds: float = 90.0) -> str:
        """Wait until the page shows this text, and return all of it."""
        self.wait(
            _TEXT_FUNCTION + "return shown(document.body).includes(arguments[0]);",
            part,
            seconds=seconds,
        )
        return self.text()

    def shot(self, name: str) -> Path:
        """Keep a picture of the whole page."""
        time.sleep(0.4)
        width = self.browser.execute_script("return window.innerWidth")
        height = self.browser.execute_script("return document.documentElement.scrollHeight")
        picture = self.browser.execute_cdp_cmd(
            "Page.captureScreenshot",
            {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": width, "height": min(height, 4000), "scale": 1},
            },
        )
        import base64

        file = self.shots / f"{name}.png"
        file.write_bytes(base64.b64decode(picture["data"]))
        return file

    def complaints(self) -> list[str]:
        """What the browser's console has against the page."""
        return [
            entry["message"]
            for entry in self.browser.get_log("browser")
            if entry["level"] in ("SEVERE", "ERROR")
        ]


_FIND = """
function find(root, name) {
  for (const node of root.querySelectorAll('*')) {
    if (node.classList.contains(name)) return node;
    if (node.shadowRoot) { const inner = find(node.shadowRoot, name); if (inner) return inner; }
  }
  return null;
}
"""

_TEXT_FUNCTION = """
function shown(node) {
  if (node.nodeType === 3) return node.textContent;
  if (node.nodeType !== 1 && node.nodeType !== 11) return '';
  if (node.nodeType === 1) {
    if (['STYLE', 'SCRIPT', 'NOSCRIPT'].includes(node.tagName)) return '';
    if (getComputedStyle(node).display === 'none') return '';
  }
  let text = '';
  for (const child of (node.shadowRoot || node).childNodes) text += shown(child) + ' ';
  return text.replace(/\\s+/g, ' ');
}
"""
_TEXT = _TEXT_FUNCTION + "return shown(document.body);"
