"""What the recorder writes, and what it survives."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gabactl import GabaSpec, InputError  # noqa: E402
from gabactl.nn import (  # noqa: E402
    EventSensor,
    FixedLoss,
    GABALoss,
    GradNormLoss,
    LastLayerSensor,
    RepresentationSensor,
    SubsetSensor,
    TraceRecorder,
)
from gabactl.traces import finish, read_trace  # noqa: E402
from gabactl.validation.check import check  # noqa: E402


@pytest.fixture
def w():
    return torch.tensor([1.0, 1.0], requires_grad=True)


def losses_of(w, i=1):
    return [(200.0 + i) * w[0], 0.5 * w[1]]


def run(recorder, loss_fn, w, steps, start=0):
    for i in range(start, start + steps):
        losses = losses_of(w, i)
        loss_fn(*losses, shared_params=[w])
        recorder.log(losses)


def test_every_step_is_recorded_with_null_norms_where_nothing_was_measured(tmp_path, w):
    loss_fn = GABALoss(warmup_steps=3, interval=2)
    with TraceRecorder(tmp_path / "run.parquet", loss_fn, {"seed": 7}, every=4) as recorder:
        run(recorder, loss_fn, w, 10)
    trace = read_trace(tmp_path / "run.parquet")
    assert trace.step.tolist() == list(range(1, 11))
    assert np.flatnonzero(trace.measured).tolist() == [3, 5, 7, 9]
    np.testing.assert_array_equal(trace.grad_norms[3], [203.0, 0.5])
    assert np.isnan(trace.raw[~trace.measured]).all()
    assert not np.isnan(trace.ema).any()
    np.testing.assert_allclose(trace.losses[:, 0], 200.0 + np.arange(10))
    np.testing.assert_array_equal(trace.weights[-1], loss_fn.applied_weights)
    np.testing.assert_array_equal(trace.ema[-1], loss_fn.ema_weights)
    assert (np.diff(trace.wall_time) >= 0).all()
    assert trace.metadata["seed"] == 7
    assert trace.metadata["device"] == "cpu"
    assert trace.metadata["versions"]["torch"] == torch.__version__
    assert trace.spec == GabaSpec(warmup=3, interval=2)
    assert trace.balancer == "gaba"
    assert trace.precision == "float32"


def test_recorded_state_is_a_snapshot(tmp_path, w):
    # The buffers move in place: had the recorder kept references, all rows would be the last.
    loss_fn = GABALoss(warmup_steps=0, beta=0.5)
    with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
        expected = []
        for i in range(5):
            run(recorder, loss_fn, w, 1, i)
            expected.append(loss_fn.ema_weights.tolist())
    np.testing.assert_array_equal(read_trace(tmp_path / "run.parquet").ema, expected)


def test_weights_are_recorded_before_normalise_to(tmp_path, w):
    loss_fn = GABALoss(warmup_steps=2, normalise_to="n_tasks")
    with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
        run(recorder, loss_fn, w, 6)
    trace = read_trace(tmp_path / "run.parquet")
    assert trace.metadata["normalise_to"] == "n_tasks"
    np.testing.assert_allclose(trace.weights.sum(axis=1), 1.0, atol=1e-6)
    assert check(trace).ok is True


def test_other_balancers(tmp_path, w):
    for name, loss_fn in {
        "fixed": FixedLoss([0.25, 0.75], measure_every=2),
        "gradnorm": GradNormLoss(),
    }.items():
        path = tmp_path / f"{name}.parquet"
        with TraceRecorder(path, loss_fn) as recorder:
            run(recorder, loss_fn, w, 5)
        trace = read_trace(path)
        assert trace.balancer == name
        assert trace.spec is None
        assert trace.ema is None
        assert trace.raw is None
        found = check(trace, GabaSpec(warmup=1))
        assert found.ok is None
        assert found.max_abs_error_weights is None
        assert name in found.reason
        assert found.readings > 0
    fixed = read_trace(tmp_path / "fixed.parquet")
    np.testing.assert_array_equal(fixed.weights, np.tile([0.25, 0.75], (5, 1)))
    assert fixed.measured.tolist() == [True, False, True, False, True]


def test_float64_runs_keep_their_precision(tmp_path):
    w = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    loss_fn = GABALoss(warmup_steps=0).double()
    with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
        run(recorder, loss_fn, w, 20)
    trace = read_trace(tmp_path / "run.parquet")
    assert trace.precision == "float64"
    np.testing.assert_array_equal(trace.ema[-1], loss_fn.ema_weights)


def test_a_reading_that_is_not_finite_is_recorded_as_such(tmp_path, w):
    loss_fn = GABALoss(warmup_steps=0)
    with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
        for factor in (2.0, float("nan"), 3.0):
            losses = [factor * w[0], 0.5 * w[1]]
            loss_fn(*losses, shared_params=[w])
            recorder.log(losses)
    trace = read_trace(tmp_path / "run.parquet")
    assert trace.measured.all()
    assert np.isnan(trace.grad_norms[1, 0])
    assert check(trace).ok is True


def test_an_exception_in_the_loop_still_flushes(tmp_path, w):
    loss_fn = GABALoss(warmup_steps=2)
    path = tmp_path / "run.parquet"

    def broken():
        with TraceRecorder(path, loss_fn) as recorder:
            run(recorder, loss_fn, w, 7)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert os.listdir(tmp_path) == ["run.arrows"]
    trace = read_trace(tmp_path / "run.arrows")
    assert len(trace) == 7
    assert trace.truncated
    assert finish(tmp_path / "run.arrows")[1] == 7


def test_resume_drops_what_came_after_the_checkpoint(tmp_path, w):
    path = tmp_path / "run.parquet"
    loss_fn = GABALoss(warmup_steps=2)
    recorder = TraceRecorder(path, loss_fn, every=5)
    run(recorder, loss_fn, w, 8)
    checkpoint = {name: value.clone() for name, value in loss_fn.state_dict().items()}
    run(recorder, loss_fn, w, 12, 8)
    recorder.close(finish=False)

    again = GABALoss(warmup_steps=2)
    again.load_state_dict(checkpoint)
    with TraceRecorder(path, again, resume=True) as recorder:
        run(recorder, again, w, 4, 8)
    trace = read_trace(path)
    assert trace.step.tolist() == list(range(1, 13))
    assert (np.diff(trace.wall_time) >= 0).all()
    assert check(trace).ok is True


def test_resume_refuses_what_does_not_fit(tmp_path, w):
    path = tmp_path / "run.arrows"
    loss_fn = GABALoss(warmup_steps=2)
    with TraceRecorder(path, loss_fn) as recorder:
        run(recorder, loss_fn, w, 4)
    with pytest.raises(InputError, match="other tasks"):
        TraceRecorder(path, GABALoss(task_names=["a", "b"]), resume=True)
    with pytest.raises(InputError, match="there is a recording already"):
        TraceRecorder(path, loss_fn)
    with pytest.raises(InputError, match="no recording to resume at step 4"):
        TraceRecorder(tmp_path / "other.parquet", loss_fn, resume=True)
    TraceRecorder(tmp_path / "new.parquet", GABALoss(), resume=True).close()


def test_resume_with_other_settings_is_refused(tmp_path, w):
    path = tmp_path / "run.arrows"
    loss_fn = GABALoss(warmup_steps=2)
    with TraceRecorder(path, loss_fn) as recorder:
        run(recorder, loss_fn, w, 4)
    other = GABALoss(warmup_steps=2, beta=0.9)
    other.load_state_dict(loss_fn.state_dict())
    with pytest.raises(InputError, match="other settings"):
        TraceRecorder(path, other, resume=True)


def test_log_is_called_once_per_training_step(tmp_path, w):
    loss_fn = GABALoss(warmup_steps=2)
    with TraceRecorder(tmp_path / "run.arrows", loss_fn) as recorder:
        run(recorder, loss_fn, w, 3)
        with pytest.raises(InputError, match="step 3 is recorded already"):
            recorder.log(losses_of(w))
        loss_fn.eval()
        loss_fn(*losses_of(w), shared_params=[w])
        recorder.log(losses_of(w))  # an evaluation takes no step: nothing to record
        loss_fn.train()
        loss_fn(*losses_of(w), shared_params=[w])
        with pytest.raises(InputError, match="got 1 losses for 2 tasks"):
            recorder.log(losses_of(w)[:1])
    assert len(read_trace(tmp_path / "run.arrows")) == 3


def test_parameter_norms(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    named = [(f"0.{n}", p) for n, p in model[0].named_parameters()]
    shared = [p for _, p in named]
    loss_fn = GABALoss(warmup_steps=2)
    with TraceRecorder(tmp_path / "run.parquet", loss_fn, param_norms=named) as recorder:
        for _ in range(5):
            out = model(torch.randn(8, 3))
            losses = [out[:, 0].square().mean(), out[:, 1].abs().mean()]
            total = loss_fn(*losses, shared_params=shared)
            recorder.log(losses)
            total.backward()
    trace = read_trace(tmp_path / "run.parquet")
    assert trace.metadata["param_names"] == ["0.weight", "0.bias"]
    for i, task in enumerate(trace.tasks):
        norms = trace.param_norms[task]
        assert np.isnan(norms[:2]).all()
        # Together they are the norm that the controller read.
        np.testing.assert_allclose(
            np.sqrt((norms[2:] ** 2).sum(axis=1)), trace.grad_norms[2:, i], rtol=1e-5
        )


def test_parameter_norms_after_backward_are_refused(tmp_path, w):
    loss_fn = GABALoss(warmup_steps=0)
    recorder = TraceRecorder(tmp_path / "run.arrows", loss_fn, param_norms={"w": w})
    losses = [(w[0] ** 2).sum(), (w[1] ** 2).sum()]
    loss_fn(*losses, shared_params=[w]).backward()
    with pytest.raises(InputError, match="call log before"):
        recorder.log(losses)
    recorder.close()


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_every_is_checked(tmp_path, every):
    with pytest.raises(InputError, match="whole number >= 1"):
        TraceRecorder(tmp_path / "run.arrows", GABALoss(), every=every)
    assert os.listdir(tmp_path) == []


def test_the_clock_may_jump(tmp_path, w, monkeypatch):
    loss_fn = GABALoss(warmup_steps=0)
    monkeypatch.setattr(time, "time", lambda: -1e9)
    with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
        run(recorder, loss_fn, w, 3)
    wall = read_trace(tmp_path / "run.parquet").wall_time
    assert (wall >= 0).all()
    assert wall[-1] < 60


def test_nothing_waits_for_the_device_between_flushes(tmp_path, w, monkeypatch):
    loss_fn = GABALoss(warmup_steps=0)
    recorder = TraceRecorder(tmp_path / "run.arrows", loss_fn, every=50)
    run(recorder, loss_fn, w, 1)

    def waits(*args, **kwargs):
        raise AssertionError("a host synchronisation")

    losses = losses_of(w)
    total = loss_fn(*losses, shared_params=[w])
    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, waits)
    recorder.log(losses)
    monkeypatch.undo()
    del total
    recorder.close()
    assert len(read_trace(tmp_path / "run.arrows")) == 2


def test_excitation_is_recorded_and_replayed(tmp_path, w):
    from gabactl.nn.excitation import Excitation
    from gabactl.nn.losses.excited import ExcitedLoss

    loss_fn = ExcitedLoss(GABALoss(warmup_steps=3), Excitation(amplitude=0.5, period=4, seed=1))
    with TraceRecorder(tmp_path / "run.parquet", loss_fn, excitation=True) as recorder:
        run(recorder, loss_fn, w, 30)
    trace = read_trace(tmp_path / "run.parquet")
    assert set(np.abs(trace.excitation)) == {0.5}
    assert trace.balancer == "gaba"
    assert trace.spec.warmup == 3
    assert check(trace).ok is True
    assert check(trace.replace(excitation=None)).ok is False


class TestSensor:
    """The record names its sensor, and a replay acts on it."""

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda m: GABALoss(interval=7), {"name": "full", "coasts": False, "interval": 7}),
            (
                lambda m: GABALoss(sensor=EventSensor(0.05)),
                {
                    "name": "event",
                    "coasts": True,
                    "budget": 0.05,
                    "reading_cost": 1.2,
                    "tolerance": 0.02,
                    "interval": 1,
                },
            ),
            (
                lambda m: GABALoss(sensor=RepresentationSensor(m), reduce="mean_of_norms"),
                {
                    "name": "representation",
                    "coasts": False,
                    "recalibrate_every": 10,
                    "interval": 1,
                    "reduce": "mean_of_norms",
                },
            ),
            (
                lambda m: GABALoss(sensor=LastLayerSensor(m.parameters(), recalibrate_every=None)),
                {"name": "last_layer", "coasts": False, "recalibrate_every": None, "interval": 1},
            ),
            (
                lambda m: GABALoss(sensor=SubsetSensor(lambda x: [x, x], 0.5)),
                {"name": "subset", "coasts": False, "fraction": 0.5, "of": "batch", "interval": 1},
            ),
            (
                lambda m: FixedLoss(measure_every=3),
                {"name": "full", "coasts": False, "interval": 3},
            ),
            (lambda m: GradNormLoss(), {"name": "full", "coasts": False, "interval": 1}),
            (lambda m: FixedLoss(), None),
        ],
    )
    def test_named(self, tmp_path, make, expected):
        loss_fn = make(torch.nn.Linear(2, 2))
        with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
            assert recorder._writer.metadata.get("sensor") == expected

    @pytest.mark.parametrize("floor_mode", ["renormalise", "clamp_state"])
    @pytest.mark.parametrize("double", [True, False])
    def test_an_event_run_is_replayed(self, tmp_path, floor_mode, double):
        rng = np.random.default_rng(0)
        loss_fn = GABALoss(warmup_steps=10, floor_mode=floor_mode, sensor=EventSensor(0.05))
        kind = torch.float64 if double else torch.float32
        loss_fn = loss_fn.to(kind)
        with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
            for step in range(600):
                v = torch.ones(2, dtype=kind, requires_grad=True)
                g = rng.lognormal([0.004 * step, 0.0], 0.4)
                if step == 300:
                    g[0] = np.nan
                losses = [g[0] * v[0], g[1] * v[1]]
                loss_fn.forward_k(losses, [v])
                recorder.log(losses)
        trace = read_trace(tmp_path / "run.parquet")
        assert 10 < trace.measured.sum() < 60
        found = check(trace)
        assert found.ok is True
        assert found.readings == trace.measured.sum()
        assert found.max_abs_error_ema < (1e-12 if double else 5e-6)
        # What happens without the sensor's name: the average would stand still in between.
        nameless = trace.replace(metadata={**trace.metadata, "sensor": None})
        assert check(nameless).ok is False

    def test_an_interval_run_is_replayed(self, tmp_path):
        loss_fn = GABALoss(warmup_steps=3, interval=5).double()
        v = torch.ones(2, dtype=torch.float64, requires_grad=True)
        with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
            run(recorder, loss_fn, v, 60)
        found = check(read_trace(tmp_path / "run.parquet"))
        assert found.ok is True
        assert found.readings == 12

    def test_a_resume_with_another_sensor_is_refused(self, tmp_path, w):
        path = tmp_path / "run.arrows"
        loss_fn = GABALoss(warmup_steps=2, sensor=EventSensor(0.05))
        with TraceRecorder(path, loss_fn) as recorder:
            run(recorder, loss_fn, w, 4)
        other = GABALoss(warmup_steps=2, sensor=EventSensor(0.1))
        other.load_state_dict(loss_fn.state_dict())
        with pytest.raises(InputError, match="other sensor"):
            TraceRecorder(path, other, resume=True)
        TraceRecorder(path, loss_fn, resume=True).close()


UNCLOSED = """
import os, sys, torch
from gabactl.nn import GABALoss, TraceRecorder

