"""Importing is cheap: heavy libraries are loaded where they are used."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "sympy",
    "z3",
    "control",
    "matplotlib",
    "numba",
    "pyarrow",
    "panel",
    "statsmodels",
)

SCRIPT = """
import sys
{statement}
loaded = [name for name in {heavy} if name in sys.modules]
print(",".join(loaded))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import gabactl",
        "import gabactl; gabactl.GabaSpec; gabactl.Controller",
        "import gabactl.cli",
        "import gabactl.nn",
        "import gabactl.traces",
        "import gabactl.control.linear, gabactl.law.authority, gabactl.runs.replay, gabactl.plants",
    ],
)
def test_loads_nothing_heavy(statement):
    script = SCRIPT.format(statement=statement, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_training_needs_no_analysis_library():
    """Training machines have torch, and need not have what the analysis uses."""
    script = """
import sys
for blocked in ("control", "z3", "sympy", "statsmodels", "matplotlib"):
    sys.modules[blocked] = None
import gabactl.nn
for name in gabactl.nn.__all__:
    getattr(gabactl.nn, name)
import gabactl.nn.training.loop, gabactl.nn.training.models
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_public_name_loads():
    import gabactl
    import gabactl.nn

    for module in (gabactl, gabactl.nn):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError):
            _ = module.nothing
        assert set(module.__all__) <= set(dir(module))
