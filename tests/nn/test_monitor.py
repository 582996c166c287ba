"""From the recorder to TensorBoard, and back into a trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gabactl.base.errors import InputError
from gabactl.nn import GABALoss, TraceRecorder
from gabactl.nn.recording.monitor import BoardMonitor
from gabactl.traces import read_trace

board = pytest.importorskip("torch.utils.tensorboard")


def train(folder, steps, **options):
    loss_fn = GABALoss(warmup_steps=5)
    w = torch.ones(2, requires_grad=True)
    writer = board.SummaryWriter(str(folder / "board"))
    states = []
    with TraceRecorder(folder / "run.parquet", loss_fn, every=10) as recorder:
        monitor = BoardMonitor(writer, recorder, **options)
        for step in range(steps):
            losses = [(500.0 + step) * w[0], 1.0 * w[1]]
            loss_fn(*losses, shared_params=[w])
            recorder.log(losses)
            if step % 7 == 0:
                states.append(monitor.update())
    states.append(monitor.update())
    writer.close()
    return states


def test_the_event_files_hold_what_the_trace_does(tmp_path):
    states = train(tmp_path, 60, every=1, figures=False)
    assert states[0] is None
    assert states[-1].step == 60
    assert not states[-1].running
    trace, back = read_trace(tmp_path / "run.parquet"), read_trace(tmp_path / "board")
    assert back.tasks == trace.tasks
    for name in ("step", "grad_norms", "raw", "ema", "weights", "losses"):
        np.testing.assert_array_equal(getattr(back, name), getattr(trace, name), err_msg=name)


def test_figures_are_there_and_can_be_left_out(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, 25, every=5)
    found = EventAccumulator(str(tmp_path / "board")).Reload().Tags()
    assert found["images"] == ["balance/run"]
    assert "balance/saturated_for" in found["scalars"]
    (tmp_path / "b").mkdir()
    train(tmp_path / "b", 25, figures=False)
    assert not EventAccumulator(str(tmp_path / "b" / "board")).Reload().Tags()["images"]


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="SummaryWriter"):
        BoardMonitor(object(), object())
    with pytest.raises(InputError, match="every"):
        BoardMonitor(object(), object(), every=0)
