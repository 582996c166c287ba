"""Ctrl-C between any two instructions of the recorder: every logged row is in the file, once."""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gabactl import InputError  # noqa: E402
from gabactl.nn import GABALoss, TraceRecorder  # noqa: E402
from gabactl.traces import finish, read_trace  # noqa: E402

#: Where a recording is at work: the interrupt falls into these files.
PLACES = ("recorder.py", "writer.py", "stream.py")
STEPS = 4


class InterruptAfter:
    """Raise KeyboardInterrupt before the n-th instruction in the recorder's files; 0: never."""

    def __init__(self, instructions: int) -> None:
        self.left = instructions
        self.seen = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(PLACES):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.seen += 1
            if self.seen == self.left:
                raise KeyboardInterrupt
        return self


def record(file: Path, every: int, interrupt: InterruptAfter) -> tuple[int, bool]:
    """Rows whose ``log`` returned, and whether the interrupt came."""
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    loss = GABALoss(warmup_steps=1)
    logged, before = 0, sys.gettrace()
    try:
        with TraceRecorder(file, loss, every=every) as recorder:
            sys.settrace(interrupt)
            try:
                for step in range(1, STEPS + 1):
                    losses = [float(step) * w[0], 0.5 * w[1]]
                    loss(*losses, shared_params=[w])
                    recorder.log(losses)
                    logged += 1
            except KeyboardInterrupt:
                sys.settrace(before)  # one Ctrl-C
                raise
            # With the tracing on, so that the interrupt may fall into the end of the block too.
        return logged, False
    except KeyboardInterrupt:
        return logged, True
    finally:
        sys.settrace(before)


def boundaries(every: int, tmp_path: Path) -> int:
    counted = InterruptAfter(0)
    record(tmp_path / "count.arrows", every, counted)
    return counted.seen


@pytest.mark.parametrize("every", [1, 2, 7])
@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=[pytest.mark.slow], id="many")])
def test_no_row_is_lost_or_doubled_by_an_interrupt(tmp_path: Path, every: int, count: int) -> None:
    total = boundaries(every, tmp_path)
    assert total > 300
    came = 0
    for n in random.Random(every).sample(range(1, total), min(count, total - 1)):
        file = tmp_path / f"{n}.arrows"
        logged, interrupted = record(file, every, InterruptAfter(n))
        came += interrupted
        steps: list[int] = []
        with contextlib.nullcontext() if logged else contextlib.suppress(InputError):
            steps = read_trace(file).step.tolist()
        # The row of an interrupted ``log`` may be there or not; one whose call returned is.
        assert steps in (list(range(1, logged + 1)), list(range(1, logged + 2))), n
        with TraceRecorder(file, GABALoss(), overwrite=True):  # nobody holds it any more
            pass
    assert came == min(count, total - 1)


@pytest.mark.parametrize("rows", [(1, 1), (2, 3), (1, 1, 1)])
def test_a_recording_with_rows_written_twice_is_read(tmp_path: Path, rows: tuple[int, ...]) -> None:
    """What versions before this one left behind: the batch again, then perhaps more rows."""
    import numpy as np

    from gabactl.traces.writer import TraceWriter

    file = tmp_path / "run.arrows"
    writer = TraceWriter(file, ["a", "b"], groups=["grad_norm"])
    norms = np.array([[1.0, 2.0], [np.nan, 2.0], [3.0, 4.0]])
    for n in rows:
        writer._written = writer._written._replace(last_step=0, rows=0)
        writer.append(
            {
                "step": np.arange(1, n + 1),
                "grad_norm_a": norms[:n, 0],
                "grad_norm_b": norms[:n, 1],
            }
        )
    writer.close(finish=False)
    assert read_trace(file).step.tolist() == list(range(1, max(rows) + 1))
    target = tmp_path / "run.parquet"
    finish(file, target)
    assert np.array_equal(read_trace(target).grad_norms, norms[: max(rows)], equal_nan=True)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("size", [0, 5, 100])
def test_a_job_killed_before_its_first_header_starts_by_itself(
    tmp_path: Path, resume: bool, size: int
) -> None:
    file = tmp_path / "run.arrows"
    record(file, 1, InterruptAfter(0))
    file.write_bytes(file.read_bytes()[:size])
    with TraceRecorder(file, GABALoss(), resume=resume) as recorder:
        assert recorder.last_step == 0
