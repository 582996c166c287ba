"""The page on fuzzing one's own loss says what happens."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "fuzz-my-own-loss.md"


def _run(scope):
    with np.errstate(all="ignore"):
        for block in re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.S):
            exec(block, scope)


def test_the_code_of_the_page_runs_and_finds_what_the_page_says():
    pytest.importorskip("torch")
    scope = {}
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    before = settings.get_current_profile_name()
    settings.load_profile("busy")
    try:
        _run(scope)
    finally:
        settings.load_profile(before)
    verdicts = {r.property_name: r.verdict for r in scope["report"].results}
    assert verdicts == {
        "bounds": "held",
        "simplex": "held",
        "finite": "violated",
        "equivariance": "held",
        "scale": "violated",
        "checkpoint": "skipped",
        "reference": "skipped",
    }
    scope["test_my_loss"](guarantee="bounds")
