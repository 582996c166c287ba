"""The architecture page and CONTRIBUTING speak of what is there."""

from __future__ import annotations

import re
from pathlib import Path

import gabactl

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(gabactl.__file__).parent


def test_the_picture_shows_every_room() -> None:
    picture = (ROOT / "docs" / "_static" / "house.svg").read_text()
    shown = set(re.findall(r'class="name"[^>]*>(\w+)<', picture))
    assert shown == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_every_file_that_is_named_exists() -> None:
    for page in (ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"):
        for name in re.findall(r"`([\w/]+(?:\.\w+|/))[^`]*`", page.read_text()):
            if "/" not in name:
                continue
            bases = (ROOT, PACKAGE, PACKAGE / "loops" / "kernels")
            assert any((base / name).exists() for base in bases), f"{page.name} names {name}"