w = torch.ones(2, requires_grad=True)

def train(path):
    loss_fn = GABALoss(warmup_steps=2)
    recorder = TraceRecorder(path, loss_fn, every=1000)
    for _ in range(25):
        losses = [3.0 * w[0], w[1] * w[1]]
        loss_fn(*losses, shared_params=[w])
        recorder.log(losses)
    return recorder

folder = sys.argv[1]
kept = train(folder + "/kept.arrows")
dropped = train(folder + "/dropped.arrows")
del dropped
if os.fork() == 0:
    sys.exit()
os.wait()
raise SystemExit("an error of the user's")
"""


def test_a_program_that_ends_without_closing_loses_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", UNCLOSED, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "an error of the user's\n"
    for name in ("kept", "dropped"):
        trace = read_trace(tmp_path / f"{name}.arrows")
        assert trace.step.tolist() == list(range(1, 26))
        assert trace.truncated  # nobody said that this was the end
        assert check(trace).ok is True


def test_rows_that_cannot_be_written_at_the_end_are_counted(tmp_path, w, capsys, monkeypatch):
    loss_fn = GABALoss()
    recorder = TraceRecorder(tmp_path / "run.parquet", loss_fn)
    run(recorder, loss_fn, w, 3)

    def full(*args):
        raise InputError("the disk is full")

    monkeypatch.setattr(recorder._writer, "append", full)
    del recorder
    assert capsys.readouterr().err == "3 steps were not recorded: the disk is full\n"
