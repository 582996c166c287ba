"""CSV made by others: forgiving about the dress, exact about the numbers."""

from __future__ import annotations

import csv
import io
import math
import os

import numpy as np
import pytest
from helpers_traces import trace_or_complaint
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.traces import iter_trace, read_trace


def read(tmp_path, text, name="run.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_trace(path)


HEADER = "step,grad_norm_a,grad_norm_b\n"


@pytest.mark.parametrize(
    "text",
    [
        "step,grad_norm_a,grad_norm_b\n1,2.5,3\n2,4,5e-1\n",
        "\ufeffstep,grad_norm_a,grad_norm_b\r\n1,2.5,3\r\n2,4,5e-1\r\n",
        "step,grad_norm_a,grad_norm_b\r1,2.5,3\r2,4,5e-1\r",
        "\n\nstep;grad_norm_a;grad_norm_b\n\n1;2.5;3\n\n2;4;5e-1",
        "step\tgrad_norm_a\tgrad_norm_b\n1\t2.5\t3\n2\t4\t5e-1\n\n\n",
        ' step , grad_norm_a ,"grad_norm_b"\n 1 , 2.5 ,"3"\n2.0,+4,.5\n',
        "grad_norm_a,grad_norm_b\n2.5,3\n4,0.5\n",
        "epoch,grad_norm_b,lr,grad_norm_a\nzero,3,1e-3,2.5\none,0.5,-,4\n",
    ],
    ids=["plain", "bom-crlf", "old-mac", "semicolon-blank", "tab", "spaces", "no-step", "others"],
)
def test_dress(tmp_path, text):
    trace = read(tmp_path, text)
    a = trace.tasks.index("a")
    np.testing.assert_array_equal(trace.grad_norms[:, [a, 1 - a]], [[2.5, 3.0], [4.0, 0.5]])
    assert trace.step.tolist() == [1, 2]
    assert trace.precision == "unknown"
    assert trace.spec is None
    assert not trace.truncated


def test_all_columns(tmp_path):
    trace = read(
        tmp_path,
        "step,wall_time,grad_norm_a,grad_norm_b,loss_a,loss_b,loss_total,raw_a,raw_b,ema_a,ema_b,"
        "weight_a,weight_b,excitation\n3,0.5,1,2,3,4,7,5,6,7,8,9,10,0.25\n",
    )
    assert trace.losses.tolist() == [[3.0, 4.0]]
    assert trace.raw.tolist() == [[5.0, 6.0]]
    assert trace.ema.tolist() == [[7.0, 8.0]]
    assert trace.weights.tolist() == [[9.0, 10.0]]
    assert trace.wall_time.tolist() == [0.5]
    assert trace.excitation.tolist() == [0.25]


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "null", "None", "  "])
def test_missing_values(tmp_path, missing):
    trace = read(tmp_path, f"{HEADER}1,{missing},{missing}\n2,1,nan\n")
    assert trace.measured.tolist() == [False, True]
    assert np.isnan(trace.grad_norms[0]).all()
    assert math.isnan(trace.grad_norms[1, 1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("\n\n", "no header line"),
        ("step,loss_a\n1,2\n", "no column grad_norm_<task>"),
        ("grad_norm_a\n1\n", "a trace has 2 to"),
        ("grad_norm_a,grad_norm_a\n1,2\n", "different names"),
        ("grad_norm_,grad_norm_b\n1,2\n", "different names"),
        ("grad_norm_a,grad_norm_b,step,step\n1,2,3,3\n", "'step' is there twice"),
        (HEADER, "no rows yet"),
        (HEADER + "1,2\n", "line 2 has 2 cells, the header 3"),
        (HEADER + "1,2,3,4\n", "line 2 has 4 cells"),
        (HEADER + "1,2,3\n2,x,3\n", "line 3, column grad_norm_a: 'x' is no number"),
        (HEADER + "1,1_000,3\n", "line 2, column grad_norm_a: '1_000' is no number"),
        (HEADER.replace(",", ";") + "1;0,5;3\n", "with a decimal point"),
        (HEADER + "1.5,2,3\n", "column step: 1.5 is no whole number"),
        (HEADER + "inf,2,3\n", "column step: inf is no whole number"),
        (HEADER + "1e300,2,3\n", "no whole number"),
        (HEADER + ",2,3\n", "line 2 has no step"),
        (HEADER + "0,2,3\n1,2,3\n", "the first step is 0: steps are counted from 1; add 1"),
        (HEADER + "1,2,3\n1,2,3\n", "step 1 follows step 1"),
        (HEADER + "2,2,3\n1,2,3\n", "step 1 follows step 2"),
        (HEADER + "1,-2,3\n", "grad_norm_a at step 1 is -2.0"),
        (HEADER + "1,2,-inf\n", "grad_norm_b at step 1 is -inf"),
        (HEADER + "1,2,\n", "grad_norm_b is missing at step 1"),
        ("grad_norm_a,grad_norm_b,ema_a\n1,2,3\n", "column ema_b is missing"),
        (HEADER + '1,"2,3\n', "is no CSV"),
        (HEADER + "1,2,3\0\n", "is no number"),
        (HEADER.encode() + b"1,\xff,3\n", "line 2 is not UTF-8"),
        (HEADER.encode("utf-16"), "UTF-16"),
        (HEADER + "1," + "9" * (1 << 20) + ",3\n", "longer than 1 MiB"),
        ("grad_norm_a,grad_norm_b" + ",x" * 600_000 + "\n", "longer than 1 MiB"),
    ],
)
def test_refusals_name_file_place_and_remedy(tmp_path, text, said):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    line = str(caught.value)
    assert "run.csv: " in line
    assert said in line
    assert "\n" not in line
    assert len(line) < 600


