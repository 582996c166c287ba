"""The interpreters of this machine that the package supports."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def supported() -> list[str]:
    """The Pythons that have a lock file, as pyproject.toml names them: ["3.11", ...]."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = (re.fullmatch(r".*:: (3\.\d+)", line) for line in project["classifiers"])
    return [found[1] for found in named if found]


def interpreter(version: str) -> str | None:
    """The path of Python 3.x here, the newest of pyenv's before the one on the path."""
    versions = (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")
    found = max(versions, key=lambda file: int(file.parts[-3].split(".")[-1]), default=None)
    return str(found) if found else shutil.which(f"python{version}")
