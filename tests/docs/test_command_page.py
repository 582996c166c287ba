"""The page on commands is what their helps say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "_generate_commands.py"


def test_the_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("generate_commands", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page() == text, "run python docs/_generate_commands.py"
    assert text.count("\n### gabactl ") > 20