def test_line_numbers_count_blank_lines_and_quoted_ones(tmp_path):
    with pytest.raises(InputError, match="line 5, column grad_norm_b"):
        read(tmp_path, '\nnote,grad_norm_a,grad_norm_b\n"two\nlines",1,2\nx,1,y\n')


def test_a_folder_a_missing_file_and_a_pipe(tmp_path):
    with pytest.raises(InputError, match="check the path"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(InputError, match="no event file"):
        read_trace(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read .*null"):
        read_trace("a\0b")


@pytest.mark.timeout(30)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="not a regular file"):
        read_trace(tmp_path / "pipe.csv")


def test_long_files_come_in_pieces(tmp_path):
    rows = 40_000
    path = tmp_path / "run.csv"
    path.write_text("grad_norm_a,grad_norm_b\n" + "1,2\n" * rows)
    pieces = list(iter_trace(path))
    assert sum(len(piece) for piece in pieces) == rows
    assert len(pieces) > 1
    np.testing.assert_array_equal(
        np.concatenate([piece.step for piece in pieces]), np.arange(1, rows + 1)
    )


def test_order_is_checked_across_pieces(tmp_path):
    path = tmp_path / "run.csv"
    steps = [*range(1, 16385), 5]
    path.write_text(HEADER + "".join(f"{step},1,2\n" for step in steps))
    with pytest.raises(InputError, match=r"step 5 follows step 16384 \(row 16385\)"):
        list(iter_trace(path))


number = st.one_of(
    st.floats(0, 1e300), st.just(math.inf), st.just(math.nan), st.integers(0, 10**9).map(float)
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(number, number, st.floats(-1e9, 1e9)), min_size=1, max_size=8),
    gaps=st.lists(st.integers(1, 5), min_size=8, max_size=8),
    newline=st.sampled_from(["\n", "\r\n"]),
    separator=st.sampled_from([",", ";", "\t"]),
    bom=st.booleans(),
    quote=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_numbers_read_back_exactly(tmp_path_factory, rows, gaps, newline, separator, bom, quote):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=newline, quoting=quote)
    writer.writerow(["step", "grad_norm_x", "grad_norm_y", "loss_x", "loss_y"])
    steps = np.cumsum(gaps)[: len(rows)]
    for step, (x, y, loss) in zip(steps, rows, strict=True):
        writer.writerow([step, repr(x), repr(y), repr(loss), ""])
    path = tmp_path_factory.mktemp("csv") / "run.csv"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())
    trace = read_trace(path)
    assert trace.step.tolist() == steps.tolist()
    np.testing.assert_array_equal(trace.grad_norms, [row[:2] for row in rows])
    np.testing.assert_array_equal(trace.losses[:, 0], [row[2] for row in rows])
    assert np.isnan(trace.losses[:, 1]).all()


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda s: HEADER.encode() + s.encode("utf-8", "ignore")),
        st.lists(
            st.lists(st.sampled_from(["", "1", "-1", "nan", "x", '"', "\r", "1e999", "٣"]))
        ).map(lambda rows: (HEADER + "\n".join(",".join(r) for r in rows)).encode()),
    )
)
def test_anything_else_is_a_trace_or_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("csv") / "run.csv"
    path.write_bytes(data)
    answer = trace_or_complaint(path)
    if isinstance(answer, str):
        assert "\n" not in answer
    else:
        assert len(answer) > 0
        assert (np.diff(answer.step) > 0).all()
        assert not (answer.grad_norms < 0).any()
