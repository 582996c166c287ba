"""Bugs planted in the controller are found; the unharmed copy is not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from gabactl.fuzzing import fuzz
from gabactl.fuzzing.targets import controller_target
from gabactl.law.spec import GabaSpec

_FILE = Path(__file__).resolve().parents[2] / "simulations" / "fuzz_planted_bugs.py"
_SPEC = importlib.util.spec_from_file_location("fuzz_planted_bugs", _FILE)
planted = importlib.util.module_from_spec(_SPEC)
sys.modules["fuzz_planted_bugs"] = planted
_SPEC.loader.exec_module(planted)

QUICK = (
    "clamped weights not renormalised",
    "K - 1 replaced by K",
    "step count not saved in the checkpoint",
    "1e-12 in the denominator despite the guard",
    "a task whose norm is 0 loses its weight",
)


def test_at_least_fifteen_bugs_are_planted():
    assert len(planted.BUGS) >= 15
    assert len({bug.what for bug in planted.BUGS}) == len(planted.BUGS)


def test_the_unharmed_copy_passes():
    for spec in (GabaSpec(), GabaSpec(n_tasks=3, interval=10)):
        target = controller_target(planted._Open, spec, "open")
        assert [r.message for r in fuzz(target, "all", steps=800).results if r.violated] == []


@pytest.mark.parametrize("bug", [b for b in planted.BUGS if b.what in QUICK], ids=lambda b: b.what)
def test_a_planted_bug_is_found(bug):
    assert planted.detect(bug, limit=60.0).result is not None


@pytest.mark.slow
@pytest.mark.parametrize("bug", planted.BUGS, ids=lambda b: b.what)
@pytest.mark.parametrize("seed", [5, 6])
def test_every_planted_bug_is_found_within_a_minute(bug, seed):
    found = planted.detect(bug, seed=seed, limit=60.0)
    assert found.result is not None, f"{bug.what}: not found in {found.steps} steps"
