"""The link checker of the documentation finds what is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "_check_links.py"
GOOD = '<a href="b.html#here">b</a><a href="https://example.org/x">out</a><img src="p.png">'


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (GOOD, ""),
        ('<a href="c.html">', "c.html is not there"),
        ('<a href="b.html#there">', "has no such place"),
        ('<a href="#nowhere">', "has no such place"),
        ('<script src="https://cdn.example.org/x.js"></script>', "loads https://"),
    ],
)
def test_links(page, said, tmp_path):
    (tmp_path / "a.html").write_text(page)
    (tmp_path / "b.html").write_text('<p id="here">')
    (tmp_path / "p.png").write_bytes(b"")
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
    assert done.returncode == bool(said), done.stdout
    assert said in done.stdout
