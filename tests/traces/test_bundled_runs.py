"""The traces that come with the package are what their metadata say."""

from __future__ import annotations

import importlib.util
import shlex
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.nn.excitation import Excitation
from gabactl.traces import bundled, load_bundled, load_trace

#: Made by a script of its own, to show every parameter's norm: short, and not by `gabactl train`.
_PARAMETERS = "fd001-parameters"
_TRAINED = [name for name in bundled() if name != _PARAMETERS]
#: Of them, those that `gabactl train` made here; the others are from benchmarks/gpu_kit.py.
_HERE = [name for name in _TRAINED if not name.startswith("gpu-")]
_SCRIPT = Path(__file__).resolve().parents[2] / "simulations" / "record_bundled.py"


def recipes() -> dict[str, str]:
    specification = importlib.util.spec_from_file_location("record_bundled", _SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.runs()


def test_they_are_small_and_each_has_its_recipe() -> None:
    folder = resources.files("gabactl.traces") / "bundled"
    assert sum(len(f.read_bytes()) for f in folder.iterdir() if f.is_file()) < 1_000_000
    assert {"fd001-equal", "fd001-gaba", "fd002-equal", "fd002-gaba"} <= set(bundled())
    known = recipes()
    for name in _HERE:
        trace = load_bundled(name)
        # The command of the script and the one in the file are the same run.
        recorded = shlex.split(trace.metadata["command"])
        assert recorded[:3] == ["gabactl", "train", "cmapss"]
        wanted = shlex.split(known[name])
        assert [word for word in recorded[5:] if word in wanted] == wanted


def test_the_parameters_trace_has_every_parameter_and_its_recipe() -> None:
    trace = load_bundled(_PARAMETERS)
    recorded = shlex.split(trace.metadata["command"])
    assert recorded[:2] == ["python", "simulations/record_parameter_norms.py"]
    assert (_SCRIPT.parent / "record_parameter_norms.py").is_file()
    assert trace.metadata["complete"]
    assert len(trace) == 300
    # The norms of the shared ones make up what the sensor read; the heads are not among them.
    shared = [name for name in trace.metadata["param_names"] if "head" not in name]
    assert 0 < len(shared) < len(trace.metadata["param_names"])
    measured = trace.measured
    assert np.allclose(trace.norms_over(shared)[measured], trace.grad_norms[measured], rtol=1e-5)


@pytest.mark.parametrize("name", _TRAINED)
def test_each_is_complete(name: str) -> None:
    trace = load_bundled(name)
    assert len(trace) >= 2000
    assert not trace.truncated
    assert trace.tasks == ("rul", "health")
    assert trace.step.tolist() == list(range(1, len(trace) + 1))
    for key in ("model", "data", "optimizer", "seed", "device", "versions", "training"):
        assert key in trace.metadata
    assert trace.metadata["model"]["parameters"] == (76_709 if name in _HERE else 3_496_900)
    assert trace.metadata["complete"]
    assert trace.weights is not None
    assert np.isfinite(trace.weights).all()
    # Cycles as units: RUL gradients some hundred times those of the classes.
    ratio = np.nanmedian(trace.grad_norms[:, 0] / trace.grad_norms[:, 1])
    assert 100 < ratio < 3000
    assert (trace.grad_norms[trace.measured] > 0).mean() > 0.999


@pytest.mark.parametrize("name", [n for n in bundled() if n.endswith("-gaba")])
def test_the_reference_takes_the_recorded_decisions(name: str) -> None:
    trace = load_bundled(name)
    assert trace.spec is not None
    assert trace.spec.guard == "none"
    assert trace.ema is not None
    assert trace.weights is not None
    assert trace.losses is not None
    reference = Controller(trace.spec)
    for i, norms in enumerate(trace.grad_norms):
        weights = reference.observe(norms if trace.measured[i] else None)
        assert np.abs(weights - trace.weights[i]).max() < 5e-6
        assert np.abs(reference.ema_weights - trace.ema[i]).max() < 5e-6


@pytest.mark.parametrize("name", [n for n in bundled() if n.endswith("-inverted")])
def test_twins_are_opposite(name: str) -> None:
    down, up = load_bundled(name), load_bundled(name.removesuffix("-inverted"))
    assert up.excitation is not None
    assert down.excitation is not None
    assert up.weights is not None
    excitation = Excitation.parse(up.metadata["excitation"])
    assert np.array_equal(up.excitation, excitation.sequence(len(up)))
    assert np.array_equal(down.excitation, -up.excitation)
    base = up.metadata["training"]["weights"]
    logit = np.log(up.weights[:, 0] / up.weights[:, 1]) - np.log(base[0] / base[1])
    assert np.abs(logit - up.excitation).max() < 1e-5
    # The same start and the same batches: the first reading precedes any difference.
    assert np.array_equal(up.grad_norms[0], down.grad_norms[0])


def test_a_mistyped_name_is_told_the_names():
    with pytest.raises(
        InputError, match=r"fd001-gabba: is neither a file nor one of .*fd001-gaba,"
    ):
        load_trace("fd001-gabba")
    with pytest.raises(InputError, match="cannot be read"):
        load_trace("fd001-gabba.parquet")
