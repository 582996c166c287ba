"""Recording survives: kills, cuts at any byte, flipped bytes, a full disk, a second writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers_traces import TASKS, assert_rows_are_true, some_columns, trace_or_complaint, write_some

from gabactl.base.errors import InputError
from gabactl.runs.watch import Watcher
from gabactl.traces import TraceWriter, finish, iter_trace, read_trace, write_parquet
from gabactl.traces.reader import open_stream
from gabactl.traces.stream import END, StreamReader


@pytest.fixture
def stream(tmp_path):
    return write_some(tmp_path / "run.arrows", finish=False)


@pytest.fixture
def small(tmp_path):
    return write_some(tmp_path / "small.arrows", groups=("grad_norm", "ema"), finish=False)


def test_a_run_that_was_not_closed_is_readable_and_says_so(stream):
    trace = read_trace(stream)
    assert trace.truncated
    assert_rows_are_true(trace, 12)
    assert [len(piece) for piece in iter_trace(stream)] == [12]


def test_a_clean_end_leaves_parquet_alone(tmp_path):
    path = write_some(tmp_path / "run.parquet")
    assert path.name == "run.parquet"
    assert os.listdir(tmp_path) == ["run.parquet"]
    trace = read_trace(path)
    assert not trace.truncated
    assert trace.metadata["seed"] == 3
    assert_rows_are_true(trace, 12)


def test_a_cut_at_every_byte_gives_whole_batches_or_one_line(small, tmp_path):
    data = small.read_bytes()
    cut = tmp_path / "cut.arrows"
    seen = set()
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        trace = trace_or_complaint(cut)
        if isinstance(trace, str):
            assert "nothing was recorded" in trace
            assert "\n" not in trace
            seen.add(0)
            continue
        assert trace.truncated
        assert len(trace) % 4 == 0
        assert_rows_are_true(trace, len(trace))
        seen.add(len(trace))
    assert seen == {0, 4, 8}


def test_a_tail_of_zeros_is_a_cut(stream):
    # A file system may have grown the file before the power failed, and never filled it.
    whole = stream.stat().st_size
    with open(stream, "ab") as file:
        file.write(bytes(5000))
    assert_rows_are_true(read_trace(stream), 12)
    os.truncate(stream, whole - 100)
    with open(stream, "ab") as file:
        file.write(bytes(100))
    assert_rows_are_true(read_trace(stream), 8)


def flipped(small, tmp_path, masks):
    """Flip bits of each byte behind the header; how often the file was refused, and so on."""
    data = small.read_bytes()
    with open(small, "rb") as file:
        header = StreamReader(file, len(data), "run").good_end
    bad = tmp_path / "bad.arrows"
    found = {"refused": 0, "shortened": 0, "harmless": 0}
    for at in range(header, len(data)):
        for mask in masks(at):
            bad.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            trace = trace_or_complaint(bad)
            if isinstance(trace, str):
                assert "\n" not in trace
                found["refused"] += 1
                continue
            assert_rows_are_true(trace, len(trace))
            found["harmless" if len(trace) == 12 else "shortened"] += 1
    return found


def test_no_flipped_byte_invents_a_row(small, tmp_path):
    found = flipped(small, tmp_path, lambda at: [1 << at % 8])
    # Padding is harmless; a damaged last batch is left out; all else is refused.
    assert min(found.values()) > 100
    assert found["refused"] > found["harmless"]


@pytest.mark.slow
def test_no_flipped_bit_invents_a_row(small, tmp_path):
    flipped(small, tmp_path, lambda at: [*(1 << bit for bit in range(8)), 0xFF])


def test_flipped_header_bytes_never_raise_anything_else(small, tmp_path):
    data = small.read_bytes()
    bad = tmp_path / "bad.arrows"
    for at in range(1100):
        bad.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        assert "\n" not in str(trace_or_complaint(bad))


def test_damage_in_the_middle_is_refused_and_can_be_salvaged(stream):
    data = bytearray(stream.read_bytes())
    # In the values of the second batch: beside them lies padding, which nothing reads.
    at = data.index(np.arange(5, 9).astype("<i8").tobytes())
    data[at : at + 8] = b"\x55" * 8
    stream.write_bytes(data)
    with pytest.raises(InputError, match=r"--salvage` keeps the batches before it$"):
        read_trace(stream)
    assert_rows_are_true(read_trace(stream, salvage=True), 4)
    path, rows = finish(stream, salvage=True)
    assert rows == 4
    assert read_trace(path).truncated


def test_a_wrong_length_does_not_hide_the_batches_behind_it(stream):
    data = bytearray(stream.read_bytes())
    first = data.index(b"\xff\xff\xff\xff", 8)
    data[first + 5] ^= 0x40
    stream.write_bytes(data)
    for attempt in (read_trace, TraceWriter.resume):
        with pytest.raises(InputError, match="declares a wrong size"):
            attempt(stream)
    assert stream.read_bytes() == data


def test_a_batch_cannot_lose_its_checksum(stream):
    # Found by fuzzing: one flipped byte in the key, another in the values.
    data = stream.read_bytes()
    # The metadata's own, the promise, and the first batch's.
    metadata = data.index(b'"crc32":')
    promise = data.index(b"crc32", metadata + 8)
    first = data.index(b"crc32", promise + 1)
    assert promise < first
    stream.write_bytes(data[:first] + b"crc33" + data[first + 5 :])
    with pytest.raises(InputError, match="the checksum of the values differs"):
        read_trace(stream)


def test_bytes_after_the_end_marker_are_refused(tmp_path):
    path = write_some(tmp_path / "run.arrows")
    assert path.read_bytes().endswith(END)
    assert not read_trace(path).truncated
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="4 bytes follow the end marker"):
        read_trace(path)


@pytest.mark.parametrize("tail", [0, 1, 7, 8, 100, 350])
def test_resume_drops_a_partial_tail_and_goes_on(stream, tail):
    data = stream.read_bytes()
    with open(stream, "ab") as file:
        file.write(data[data.rindex(b"\xff\xff\xff\xff") :][:tail])
    writer = TraceWriter.resume(stream)
    assert (writer.last_step, writer.rows, writer.last_wall_time) == (12, 12, 0.12)
    writer.append(*some_columns(13, 5))
    writer.close()
    trace = read_trace(stream)
    assert not trace.truncated
    assert_rows_are_true(trace, 17)


def test_resume_and_nothing_else_still_drops_the_tail(stream):
    with open(stream, "ab") as file:
        file.write(b"\xff\xff\xff\xff\x10\0\0\0" + bytes(8))
    TraceWriter.resume(stream).close()
    assert not read_trace(stream).truncated


@pytest.mark.parametrize("keep", [0, 5, 8, 12, 40])
def test_resume_can_go_back_to_a_checkpoint(stream, keep):
    writer = TraceWriter.resume(stream, after_step=keep)
    assert writer.last_step == min(keep, 12)
    writer.append(*some_columns(writer.last_step + 1, 20))
    writer.close()
    assert_rows_are_true(read_trace(stream), min(keep, 12) + 20)


def test_resume_after_a_clean_end(tmp_path):
    path = write_some(tmp_path / "run.parquet")
    writer = TraceWriter.resume(path)
    assert writer.path.name == "run.arrows"
    writer.append(*some_columns(13, 3))
    assert not read_trace(path).truncated  # the finished file stays until the new one is whole
    assert_rows_are_true(read_trace(path), 12)
    writer.close()
    assert_rows_are_true(read_trace(path), 15)
    assert not read_trace(path).truncated
    assert os.listdir(tmp_path) == ["run.parquet"]


def test_a_recording_of_another_writer_without_its_last_step_is_not_resumed(stream):
    with open_stream(stream) as source:
        schema, columns = source.schema, next(iter(source.batches())).columns
    columns[schema.get_field_index("step")] = pa.array([1, 2, 3, None], pa.int64())
    unsealed = {k: v for k, v in schema.metadata.items() if k != b"gabactl.checksum"}
    schema = schema.with_metadata(unsealed)
    with pa.OSFile(str(stream), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema))
    with pytest.raises(InputError, match="row 4 has no step"):
        TraceWriter.resume(stream)
    with pytest.raises(InputError, match="row 4 has no step"):
        read_trace(stream)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\xd0a"])
def test_a_column_whose_name_is_no_text(stream, name):
    data = stream.read_bytes()
    stream.write_bytes(data.replace(b"wall_time"[:2], name, 1))
    for read in (read_trace, lambda path: Watcher(path).look(), TraceWriter.resume, finish):
        with pytest.raises(InputError, match="not UTF-8"):
            read(stream)


def test_an_earlier_recording_is_not_overwritten(tmp_path):
    path = write_some(tmp_path / "run.parquet")
    with pytest.raises(InputError, match="there is a recording already: resume it"):
        TraceWriter(path, TASKS)
    assert_rows_are_true(read_trace(path), 12)
    write_some(path, batches=1, overwrite=True)
    assert_rows_are_true(read_trace(path), 4)


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "run.arrows"
    with TraceWriter(path, TASKS) as writer:
        writer.append(*some_columns(1, 4))
        for attempt in (
            lambda: TraceWriter(path, TASKS, overwrite=True),
            lambda: TraceWriter.resume(path),
            lambda: finish(path),
        ):
            with pytest.raises(InputError, match="this process is recording into it already"):
                attempt()
        assert_rows_are_true(read_trace(path), 4)  # reading is always allowed
        writer.append(*some_columns(5, 4))
    assert_rows_are_true(read_trace(path), 8)
    assert os.listdir(tmp_path) == ["run.arrows"]


def test_rows_must_continue(stream):
    with TraceWriter.resume(stream) as writer:
        for first in (12, 3):
            with pytest.raises(InputError, match="do not continue after step 12"):
                writer.append(*some_columns(first, 2))
        with pytest.raises(InputError, match="unknown column 'lr'"):
            writer.append({"step": [13], "lr": [0.1]})
        with pytest.raises(InputError, match="has shape"):
            writer.append({"step": [13, 14], "ema_rul": [0.1]})
    with pytest.raises(InputError, match="the writer is closed"):
        writer.append(*some_columns(13, 2))
    assert_rows_are_true(read_trace(stream), 12)


@pytest.mark.parametrize("retry", [True, False])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, retry):
    path = tmp_path / "run.arrows"
    writer = TraceWriter(path, TASKS)
    writer.append(*some_columns(1, 4))
    real = writer._file

    class Full:
        """Takes half of what it is given, then is full."""

        def __init__(self):
            self.left = 300

        def write(self, data):
            if self.left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = real.write(data[: self.left])
            self.left -= count
            return count

        def __getattr__(self, name):
            return getattr(real, name)

    writer._file = Full()
    with pytest.raises(InputError, match=r"No space left on device.*up to step 4 is safe"):
        writer.append(*some_columns(5, 4))
    assert_rows_are_true(read_trace(path), 4)
    writer._file = real
    if retry:
        writer.append(*some_columns(5, 4))
    writer.close()
    assert not read_trace(path).truncated
    assert_rows_are_true(read_trace(path), 8 if retry else 4)


def test_a_full_disk_when_finishing_keeps_the_stream(stream, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        finish(stream)
    assert os.listdir(stream.parent) == ["run.arrows"]
    assert_rows_are_true(read_trace(stream), 12)


@pytest.mark.parametrize("path", ["missing/run.parquet", "run.csv", "run"])
def test_places_that_cannot_be_recorded_into(tmp_path, path):
    with pytest.raises(InputError) as caught:
        TraceWriter(tmp_path / path, TASKS)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a/b", "été", "task 0", "x" * 200])
def test_task_names_are_free(tmp_path, name):
    path = tmp_path / "run.parquet"
    with TraceWriter(path, [name, "other"], groups=["grad_norm"]) as writer:
        writer.append({"step": [1], f"grad_norm_{name}": [1.0], "grad_norm_other": [2.0]})
    assert read_trace(path).tasks == (name, "other")


KILLED = """
    import sys, numpy as np
    sys.path.insert(0, sys.argv[2])
    from helpers_traces import TASKS, some_columns
    from gabactl.traces import TraceWriter
    writer = TraceWriter(sys.argv[1], TASKS)
    for i in range(100000):
        writer.append(*some_columns(1 + 10 * i, 10))
        print(10 * (i + 1), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_dash_nine_keeps_every_flush(tmp_path):
    path = tmp_path / "run.parquet"
    folder = os.path.dirname(__file__)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path), folder],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(25):
        flushed = int(process.stdout.readline())
    time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    flushed = max([flushed, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    stream = tmp_path / "run.arrows"
    trace = read_trace(stream)
    assert trace.truncated
    assert len(trace) >= flushed >= 250
    assert_rows_are_true(trace, len(trace))
    # The lock went with the process, though its file is still there.
    assert (tmp_path / "run.arrows.lock").exists()
    with TraceWriter.resume(path, after_step=200) as writer:
        writer.append(*some_columns(201, 10))
    assert_rows_are_true(read_trace(path), 210)
    assert sorted(os.listdir(tmp_path)) == ["run.parquet"]


def test_float32_and_parameter_norms(tmp_path):
    path = tmp_path / "run.parquet"
    rng = np.random.default_rng(0)
    norms = rng.random((6, 3))
    with TraceWriter(
        path,
        TASKS,
        groups=["grad_norm", "ema"],
        dtypes={"grad_norm": "float32", "ema": "float32"},
        excitation=True,
        param_names=["a.weight", "a.bias", "b.weight"],
    ) as writer:
        measured = np.array([0, 1, 1, 0, 1, 1], bool)
        for rows in (slice(0, 2), slice(2, 6)):
            steps = np.arange(1, 7)[rows]
            writer.append(
                {
                    "step": steps,
                    "grad_norm_rul": steps + 0.1,
                    "grad_norm_health": steps + 0.2,
                    "ema_rul": steps / 10,
                    "ema_health": steps / 10,
                    "excitation": steps * 0.5,
                    "param_norms_rul": norms[rows],
                    "param_norms_health": 2 * norms[rows],
                },
                {
                    "param_norms_rul": measured[rows],
                    "grad_norm_rul": measured[rows],
                    "grad_norm_health": measured[rows],
                },
            )
        trace = read_trace(writer.path)
        pieces = list(iter_trace(writer.path))
    # Arrow before 26 writes null lists of fixed size into Parquet and cannot read them.
    again = write_parquet(trace, tmp_path / "again.parquet")
    for file in (path, again):
        assert pq.read_table(file).column("param_norms_rul").null_count == 0
    for read in (trace, read_trace(path)):
        assert read.precision == "float32"
        np.testing.assert_array_equal(read.param_norms["health"], 2 * norms)
        np.testing.assert_array_equal(read.param_norms["rul"][measured], norms[measured])
        assert np.isnan(read.param_norms["rul"][~measured]).all()
        np.testing.assert_array_equal(read.excitation, np.arange(1, 7) * 0.5)
        assert read.grad_norms[1, 0] == np.float32(2.1)
    np.testing.assert_array_equal(
        np.concatenate([p.param_norms["health"] for p in pieces]), 2 * norms
    )
