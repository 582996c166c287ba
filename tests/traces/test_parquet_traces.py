"""Parquet and metadata: what is refused, and how; nothing is trusted for being declared."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers_traces import TASKS, assert_rows_are_true, trace_or_complaint, write_some

from gabactl import GabaSpec
from gabactl.base.errors import InputError
from gabactl.traces import (
    Trace,
    bundled,
    convert,
    iter_trace,
    load_bundled,
    load_trace,
    read_trace,
    write_parquet,
)
from gabactl.traces.metadata import METADATA_KEY, parse_metadata

GOOD = {"schema_version": 1, "tasks": TASKS}


@pytest.fixture
def parquet(tmp_path):
    return write_some(tmp_path / "run.parquet")


def write_table(path, columns, metadata=GOOD, **options):
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: text})
    pq.write_table(table, path, **options)
    return path


def columns(n=3, **changes):
    good = {
        "step": pa.array(range(1, n + 1), pa.int64()),
        "grad_norm_rul": pa.array([1.0] * n, pa.float64()),
        "grad_norm_health": pa.array([2.0] * n, pa.float64()),
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def complaint(path):
    answer = trace_or_complaint(path)
    assert isinstance(answer, str), answer
    assert "\n" not in answer
    assert str(path) in answer
    return answer


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({**GOOD, "schema_version": 2}, "schema version 2 is unknown here"),
        ({**GOOD, "schema_version": "1"}, "schema version '1' is unknown"),
        ({**GOOD, "schema_version": True}, "schema version True is unknown"),
        ({"tasks": TASKS}, "schema version None is unknown"),
        ({"schema_version": 1}, "two or more different names"),
        ({**GOOD, "tasks": "rul"}, "'tasks' is a str"),
        ({**GOOD, "tasks": ["rul"]}, "two or more different names"),
        ({**GOOD, "tasks": ["rul", 1]}, "two or more different names"),
        ({**GOOD, "tasks": [f"t{i}" for i in range(2000)]}, "2000 names"),
        ({**GOOD, "spec": {"beta": 1.5}}, "beta = 1.5"),
        ({**GOOD, "spec": {"bta": 0.5}}, "unknown setting 'bta'"),
        ({**GOOD, "spec": {"n_tasks": 3}}, "n_tasks = 3, but there are 2 tasks"),
        ({**GOOD, "spec": []}, "'spec' is a list"),
        ({**GOOD, "seed": "x"}, "'seed' is a str"),
        ({**GOOD, "param_names": [1]}, "list of strings"),
        ({**GOOD, "sensor": "full"}, "'sensor' is a str"),
        ({**GOOD, "sensor": {}}, "sensor name = None must be a name"),
        ({**GOOD, "sensor": {"name": "event", "coasts": 1}}, "sensor coasts = 1 must be true"),
        ({**GOOD, "sensor": {"name": "full", "interval": 0}}, "sensor interval = 0 must be"),
        ({**GOOD, "sensor": {"name": "full", "interval": True}}, "sensor interval = True must"),
        ({**GOOD, "sensor": {"name": "event", "budget": 2}}, "sensor budget = 2 must be"),
        (
            {**GOOD, "sensor": {"name": "full", "interval": 3}, "spec": {}},
            "the sensor interval = 3, the spec says interval = 1",
        ),
        (
            {**GOOD, "sensor": {"name": "event", "coasts": True}, "spec": {"interval": 2}},
            "the sensor coasts, the spec says interval = 2",
        ),
        (b"{", "not valid JSON"),
        (b"[1]", "no JSON object"),
        (b'{"schema_version": NaN}', "NaN is not JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_metadata(tmp_path, metadata, said):
    assert said in complaint(write_table(tmp_path / "run.parquet", columns(), metadata))


def test_no_metadata(tmp_path):
    pq.write_table(pa.table(columns()), tmp_path / "run.parquet")
    assert "no gabactl trace" in complaint(tmp_path / "run.parquet")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": None}, "no column step"),
        ({"step": pa.array([1.0, 2.0, 3.0])}, "'step' is of type double"),
        ({"step": pa.array([1, None, 3], pa.int64())}, "row 2 has no step"),
        ({"step": pa.array([1, 2, 2], pa.int64())}, "step 2 follows step 2"),
        ({"step": pa.array([3, 2, 1], pa.int64())}, "step 2 follows step 3"),
        ({"step": pa.array([-5, 2, 3], pa.int64())}, "first step is -5"),
        ({"grad_norm_rul": None}, "column grad_norm_rul is missing"),
        ({"grad_norm_rul": None, "grad_norm_health": None}, "no column grad_norm_rul"),
        ({"grad_norm_rul": pa.array(["a", "b", "c"])}, "is of type string"),
        ({"grad_norm_rul": pa.array([1.0, None, 1.0])}, "missing at step 2"),
        ({"grad_norm_rul": pa.array([1.0, -1.0, 1.0])}, "is -1.0: gradient norms are >= 0"),
        ({"other": pa.array([[1], [2], [3]])}, "is of type list"),
        ({"other": pa.array(["a", "b", "c"]).dictionary_encode()}, "is of type dictionary"),
        ({"param_norms_rul": pa.array([[1.0]] * 3, pa.list_(pa.float64(), 1))}, "of type fixed"),
        ({"ema_rul": pa.array([1.0] * 3)}, "column ema_health is missing"),
    ],
)
def test_columns(tmp_path, changes, said):
    assert said in complaint(write_table(tmp_path / "run.parquet", columns(**changes)))


def test_a_column_twice(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array([1], pa.int64()), pa.array([1.0]), pa.array([2.0])],
        names=["step", "grad_norm_rul", "grad_norm_rul"],
        metadata={METADATA_KEY: json.dumps(GOOD).encode()},
    )
    pq.write_table(table, tmp_path / "run.parquet")
    assert "is there twice" in complaint(tmp_path / "run.parquet")


def test_unknown_numeric_columns_are_ignored(tmp_path):
    path = write_table(tmp_path / "run.parquet", columns(lr=pa.array([1, 2, 3])))
    assert len(read_trace(path)) == 3


def test_no_rows(tmp_path):
    path = write_table(tmp_path / "run.parquet", columns(0))
    assert "no rows yet" in complaint(path)
    assert list(iter_trace(path)) == []


def test_truncated_parquet(parquet, tmp_path):
    data = parquet.read_bytes()
    cut = tmp_path / "cut.parquet"
    for length in [0, 1, 3, 4, 8, 11, 12, 100, len(data) // 2, len(data) - 8, len(data) - 1]:
        cut.write_bytes(data[:length])
        said = complaint(cut)
        assert "empty" in said or "stops before its end" in said or "damaged" in said


def test_a_huge_footer_is_refused_before_it_is_read(parquet):
    data = bytearray(parquet.read_bytes())
    for footer in (len(data), 1 << 30, 0xFFFFFFFF):
        data[-8:-4] = footer.to_bytes(4, "little")
        parquet.write_bytes(data)
        assert f"footer declares {footer} bytes" in complaint(parquet)


def test_a_huge_arrow_header_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "run.arrows"
    for length in (1 << 25, 0x7FFFFFFF, 0xFFFFFFFF):
        path.write_bytes(b"\xff\xff\xff\xff" + length.to_bytes(4, "little") + bytes(100))
        assert "declares a header of" in complaint(path)


def test_a_bomb_of_rows_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    # Constant columns of many rows pack into nothing; the footer tells.
    n = 1 << 20
    ones = pa.array(np.ones(n))
    path = write_table(
        tmp_path / "bomb.parquet",
        {"step": pa.array(np.ones(n, np.int64)), "grad_norm_rul": ones, "grad_norm_health": ones},
    )
    assert path.stat().st_size < 20_000
    monkeypatch.setattr("gabactl.traces.reader.MAX_CELLS", n)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)  # would be a TypeError
    assert f"declares {3 * n} numbers" in complaint(path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("run.parquet", b"PAR1"),
        ("run.parquet", b"PAR1" + bytes(20) + b"PAR1"),
        ("run.parquet", b"PAR1" + bytes(20) + b"\x14\0\0\0PAR1"),
        ("run.parquet", b"step,grad_norm_a\n"),
        ("run.arrows", b"step,grad_norm_a\n"),
        ("run.arrows", b"ARROW1\0\0" + bytes(50)),
        ("run.csv", b"\x89PNG\r\n\x1a\n\0\0"),
        ("run", bytes(64)),
        ("run.parquet", b"PK\x03\x04" + bytes(60)),
    ],
)
def test_other_bytes(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    complaint(tmp_path / name)


def _fuzzed(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 40])):
        kind = rng.random()
        at = rng.randrange(len(data))
        if kind < 0.6:
            data[at] = rng.randrange(256)
        elif kind < 0.75:
            data[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        elif kind < 0.9:
            del data[at : at + rng.randrange(1, 30)]
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 30))
        if len(data) < 8:
            break
    return bytes(data)


@pytest.mark.parametrize("rounds", [400, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["run.parquet", "run.arrows"])
def test_fuzzed_bytes(tmp_path, name, rounds):
    original = write_some(tmp_path / name, groups=("grad_norm", "ema")).read_bytes()
    rng = random.Random(rounds)
    path = tmp_path / f"bad-{name}"
    for _ in range(rounds):
        path.write_bytes(_fuzzed(original, rng))
        answer = trace_or_complaint(path)
        if isinstance(answer, str):
            assert "\n" not in answer
        elif name == "run.arrows":
            # The checksum knows: rows may be missing, none is invented.
            step = answer.step
            np.testing.assert_array_equal(step, np.arange(1, len(step) + 1))
            if answer.tasks == tuple(TASKS) and answer.ema is not None:
                assert_rows_are_true(answer, len(answer))


def test_parquet_bytes_are_checked_too(parquet):
    # Pages carry a checksum: a flipped bit in the data is an error, not another number.
    data = bytearray(parquet.read_bytes())
    refused = 0
    for at in range(4, 1200, 7):
        bad = bytearray(data)
        bad[at] ^= 0x10
        parquet.write_bytes(bad)
        answer = trace_or_complaint(parquet)
        if isinstance(answer, str):
            refused += 1
        else:
            assert_rows_are_true(answer, 12)
    assert refused > 100


# -- converting ---------------------------------------------------------------------------------


def test_round_trips_are_exact(tmp_path, parquet):
    first = read_trace(parquet)
    convert(parquet, tmp_path / "a.csv")
    second = convert(tmp_path / "a.csv", tmp_path / "b.parquet")
    third = read_trace(tmp_path / "b.parquet")
    for trace in (first, second, third):
        assert_rows_are_true(trace, 12)
    assert "seed" not in third.metadata


def test_a_recorded_nan_stays_one(tmp_path):
    trace = Trace.from_arrays(
        [[1.0, np.nan], [np.nan, np.nan], [np.inf, 0.0]], measured=[True, False, True]
    )
    for name in ("a.parquet", "a.csv"):
        path = tmp_path / name
        (write_parquet if name == "a.parquet" else _write_csv)(trace, path)
        back = read_trace(path)
        np.testing.assert_array_equal(back.grad_norms, trace.grad_norms)
        assert back.measured.tolist() == [True, False, True]


def _write_csv(trace, path):
    from gabactl.traces import write_csv

    write_csv(trace, path)


def test_convert_refuses(tmp_path, parquet):
    for output, said in (
        (parquet, "the input itself"),
        (tmp_path / "a.txt", "to .parquet or .csv"),
        (tmp_path / "none" / "a.csv", "cannot be written"),
    ):
        with pytest.raises(InputError, match=said):
            convert(parquet, output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.parquet"]


def test_traces_are_small(tmp_path):
    rng = np.random.default_rng(0)
    n = 2000
    norms = np.exp(rng.normal([5.0, -1.0], 0.5, (n, 2))).astype(np.float32)
    trace = Trace.from_arrays(
        norms,
        raw=norms,
        ema=norms,
        weights=norms,
        losses=norms,
        wall_time=np.cumsum(rng.random(n)),
        precision="float32",
        metadata={"spec": GabaSpec().to_dict()},
    )
    path = write_parquet(trace, tmp_path / "run.parquet")
    # 10 float32 columns and a float64 one: 96 kB of numbers.
    assert path.stat().st_size < 96_000


# -- bundled ------------------------------------------------------------------------------------


def test_bundled_traces_load_and_are_small():
    names = bundled()
    for name in names:
        trace = load_bundled(name)
        assert len(trace) > 0
        assert trace.source == name
        assert len(load_trace(name)) == len(trace)
    with pytest.raises(InputError, match="is unknown: choose one of"):
        load_bundled("../schema")


def test_metadata_survives_as_written():
    data = json.dumps({**GOOD, "mine": {"a": [1, None, "x"]}, "seed": None}).encode()
    assert parse_metadata(data, "run")["mine"] == {"a": [1, None, "x"]}
