"""Without an optional package: one line that names the extra, and still an ImportError."""

import pickle
import subprocess
import sys
from contextlib import contextmanager

import pytest

from gabactl.base.errors import InputError, MissingPackage, Stopped, packages_for
from gabactl.loops.sweeps import load_sweep, run_sweep

#: What is done, the package that is not there, and the extra that brings it.
CASES = [
    ("from gabactl.nn import GABALoss", "torch", "torch"),
    ("import gabactl.nn.training.loop", "torch", "torch"),
    ("import gabactl.nn.training.models", "torch", "torch"),
    ("import gabactl.nn.integrations.accelerate", "torch", "torch"),
    ("import gabactl.nn.integrations.logging", "torch", "torch"),
    ("import gabactl.nn.integrations.transformers", "torch", "torch"),
    ("import gabactl.nn.integrations.lightning", "lightning", "integrations"),
    ("from gabactl.balancers import make_balancer; make_balancer('pcgrad', 2)", "torchjd", "peers"),
    ("from gabactl.app import dashboard", "panel", "app"),
    (
        "import pathlib; from gabactl.traces.tensorboard import _read_file;"
        "_read_file(pathlib.Path('events'), '', {}, 'events')",
        "tensorboard",
        "logs",
    ),
]

SCRIPT = """
import sys
sys.modules["{package}"] = None  # as if it were not installed
from gabactl.base.errors import InputError
try:
    {statement}
except ImportError as error:
    assert isinstance(error, InputError) and error.name == "{package}"
    print(error)
"""


@pytest.mark.parametrize(("statement", "package", "extra"), CASES)
def test_python_gets_an_import_error_that_names_the_extra(statement, package, extra):
    script = SCRIPT.format(statement=statement, package=package)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith(f"which is not installed: pip install 'gabactl[{extra}]'\n")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "package", "remedy"),
    [
        ("fuzz gaba-torch --steps 10 --no-corpus", "torch", "'gabactl[torch]'"),
        ("analyze --plot bode --plant log-ratio:rho=0.5 -o loop.png", "matplotlib", "matplotlib"),
        ("dashboard --no-browser", "panel", "'gabactl[app]'"),
    ],
)
def test_the_command_line_says_it_in_one_line(command, package, remedy, tmp_path):
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from gabactl.cli import main; sys.exit(main({command.split()!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.endswith(f"which is not installed: pip install {remedy}\n")


@pytest.mark.parametrize("option", [{"engine": "dask"}, {"engine": "ray"}, {"device": "cpu"}])
def test_a_sweep_that_cannot_begin_leaves_no_folder(option, monkeypatch, tmp_path):
    for module in ("distributed", "ray", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "gabactl.base.devices", raising=False)
    with pytest.raises(MissingPackage):
        run_sweep(load_sweep("sweep_stability"), tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


def test_an_engine_that_does_not_start_is_one_line(monkeypatch, tmp_path):
    @contextmanager
    def broken(*arguments):
        raise Exception("The current node timed out\nduring startup.")
        yield

    monkeypatch.setattr("gabactl.loops.sweeps.engine._engine", broken)
    with pytest.raises(Stopped, match=r"did not start \(.*timed out during.*--resume$"):
        run_sweep(load_sweep("sweep_stability"), tmp_path / "out")


def test_a_fault_of_ours_stays_one():
    with pytest.raises(ModuleNotFoundError) as caught, packages_for("this"):
        import gabactl.no_such_module  # noqa: F401
    assert not isinstance(caught.value, InputError)


def test_comes_back_whole_from_another_process():
    error = MissingPackage("torch.nn", "a run")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name) == (str(error), "torch")
