"""Docstring examples leave no files behind."""

from __future__ import annotations

import tempfile

import pytest


@pytest.fixture(autouse=True)
def _temporary_folders(request: pytest.FixtureRequest) -> None:
    """What an example puts into a temporary folder goes where pytest clears up."""
    if isinstance(request.node, pytest.DoctestItem):
        folder = request.getfixturevalue("tmp_path")
        request.getfixturevalue("monkeypatch").setattr(tempfile, "tempdir", str(folder))
