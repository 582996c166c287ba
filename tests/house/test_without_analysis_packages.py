"""Where python-control, z3 and torchjd are not installed: all but what is about them works.

Machines that train often have PyTorch and little else.
"""

import subprocess
import sys

import pytest

ABSENT = ("control", "z3", "torchjd", "statsmodels", "cvxpy")

#: What a machine without these packages is asked to do, and how each ends.
COMMANDS = [
    ("--version", 0),
    ("check {trace} --plant log-ratio:rho=0.5,a=0.9", 0),
    ("report {trace} --saturation-only", 0),
    ("tune {trace}", 0),
    ("analyze --plant log-ratio:rho=0.5,a=0.9", 0),
    ("simulate published", 0),
    ("simulate published --balancers all --seeds 1", 0),
    ("sweep {grid} -o {out}/sweep", 0),
    ("fuzz gaba --steps 200 --no-corpus", 0),
    ("prove", 2),
]

GRID = """
[disturbance]
kind = "levels"
ratios = [4]
holds = [200]
[axes]
rho = [-0.5, 0.5]
"""

RUN = """
import sys
for package in {absent}:
    sys.modules[package] = None
from gabactl.cli import main
for command, expected in {commands}:
    print(command, flush=True)
    code = main(command.split())
    assert code == expected, (command, code)
"""


def run(script, folder):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=folder
    )


def test_the_commands_about_runs_and_loops(tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID)
    places = {"trace": "fd001-gaba", "grid": grid, "out": tmp_path}
    commands = [(command.format(**places), code) for command, code in COMMANDS]
    done = run(RUN.format(absent=(*ABSENT, "sympy"), commands=commands), tmp_path)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    assert done.stderr.splitlines()[-1].endswith("is not installed: pip install sympy")
    assert (tmp_path / "sweep").is_dir()


def test_theorems_name_the_package_as_it_is_called_in_the_registry(tmp_path):
    done = run(RUN.format(absent=("z3",), commands=[("prove", 2)]), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "gabactl: average.py of the theorems needs the package 'z3', which is not installed: "
        "pip install z3-solver\n"
    )


def test_training_its_recording_and_batches(tiny_cmapss, tmp_path):
    pytest.importorskip("torch")
    commands = [
        (
            f"cmapss train --data {tiny_cmapss} --steps 4 --warmup 1 --device cpu"
            " --record run.parquet",
            0,
        ),
        ("check run.parquet", 0),
        ("report run.parquet -o report.html", 0),
    ]
    script = RUN.format(absent=ABSENT, commands=commands) + (
        "from gabactl.loops.batch import run_batch\n"
        "from gabactl.loops.profiles import constant\n"
        "for device in (None, 'cpu'):\n"
        "    made = run_batch(constant(500.0, 1000), {'floor': [0.05, 0.01]}, device=device)\n"
        "    assert made['final_weight'].round(5).tolist() == [0.04771, 0.00992], made\n"
    )
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@pytest.mark.parametrize(
    "system",
    [
        "from gabactl.plants import LogRatio; LogRatio(0.5).to_control()",
        "from gabactl.plants import LtiPlant; LtiPlant(None)",
        "from gabactl import GabaSpec; from gabactl.law.filter import filter_system;"
        "filter_system(GabaSpec())",
        "from gabactl import GabaSpec; from gabactl.control.linear import open_loop;"
        "from gabactl.plants import LogRatio; open_loop(GabaSpec(), LogRatio(0.5)).closed_loop()",
    ],
)
def test_a_python_control_system_needs_python_control(system, tmp_path):
    script = (
        "import sys; sys.modules['control'] = None\n"
        "from gabactl.base.errors import MissingPackage\n"
        f"try:\n    {system}\nexcept MissingPackage as error:\n    print(error)\n"
    )
    done = run(script, tmp_path)
    assert done.stdout == (
        "a python-control system needs the package 'control', which is not installed: "
        "pip install control\n"
    )
