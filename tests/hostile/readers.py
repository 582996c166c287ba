"""Every reader of files, with good inputs to start from and a way to make bad ones that get far.

A reader may answer with a value or with :class:`gabactl.errors.InputError`, in one short printable
line. What it returns must print, and become JSON. Anything else is a finding.
"""

from __future__ import annotations

import io
import json
import lzma
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hostile import mutate

READERS: dict[str, type[Reader]] = {}


class Reader:
    """One reader: good inputs, bad inputs, and the reading.

    Parameters
    ----------
    folder : path
        The only place in which a file may appear.
    """

    #: Name of the reader, and of the folder of its cases.
    name: ClassVar[str]
    #: Modules whose coverage guides the search.
    modules: ClassVar[tuple[str, ...]]
    #: Bytes of address space on top of what the idle process has.
    memory: ClassVar[int] = 1 << 30
    #: Packages without which it is left out.
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds: list[bytes] = self.good()

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "name"):
            READERS[cls.name] = cls

    def good(self) -> list[bytes]:
        """Inputs that are read without complaint."""
        raise NotImplementedError

    def bad(self, rng: random.Random) -> bytes:
        """One bad input."""
        raise NotImplementedError

    def read(self, data: bytes) -> Any:
        """Read it as the program would; the result prints and becomes JSON."""
        raise NotImplementedError

    def two(self, rng: random.Random) -> tuple[bytes, bytes]:
        """Two of the good inputs."""
        return rng.choice(self.seeds), rng.choice(self.seeds)

    def put(self, name: str, data: bytes) -> Path:
        """The data as a file."""
        file = self.folder / name
        with open(file, "wb") as sink:
            sink.write(data)
        return file


def show(*results: Any) -> None:
    """Print and write as JSON, as the command line would."""
    for result in results:
        str(result).encode("utf-8")
        result.to_json().encode("utf-8")


# -- traces --------------------------------------------------------------------------------------


def _traces() -> list[Any]:
    from gabactl.spec import GabaSpec
    from gabactl.traces import Trace

    rng = np.random.default_rng(1)
    norms = np.exp(rng.normal(size=(6, 2)))
    full = Trace.from_arrays(
        norms,
        tasks=("rul", "health"),
        raw=norms / norms.sum(1, keepdims=True),
        ema=norms / norms.sum(1, keepdims=True),
        weights=norms / norms.sum(1, keepdims=True),
        losses=norms,
        wall_time=np.arange(6.0),
        excitation=np.array([0.5, -0.5] * 3),
        metadata={
            "seed": 3,
            "balancer": "gaba",
            "versions": {"python": "3"},
            "spec": GabaSpec(warmup=1).to_dict(),
        },
        precision="float32",
    )
    gaps = Trace.from_arrays([[250.0, 0.5], [np.nan, np.nan], [300.0, 0.4]])
    three = Trace.from_arrays(np.exp(rng.normal(size=(40, 3))), tasks=("a", "b", "c d"))
    return [full, gaps, three]


class _Trace(Reader):
    modules = ("gabactl.traces",)
    suffix: ClassVar[str]

    def read(self, data: bytes) -> Any:
        from gabactl.errors import InputError
        from gabactl.traces import iter_trace, read_trace
        from gabactl.traces.info import trace_info

        file = self.put("trace" + self.suffix, data)
        # Three ways to read the same file: each input takes one or all, by its content.
        way = zlib.crc32(data) % 16
        if way == 0:
            try:
                read_trace(file, salvage=True)
            except InputError as error:
                _check_line(error)
        trace = read_trace(file)
        if (trace.grad_norms < 0).any() or (np.diff(trace.step) <= 0).any():
            raise AssertionError("a negative norm, or steps that do not increase")
        if way < 6:
            pieces = sum(len(piece) for piece in iter_trace(file))
            if len(trace) != pieces:
                raise AssertionError(f"{pieces} rows in pieces, {len(trace)} at once")
        if way > 8:
            show(trace_info(file))
        return trace


def _metadata(rng: random.Random, tree: Any) -> bytes:
    names = ("tasks", "spec", "schema_version", "complete", "param_names", "seed", "versions")
    return mutate.to_json(mutate.tree_of(rng, tree, names))


class Parquet(_Trace):
    name = "trace-parquet"
    suffix = ".parquet"
    memory = 3 << 30

    def good(self) -> list[bytes]:
        import pyarrow.parquet as pq

        from gabactl.traces import write_parquet

        out = []
        for trace in _traces():
            file = write_parquet(trace, self.folder / "seed.parquet")
            out.append(file.read_bytes())
            table = pq.read_table(file)
            for options in (
                {"compression": "snappy", "use_dictionary": True},
                {"compression": "none", "data_page_version": "2.0", "write_page_checksum": False},
                {"compression": "gzip", "row_group_size": 2, "data_page_size": 32},
            ):
                sink = io.BytesIO()
                pq.write_table(table, sink, **options)
                out.append(sink.getvalue())
        self.tables = [pq.read_table(io.BytesIO(data)) for data in out[::4]]
        return out

    def bad(self, rng: random.Random) -> bytes:
        kind = rng.random()
        if kind < 0.3:
            return self._rebuilt(rng)
        data, other = self.two(rng)
        if kind < 0.45:
            return mutate.bytes_of(rng, data, other)
        footer = int.from_bytes(data[-8:-4], "little")
        body, foot = data[4 : -8 - footer], data[-8 - footer : -8]
        if kind < 0.85:  # the footer, with its length mended
            foot = mutate.bytes_of(rng, foot, other, most=3)
        else:
            body = mutate.bytes_of(rng, body, other, most=3)
        return b"PAR1" + body + foot + len(foot).to_bytes(4, "little") + b"PAR1"

    def _rebuilt(self, rng: random.Random) -> bytes:
        """A sound file with unsound content."""
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        try:
            table = _strange_table(rng, rng.choice(self.tables))
            pq.write_table(
                table,
                sink,
                compression=rng.choice(("zstd", "none", "gzip")),
                row_group_size=rng.choice((1, 2, 1000)),
                store_schema=rng.random() < 0.9,
            )
        except Exception:  # a table that cannot be written is no input
            return self.seeds[0][: rng.randrange(len(self.seeds[0]))]
        return sink.getvalue()


def _strange_table(rng: random.Random, table: Any) -> Any:
    import pyarrow as pa

    header = json.loads(table.schema.metadata[b"gabactl"])
    metadata = {b"gabactl": _metadata(rng, header) if rng.random() < 0.6 else json.dumps(header)}
    columns = {name: table.column(name).combine_chunks() for name in table.schema.names}
    for _ in range(rng.randrange(3)):
        name = rng.choice(list(columns))
        kind = rng.randrange(6)
        values = columns[name].to_pylist()
        if kind == 0:
            del columns[name]
        elif kind == 1 and values:
            values[rng.randrange(len(values))] = rng.choice((None, 0, -1, 2**40, 1))
            columns[name] = pa.array(values, type=columns[name].type)
        elif kind == 2 and values and name != "step":
            values[rng.randrange(len(values))] = rng.choice(
                (float("nan"), float("inf"), 1e308, -1.0, 5e-324)
            )
            columns[name] = pa.array(values)
        elif kind == 3:
            columns[name] = columns[name].cast(
                rng.choice((pa.string(), pa.float16(), pa.float32())), safe=False
            )
        elif kind == 4:
            new = rng.choice(
                ("step", "wall_time", "param_norms_rul", "loss_a", "x", *mutate.TEXTS[:9])
            )
            columns[new] = columns.pop(name)
        else:
            columns[rng.choice(("x", "loss_a", "param_norms_a", "excitation"))] = rng.choice(
                (
                    pa.array([[1.0, 2.0]] * table.num_rows, pa.list_(pa.float64(), 2)),
                    pa.array(["a"] * table.num_rows).dictionary_encode(),
                    pa.array([{"a": 1}] * table.num_rows),
                    pa.array([True] * table.num_rows),
                    pa.nulls(table.num_rows),
                )
            )
    if not columns:
        return table
    out = pa.table(columns)
    if rng.random() < 0.1:
        out = out.slice(0, rng.randrange(out.num_rows + 1))
    return out.replace_schema_metadata(metadata)


class Stream(_Trace):
    name = "trace-arrow-stream"
    suffix = ".arrows"

    def good(self) -> list[bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from gabactl.traces import TraceWriter, write_parquet

        out, self.tables = [], []
        for trace in _traces():
            table = pq.read_table(write_parquet(trace, self.folder / "seed.parquet"))
            self.tables.append(table)
            file = self.folder / "seed.arrows"
            file.unlink(missing_ok=True)
            groups = [
                g
                for g in ("grad_norm", "raw", "ema", "weight", "loss")
                if f"{g}_{trace.tasks[0]}" in table.schema.names
            ]
            excited = "excitation" in table.schema.names
            with TraceWriter(
                file, trace.tasks, {"seed": 3}, groups=groups, excitation=excited, sync=False
            ) as writer:
                for start in range(0, table.num_rows, 3):
                    part = table.slice(start, 3)
                    columns = {n: part.column(n).to_numpy() for n in part.schema.names}
                    writer.append(columns)
            out.append(file.read_bytes())
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table, max_chunksize=2)
            out.append(sink.getvalue())  # without checksums, as others may write it
        out.append(out[0][:-8])
        out.append(out[0][:-30])
        return out

    def bad(self, rng: random.Random) -> bytes:
        kind = rng.random()
        if kind < 0.25:
            return self._rebuilt(rng)
        data, other = self.two(rng)
        if kind < 0.45:
            return mutate.bytes_of(rng, data, other)
        messages = _messages(data)
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(messages))
            header, body = messages[at]
            what = rng.randrange(8)
            if what <= 3:
                messages[at] = (mutate.bytes_of(rng, header, other, most=2), body)
            elif what == 4:
                messages[at] = (header, mutate.bytes_of(rng, body, other, most=2))
            elif what == 5:
                messages.insert(at, messages[rng.randrange(len(messages))])
            elif what == 6:
                del messages[at]
            else:
                messages[at] = (header, rng.choice(messages)[1])
            if not messages:
                break
        out = b""
        for header, body in messages:
            length = (
                len(header) if rng.random() < 0.97 else rng.choice((0, 1, -1, 1 << 24, 1 << 30))
            )
            out += b"\xff\xff\xff\xff" + struct.pack("<i", length) + header + body
        return out + (b"\xff\xff\xff\xff\0\0\0\0" if rng.random() < 0.5 else b"")

    def _rebuilt(self, rng: random.Random) -> bytes:
        import pyarrow as pa

        from gabactl.traces.stream import Framer

        try:
            table = _strange_table(rng, rng.choice(self.tables))
            framer = Framer(table.schema)
            parts = [framer.header]
            parts += [
                framer.frame(batch)
                for batch in table.to_batches(max_chunksize=rng.choice((1, 3, 100)))
            ]
        except (pa.ArrowException, AttributeError, TypeError, ValueError):
            return self.seeds[-1][: rng.randrange(900)]
        return b"".join(parts)


def _messages(data: bytes) -> list[tuple[bytes, bytes]]:
    from gabactl.traces.stream import _peek

    out, at = [], 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if length == 0 or at + 8 + length > len(data):
            break
        header = data[at + 8 : at + 8 + length]
        body = _peek(header)[1]
        out.append((header, data[at + 8 + length : at + 8 + length + body]))
        at += 8 + length + body
    return out


class Csv(_Trace):
    name = "trace-csv"
    suffix = ".csv"

    def good(self) -> list[bytes]:
        from gabactl.traces import write_csv

        out = [write_csv(t, self.folder / "seed.csv").read_bytes() for t in _traces()]
        return [
            *out,
            out[1].replace(b",", b";"),
            b"\xef\xbb\xbf" + out[1].replace(b"\n", b"\r\n"),
            out[1].replace(b"\n", b"\r"),
        ]

    def bad(self, rng: random.Random) -> bytes:
        data, other = self.two(rng)
        return (
            mutate.words_of(rng, data, other)
            if rng.random() < 0.8
            else mutate.bytes_of(rng, data, other)
        )


# -- logs that others wrote ----------------------------------------------------------------------


class TensorBoard(_Trace):
    name = "tensorboard-events"
    modules = ("gabactl.traces.tensorboard", "gabactl.traces.foreign")
    needs = ("tensorboard",)
    suffix = ""

    def good(self) -> list[bytes]:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        rng = np.random.default_rng(2)
        out = []
        for names in (
            ("grad_norm/rul", "grad_norm/health", "weight/rul", "weight/health"),
            ("balance/grad_norm_a", "balance/grad_norm_b", "lr"),
        ):
            events = [event_pb2.Event(wall_time=1e9, file_version="brain.Event:2")]
            for step in range(1, 6):
                values = [
                    summary_pb2.Summary.Value(tag=n, simple_value=float(x))
                    for n, x in zip(names, np.exp(rng.normal(size=4)), strict=False)
                ]
                events.append(
                    event_pb2.Event(
                        wall_time=1e9 + step, step=step, summary=summary_pb2.Summary(value=values)
                    )
                )
            out.append(_records([event.SerializeToString() for event in events]))
        return [*out, out[0][:-7]]

    def bad(self, rng: random.Random) -> bytes:
        data, other = self.two(rng)
        kind = rng.random()
        if kind < 0.25:
            return mutate.bytes_of(rng, data, other)
        records = _payloads(data)
        for _ in range(rng.choice((1, 1, 2, 3))):
            if not records:
                break
            at = rng.randrange(len(records))
            what = rng.randrange(6)
            if what <= 2:
                records[at] = mutate.bytes_of(rng, records[at], other, most=2)
            elif what == 3:
                records.insert(at, records[rng.randrange(len(records))])
            elif what == 4:
                del records[at]
            else:
                records[at] = self._event(rng)
        out = _records(records)
        return mutate.bytes_of(rng, out, most=1) if rng.random() < 0.1 else out

    def _event(self, rng: random.Random) -> bytes:
        """A sound record with unsound values."""
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2

        values = []
        for tag in rng.sample(
            (
                "grad_norm/rul",
                "grad_norm/health",
                "grad_norm/\x1b[2J",
                "weight/rul",
                "x" * 3000,
                "grad_norm/",
            ),
            2,
        ):
            value = summary_pb2.Summary.Value(tag=tag)
            if rng.random() < 0.5:
                value.simple_value = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 3e38, 1.0))
            else:
                sizes = [rng.choice((1, 0, 2, -1, 1 << 40)) for _ in range(rng.randrange(3))]
                shape = tensor_shape_pb2.TensorShapeProto(
                    dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=n) for n in sizes]
                )
                tensor = tensor_pb2.TensorProto(
                    dtype=rng.choice((1, 2, 3, 7, 8, 9, 10, 14, 19, 20, 21, 99)), tensor_shape=shape
                )
                if rng.random() < 0.5:
                    tensor.tensor_content = rng.randbytes(rng.choice((0, 1, 4, 8)))
                else:
                    tensor.float_val.append(1.0)
                value.tensor.CopyFrom(tensor)
                value.metadata.plugin_data.plugin_name = rng.choice(("scalars", "", "images"))
            values.append(value)
        step = rng.choice((0, 1, 2, -1, 2**62, -(2**63)))
        wall = rng.choice((1e9, float("nan"), float("-inf"), 1e300, -1e300))
        return bytes(
            event_pb2.Event(
                wall_time=wall, step=step, summary=summary_pb2.Summary(value=values)
            ).SerializeToString()
        )

    def read(self, data: bytes) -> Any:
        from gabactl.traces import read_trace
        from gabactl.traces.info import trace_info

        file = self.put("events.out.tfevents.1.host", data)
        trace = read_trace(file)
        if (trace.grad_norms < 0).any() or (np.diff(trace.step) <= 0).any():
            raise AssertionError("a negative norm, or steps that do not increase")
        if zlib.crc32(data) % 8 == 0:
            show(trace_info(file))
        return trace


def _records(payloads: list[bytes]) -> bytes:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    out = b""
    for data in payloads:
        length = struct.pack("<Q", len(data))
        out += (
            length
            + struct.pack("<I", masked_crc32c(length))
            + data
            + struct.pack("<I", masked_crc32c(data))
        )
    return out


def _payloads(data: bytes) -> list[bytes]:
    out, at = [], 0
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        if at + 16 + length > len(data):
            break
        out.append(data[at + 12 : at + 12 + length])
        at += 16 + length
    return out


class Wandb(_Trace):
    """A run's history as W&B exports it: CSV, JSON in its shapes, Parquet."""

    name = "wandb-export"
    modules = ("gabactl.traces.wandb", "gabactl.traces.foreign", "gabactl.traces.csv")
    suffix = ""
    memory = 3 << 30

    def good(self) -> list[bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            {
                "_step": i,
                "_timestamp": 1e9 + i,
                "grad_norm/rul": 1.0 + i,
                "grad_norm/health": 2.0,
                "loss/rul": 0.5,
                "loss/health": 0.1,
            }
            for i in range(6)
        ]
        del rows[2]["grad_norm/rul"], rows[2]["grad_norm/health"]
        columns = {name: {str(i): row.get(name) for i, row in enumerate(rows)} for name in rows[0]}
        header = ",".join(rows[0])
        csv = (
            header
            + "\n"
            + "\n".join(",".join(str(row.get(n, "")) for n in rows[0]) for row in rows)
        )
        self.trees: list[Any] = [rows, columns, {n: list(c.values()) for n, c in columns.items()}]
        self.rows = rows
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        lines = b"\n".join(json.dumps(row).encode() for row in rows)
        return [
            csv.encode(),
            lines,
            *(json.dumps(tree).encode() for tree in self.trees),
            sink.getvalue(),
        ]

    def bad(self, rng: random.Random) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = (
            "_step",
            "_timestamp",
            "grad_norm/rul",
            "grad_norm/health",
            "loss/rul",
            "step",
            "_runtime",
        )
        kind = rng.random()
        if kind < 0.3:
            return mutate.to_json(mutate.tree_of(rng, rng.choice(self.trees), names))
        changed = mutate.tree_of(rng, self.rows, names) if kind < 0.6 else self.rows
        if kind < 0.45:
            return b"\n".join(
                mutate.to_json(row) for row in (changed if isinstance(changed, list) else [changed])
            )
        if kind < 0.6:
            sink = io.BytesIO()
            try:
                pq.write_table(pa.Table.from_pylist(changed), sink)
            except Exception:  # rows that make no table
                return mutate.to_json(changed)
            return sink.getvalue()
        data, other = self.two(rng)
        if data[:4] == b"PAR1":
            footer = int.from_bytes(data[-8:-4], "little")
            foot = mutate.bytes_of(rng, data[-8 - footer : -8], other, most=3)
            return data[: -8 - footer] + foot + len(foot).to_bytes(4, "little") + b"PAR1"
        return mutate.words_of(rng, data, other)

    def read(self, data: bytes) -> Any:
        from gabactl.traces import read_trace

        end = (
            ".parquet"
            if data[:4] == b"PAR1"
            else ".json"
            if data.lstrip()[:1] in (b"[", b"{")
            else ".csv"
        )
        trace = read_trace(self.put("history" + end, data))
        if (trace.grad_norms < 0).any() or (np.diff(trace.step) <= 0).any():
            raise AssertionError("a negative norm, or steps that do not increase")
        return trace


# -- settings in TOML and text -------------------------------------------------------------------


class _Toml(Reader):
    names: ClassVar[tuple[str, ...]] = ()

    def texts(self) -> list[str]:
        raise NotImplementedError

    def good(self) -> list[bytes]:
        import tomllib

        texts = self.texts()
        self.trees = [tomllib.loads(text) for text in texts]
        return [text.encode() for text in texts]

    def bad(self, rng: random.Random) -> bytes:
        if rng.random() < 0.65:
            return mutate.to_toml(mutate.tree_of(rng, rng.choice(self.trees), self.names))
        return mutate.words_of(rng, *self.two(rng))


class Spec(_Toml):
    name = "spec-toml"
    modules = ("gabactl.spec", "gabactl.files")
    names = ("n_tasks", "beta", "floor", "warmup", "law", "floor_mode", "guard", "interval", "gaba")

    def texts(self) -> list[str]:
        from gabactl.spec import GabaSpec

        three = GabaSpec(n_tasks=3, floor=0.01, law="inverse", floor_mode="affine", interval=5)
        return [GabaSpec().to_toml(), three.to_toml(), "beta = 0.9\n"]

    def read(self, data: bytes) -> Any:
        from gabactl.spec import GabaSpec

        spec = GabaSpec.from_toml(self.put("spec.toml", data))
        self.put("again.toml", spec.to_toml().encode())
        if GabaSpec.from_toml(self.folder / "again.toml") != spec:
            raise AssertionError("does not read back as written")
        return spec


def _bundled(sweeps: bool) -> list[str]:
    from gabactl.scenarios import simulation_files

    files = [f for f in simulation_files() if f.stem.startswith("sweep") == sweeps]
    return [f.read_text(encoding="utf-8") for f in files if "campaign" not in f.stem]


class Scenario(_Toml):
    name = "scenario-toml"
    modules = ("gabactl.scenarios", "gabactl.profiles", "gabactl.balancers", "gabactl.plants")
    names = (
        "tasks", "disturbance", "kind", "ratios", "holds", "quiet_norm", "spikes", "dropouts",
        "factor", "at", "width", "task", "losses", "initial", "final", "time_constant", "plant",
        "rho", "a", "delay", "curvatures", "minimisers", "noise", "balancers", "method", "run",
        "seeds", "tolerance", "start", "stop", "steps", "block", "blocks", "low", "high", "path",
    )  # fmt: skip

    def texts(self) -> list[str]:
        extra = """
        tasks = 3
        [disturbance]
        kind = "prbs"
        low = 1.0
        high = 50.0
        block = 5
        blocks = 4
        seed = 1
        [[disturbance.dropouts]]
        at = 3
        width = 2
        kind = "zero"
        task = 1
        [losses]
        initial = [20.0, 2.0, 1.0]
        final = [10.0, 1.0, 0.5]
        time_constant = 5.0
        [balancers.gaba]
        beta = 0.9
        [balancers.g]
        method = "gradnorm"
        lr = 0.05
        [run]
        seeds = [1, 2]
        """
        ramp = """
        [disturbance]
        kind = "ramp"
        start = 1.0
        stop = 100.0
        steps = 20
        before = 5
        after = 5
        [plant]
        kind = "log-ratio"
        rho = 0.5
        a = 0.1
        delay = 1
        """
        return [*_bundled(sweeps=False), extra, ramp]

    def read(self, data: bytes) -> Any:
        from gabactl.scenarios import load_scenario

        scenario = load_scenario(self.put("scenario.toml", data))
        f"{scenario.title}{scenario.description}{list(scenario.balancers)}".encode()
        return scenario


class Sweep(_Toml):
    name = "sweep-grid-toml"
    modules = ("gabactl.sweep.description", "gabactl.scenarios", "gabactl.profiles")
    names = (
        "axes", "fixed", "run", "beta", "rho", "a", "from", "to", "points", "scale", "method",
        "samples", "repeats", "seed", "chunk", "settling", "stability", "tolerance", "dtype",
        "floor", "warmup", "interval", "law", "floor_mode", "guard", "delay", "disturbance", "kind",
        "tasks", "noise", "log", "log1m", "sobol",
    )  # fmt: skip

    def texts(self) -> list[str]:
        small = """
        [disturbance]
        kind = "levels"
        ratios = [4]
        holds = [20]
        [axes]
        beta = [0.5, 0.9]
        floor = { from = 0.001, to = 0.1, points = 3, scale = "log" }
        [run]
        chunk = 4
        """
        sobol = """
        tasks = 3
        [disturbance]
        kind = "none"
        steps = 5
        [axes]
        rho = { from = 0, to = 1 }
        [fixed]
        warmup = 1
        law = "inverse"
        [run]
        method = "sobol"
        samples = 8
        """
        # The bundled ones run long loops: their form, with few and short ones.
        bundled = [re.sub(r"points = \d+", "points = 4", t) for t in _bundled(sweeps=True)]
        return [
            *(re.sub(r"(holds = \[)[^]]*|(samples = )\d+", r"\g<1>\g<2>16", t) for t in bundled),
            small,
            sobol,
        ]

    def read(self, data: bytes) -> Any:
        from gabactl.sweep import load_sweep

        sweep = load_sweep(self.put("sweep.toml", data))
        first = sweep.parameters(0, min(sweep.loops, 4))
        if any(not np.isfinite(v).all() for v in first.values()):
            raise AssertionError("a parameter is not finite")
        json.dumps(sweep.describe(), allow_nan=False).encode()
        return sweep


class Texts(Reader):
    """Settings that are given in one line: plants, disturbances, excitations, bounds."""

    name = "option-text"
    modules = ("gabactl.plants", "gabactl.profiles", "gabactl.nn.excitation", "gabactl.balancers")

    def good(self) -> list[bytes]:
        return [
            b"log-ratio:rho=0.5,a=0.9,delay=1",
            b"log-ratio:rho=-0.1",
            b"prbs:amplitude=0.5,period=50,seed=1,inverted",
            b"gaba,gradnorm,fixed",
            b"0.05:0.95",
            b"tight",
        ]

    def bad(self, rng: random.Random) -> bytes:
        return mutate.words_of(rng, *self.two(rng))

    def read(self, data: bytes) -> Any:
        from gabactl.cli.fuzz import _bound
        from gabactl.errors import InputError
        from gabactl.nn.excitation import Excitation
        from gabactl.plants import parse_plant
        from gabactl.scenarios import load_scenario

        text = data.decode("utf-8", "surrogateescape")
        if not hasattr(self, "scenario"):
            self.scenario = load_scenario("published")
        last = None
        calls: tuple[Callable[[str], Any], ...] = (parse_plant, Excitation.parse, _bound)
        if ":" not in text or "=" in text:  # package.module:factory runs code, as documented
            calls = (*calls, self.scenario.choose)
        for call in calls:
            try:
                last = call(text)
            except InputError as error:
                _check_line(error)
        return last


class Campaign(_Toml):
    name = "campaign-toml"
    modules = ("gabactl.campaign.plan", "gabactl.nn.settings", "gabactl.nn.excitation")
    needs = ("torch",)
    names = (
        "campaign", "name", "subsets", "seeds", "threads", "checkpoint_every", "method", "balancer",
        "spec", "epochs", "steps", "batch_size", "optimizer", "lr", "excite", "device", "weights",
        "channels", "model", "dropout", "patience", "clip", "precision", "sample_weights",
    )  # fmt: skip

    def texts(self) -> list[str]:
        from gabactl.scenarios import simulation_files

        small = """
        [campaign]
        name = "tiny"
        subsets = ["FD001", "FD003"]
        seeds = [1, 2]
        epochs = 4
        batch_size = 30
        checkpoint_every = 3

        [[method]]
        name = "gaba"
        balancer = "gaba"
        spec = {warmup = 4, beta = 0.9}
        excite = "prbs:amplitude=0.5,period=50,seed=1"

        [[method]]
        name = "fixed"
        balancer = "fixed"
        weights = [0.1, 0.9]
        """
        bundled = [
            f.read_text(encoding="utf-8") for f in simulation_files() if "campaign" in f.stem
        ]
        return [small, *bundled]

    def read(self, data: bytes) -> Any:
        from gabactl.campaign.plan import load_campaign

        plan = load_campaign(self.put("campaign.toml", data))
        for run in plan.runs:
            if "/" in run.name or run.name.startswith("."):
                raise AssertionError(f"a run of the name {run.name!r} leaves its folder")
        return plan


class CampaignRecord(Reader):
    """What a run of a campaign says of itself."""

    name = "campaign-record"
    modules = ("gabactl.campaign.folder",)
    needs = ("torch",)

    def good(self) -> list[bytes]:
        from gabactl.nn.settings import TrainingSettings
        from gabactl.results import to_jsonable

        self.tree = {
            "status": "finished", "reason": None, "steps": 40, "epochs": 4, "best_epoch": 2, "validation_rmse": 20.5,
            "rmse_capped": 18.0, "nasa_capped": 900.0, "accuracy": 0.9, "parameters": 1000, "seconds": 3.5,
            "device": "cpu", "precision": "fp32", "torch": "2", "settings": to_jsonable(TrainingSettings().to_dict()),
        }  # fmt: skip
        return [mutate.to_json(self.tree)]

    def bad(self, rng: random.Random) -> bytes:
        if rng.random() < 0.7:
            return mutate.to_json(mutate.tree_of(rng, self.tree, tuple(self.tree)))
        return mutate.words_of(rng, *self.two(rng))

    def read(self, data: bytes) -> Any:
        from gabactl.campaign.folder import read_record

        self.put("result.json", data)
        record = read_record(self.folder)
        f"{record}".encode()
        return record


class DashboardAddress(Reader):
    """The query in the address of the dashboard."""

    name = "dashboard-address"
    modules = ("gabactl.app.state",)
    needs = ("panel",)

    def good(self) -> list[bytes]:
        return [
            b"tab=sensor&without=heads,trunk",
            b"beta=0.9&floor=0.01&warmup=10&law=inverse&guard=none&interval=3&step=50",
            b"source=fd001-equal&ratio=500&rho=-0.5&lag=3&delay=2&alpha=0.12&theme=dark",
            b"progress_1=0.5&progress_2=1.5&variant=textbook&floor_mode=affine",
        ]

    def bad(self, rng: random.Random) -> bytes:
        return mutate.words_of(rng, *self.two(rng)).replace(
            b" ", b"%20" if rng.random() < 0.5 else b"+"
        )

    def read(self, data: bytes) -> Any:
        from urllib.parse import parse_qs

        from gabactl.app.state import LIMITS, View

        try:
            query = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True)
            raw = parse_qs(data, keep_blank_values=True)
        except ValueError:  # too many fields: the server's own parser says no
            return None
        view, problems = View().updated_by(query)
        View().updated_by({k.decode("latin-1"): v for k, v in raw.items()})
        if len(problems) > 4 or any(len(p) > 1300 for p in problems):
            raise AssertionError("too much is said")
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(view, name) <= high:
                raise AssertionError(f"{name} = {getattr(view, name)}")
        again, said = View().updated_by(parse_qs(view.to_query()[1:], keep_blank_values=True))
        if again != view or said:
            raise AssertionError("the address of the view is another view")
        return view


# -- C-MAPSS and archives ------------------------------------------------------------------------


class CmapssText(Reader):
    name = "cmapss-text"
    modules = ("gabactl.cmapss.files", "gabactl.cmapss.windows")

    def good(self) -> list[bytes]:
        rng = np.random.default_rng(0)
        rows = [
            f"{unit} {cycle} " + " ".join(f"{x:.4f}" for x in rng.normal(size=24))
            for unit, last in ((1, 5), (2, 3), (3, 4))
            for cycle in range(1, last + 1)
        ]
        return ["\n".join(rows).encode() + b"\n", "  \r\n".join(rows[:5]).encode()]

    def bad(self, rng: random.Random) -> bytes:
        data, other = self.two(rng)
        return (
            mutate.words_of(rng, data, other)
            if rng.random() < 0.85
            else mutate.bytes_of(rng, data, other)
        )

    def read(self, data: bytes) -> Any:
        from gabactl.cmapss.files import read_engines, read_rul
        from gabactl.errors import InputError

        self.put("train_FD001.txt", data)
        self.put("RUL_FD001.txt", data)
        try:
            lives = read_rul(self.folder, "RUL_FD001.txt")
            if (lives < 0).any() or not np.isfinite(lives).all():
                raise AssertionError("a life that is none")
        except InputError as error:
            _check_line(error)
        engines = read_engines(self.folder, "train_FD001.txt")
        if sum(s.stop - s.start for _, s in engines.slices()) != len(engines):
            raise AssertionError("rows are lost between engines")
        if not (np.isfinite(engines.sensors).all() and np.isfinite(engines.settings).all()):
            raise AssertionError("a value is not finite")
        return engines


class _Archives(Reader):
    """Zip archives with sound structure and unsound entries, or the other way round."""

    contents: ClassVar[dict[str, bytes]] = {
        "train_FD001.txt": b"1 1 " + b"0.5 " * 24 + b"\n",
        "test_FD001.txt": b"1 1 " + b"0.5 " * 24 + b"\n",
        "RUL_FD001.txt": b"112\n",
    }

    def good(self) -> list[bytes]:
        plain = _zip([(n, d, 0) for n, d in self.contents.items()])
        deep = _zip([(f"data/{n}", d, 0) for n, d in self.contents.items()])
        inner = _zip([("CMAPSSData.zip", plain, 0), ("readme.pdf", b"x", 0)])
        kinds = [
            _zip([(n, d, 0) for n, d in self.contents.items()], method)
            for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ]
        return [plain, deep, inner, *kinds]

    def bad(self, rng: random.Random) -> bytes:
        data, other = self.two(rng)
        if rng.random() < 0.5:
            return self._rebuilt(rng)
        if rng.random() < 0.5:
            return mutate.bytes_of(rng, data, other)
        # The directory at the end, where the names and sizes are.
        at = data.find(b"PK\x01\x02")
        return data[:at] + mutate.bytes_of(rng, data[at:], other, most=3)

    def _rebuilt(self, rng: random.Random, depth: int = 0) -> bytes:
        entries: list[tuple[str, bytes, int]] = [(n, d, 0) for n, d in self.contents.items()]
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(entries))
            name, data, mode = entries[at]
            kind = rng.randrange(9)
            if kind == 0:
                entries[at] = (rng.choice(mutate.PATHS).replace("x", name, 1), data, mode)
            elif kind == 1:
                entries.insert(at, (rng.choice(mutate.PATHS), data, mode))
            elif kind == 2:
                entries[at] = (
                    name,
                    b"../../../etc/passwd",
                    rng.choice((0o120777, 0o020666, 0o010666, 0o140777)),
                )
            elif kind == 3:
                entries.append(entries[at])
            elif kind == 4:
                entries[at] = (name, mutate.bytes_of(rng, data), mode)
            elif kind == 5 and depth == 0:
                entries.append(("inner.zip", self._rebuilt(rng, 1), 0))
            elif kind == 6:
                entries[at] = (name, b"0 " * rng.choice((1000, 3000, 100_000)), mode)
            elif kind == 7:
                entries.append((rng.choice(("a.zip", "A.ZIP", "x/.zip")), rng.randbytes(30), 0))
            else:
                entries[at] = (rng.choice(("data/", "a\\", "A/B/")) + name, data, mode)
        rare = rng.random() < 0.05
        kinds = (
            (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            if rare
            else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        )
        out = _zip(entries, rng.choice(kinds))
        return mutate.bytes_of(rng, out, most=2) if rng.random() < 0.3 else out


def _zip(entries: list[tuple[str, bytes, int]], method: int = zipfile.ZIP_STORED) -> bytes:
    import warnings

    sink = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(sink, "w", method, compresslevel=1) as archive:
        warnings.simplefilter("ignore")  # two entries of one name are what is wanted
        for name, data, mode in entries:
            info = zipfile.ZipInfo("x")
            info.filename = name  # past the constructor, which would mend it
            info.external_attr = mode << 16
            info.compress_type = method
            archive.writestr(info, data)
    return sink.getvalue()


class CmapssArchive(_Archives):
    name = "cmapss-archive"
    modules = ("gabactl.cmapss.files",)

    def good(self) -> list[bytes]:
        text = self.contents["train_FD001.txt"]
        self.packed = [
            lzma.compress(text),
            lzma.compress(text, check=lzma.CHECK_CRC32, preset=0),
            lzma.compress(text) * 2,
        ]
        return super().good()

    def bad(self, rng: random.Random) -> bytes:
        if rng.random() < 0.25:
            return mutate.bytes_of(rng, rng.choice(self.packed), rng.choice(self.packed), most=4)
        return super().bad(rng)

    def read(self, data: bytes) -> Any:
        from gabactl.cmapss.files import read_engines

        if data[:2] == b"\xfd7":
            self.put("train_FD001.txt.xz", data)
            return read_engines(self.folder, "train_FD001.txt")
        return read_engines(self.put("data.zip", data), "train_FD001.txt")


class FetchArchive(_Archives):
    """What `gabactl data fetch` unpacks; small files stand for NASA's."""

    name = "fetch-archive"
    modules = ("gabactl.cmapss.fetch",)

    def good(self) -> list[bytes]:
        import hashlib

        self.checksums = {n: hashlib.sha256(d).hexdigest() for n, d in self.contents.items()}
        (self.folder / "out").mkdir(exist_ok=True)
        return super().good()

    def read(self, data: bytes) -> Any:
        from gabactl.cmapss import fetch

        target = self.folder / "out"
        real = fetch.CHECKSUMS
        fetch.CHECKSUMS = self.checksums  # type: ignore[attr-defined]
        try:
            return fetch.unpack(self.put("data.zip", data), target)
        finally:
            fetch.CHECKSUMS = real  # type: ignore[attr-defined]
            for file in target.iterdir():
                if file.name not in self.contents:
                    raise AssertionError(f"{file.name!r} was written")
                file.unlink()


# -- checkpoints ---------------------------------------------------------------------------------


class Checkpoint(Reader):
    """`gabactl train` checkpoints: loaded, and restored into a run."""

    name = "checkpoint"
    modules = ("gabactl.nn.checkpoint", "gabactl.nn.training", "gabactl.nn.base", "gabactl.nn.gaba")
    needs = ("torch",)

    def good(self) -> list[bytes]:
        import torch

        from gabactl.cmapss.windows import load
        from gabactl.nn.settings import TrainingSettings
        from gabactl.nn.training import _Run

        rng = np.random.default_rng(0)
        for kind, lengths in (("train", [60, 60, 60]), ("test", [30, 30])):
            rows = [
                f"{unit} {cycle} 0 0 100 " + " ".join(f"{x:.3f}" for x in rng.normal(size=21))
                for unit, length in enumerate(lengths, 1)
                for cycle in range(1, length + 1)
            ]
            self.put(f"{kind}_FD001.txt", "\n".join(rows).encode())
        self.put("RUL_FD001.txt", b"20\n30\n")
        data = load(self.folder, "FD001", channels=14, seed=0)
        self.runs = [
            _Run(data, TrainingSettings(device="cpu", batch_size=4, balancer=b))
            for b in ("gaba", "gradnorm", "fixed")
        ]
        self.states = [_nested(run.state()) for run in self.runs]
        out = []
        for state in self.states:
            sink = io.BytesIO()
            torch.save({"format": "gabactl-training-checkpoint", "version": 1, **state}, sink)
            out.append(sink.getvalue())
        self.loose = [
            {
                "format": "gabactl-training-checkpoint",
                "version": 1,
                **state,
                "model": {},
                "average": {},
                "optimizer": {},
            }
            for state in self.states
        ]
        self.small = []
        for tree in self.loose:
            sink = io.BytesIO()
            torch.save(tree, sink)
            self.small.append(sink.getvalue())
        return out

    def bad(self, rng: random.Random) -> bytes:
        import torch

        kind = rng.random()
        if kind < 0.4:
            at = rng.randrange(len(self.states))
            full = rng.random() < 0.15
            tree: Any = (
                {"format": "gabactl-training-checkpoint", "version": 1, **self.states[at]}
                if full
                else self.loose[at]
            )
            tree = mutate.tree_of(
                rng, tree, ("model", "balancer", "settings", "rng", "best", "state", "param_groups")
            )
            if rng.random() < 0.5:
                _strange_tensor(rng, tree, torch)
            sink = io.BytesIO()
            try:
                torch.save(tree, sink)
            except (RecursionError, OverflowError):
                return b"\x80\x02" + b"]" * 1000
            return sink.getvalue()
        data = rng.choice(self.small) if rng.random() < 0.9 else rng.choice(self.seeds)
        if kind < 0.75:
            return _repickled(rng, data, rng.choice(self.small))
        if kind < 0.8:
            return _payload(rng) if rng.random() < 0.5 else _rezip(data, _payload(rng))
        return mutate.bytes_of(rng, data, rng.choice(self.small))

    def read(self, data: bytes) -> Any:
        from gabactl.nn.checkpoint import load_checkpoint

        file = self.put("run.ckpt", data)
        state = load_checkpoint(file)
        # The run whose settings it claims, so that a restore gets far.
        given = state.get("settings")
        claimed = given.get("balancer") if isinstance(given, dict) else None
        names = [saved["settings"]["balancer"] for saved in self.states]
        which = names.index(claimed) if isinstance(claimed, str) and claimed in names else 0
        run, saved = self.runs[which], self.states[which]
        if isinstance(state.get("model"), dict) and not state["model"]:
            # Stands for the large tables, which need not be written a hundred thousand times.
            state = {
                **state,
                **{
                    k: saved[k]
                    for k in ("model", "average", "optimizer")
                    if isinstance(state.get(k), dict) and not state[k]
                },
            }
        run.restore(state, str(file))
        if not 0 <= run.step < 1 << 62:
            raise AssertionError(f"step {run.step} was taken over")
        return run.step


def _nested(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _nested(item) for key, item in state.items()}
    return list(state) if isinstance(state, tuple) else state


def _strange_tensor(rng: random.Random, tree: Any, torch: Any) -> None:
    holders = [h for h in mutate._holders(tree) if isinstance(h, dict) and h]
    if holders:
        holder = rng.choice(holders)
        holder[rng.choice(list(holder))] = rng.choice((
            lambda: torch.zeros(3), lambda: torch.tensor(float("nan")), lambda: torch.zeros(0),
            lambda: torch.tensor([-1.0, 2.0]), lambda: torch.tensor(2**62), lambda: torch.zeros(2, dtype=torch.complex64),
            lambda: torch.zeros(1, 2), lambda: torch.tensor([True, False]), lambda: torch.zeros(5056, dtype=torch.uint8),
            lambda: torch.zeros(2).to_sparse(), lambda: torch.zeros(2, dtype=torch.int64), lambda: torch.empty(2, device="meta"),
        ))()  # fmt: skip


def _repickled(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The pickle inside, changed, in an archive that is sound."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        pickled = archive.read(name)
    changed = (
        mutate.bytes_of(rng, pickled, other, most=3)
        if rng.random() < 0.5
        else mutate.words_of(rng, pickled)
    )
    return _rezip(data, changed)


def _rezip(data: bytes, pickled: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(sink, "w") as out:
        for info in archive.infolist():
            out.writestr(
                info.filename, pickled if info.filename.endswith("data.pkl") else archive.read(info)
            )
    return sink.getvalue()


def _payload(rng: random.Random) -> bytes:
    """Pickles that would run something."""
    call, argument = rng.choice((
        (b"os\nsystem", b"touch ran"), (b"posix\nsystem", b"touch ran"), (b"builtins\neval", b"open('ran','w')"),
        (b"builtins\nexec", b"open('ran','w')"), (b"subprocess\ngetoutput", b"touch ran"), (b"builtins\nopen", b"ran"),
        (b"torch\nload", b"/etc/passwd"), (b"torch.hub\nload", b"x"), (b"builtins\ngetattr", b"x"), (b"pathlib\nPath", b"ran"),
        (b"torch._utils\n_rebuild_tensor_v2", b"x"), (b"collections\nOrderedDict", b"x"), (b"torch\nsave", b"ran"),
    ))  # fmt: skip
    body = b"c" + call + b"\n(X" + struct.pack("<I", len(argument)) + argument + b"tR."
    return b"\x80\x02" + (b"}q\x00X\x06\x00\x00\x00format" if rng.random() < 0.3 else b"") + body


# -- folders of results --------------------------------------------------------------------------


class Corpus(Reader):
    name = "fuzz-corpus"
    modules = ("gabactl.fuzz.corpus", "gabactl.fuzz.cases", "gabactl.files")

    def good(self) -> list[bytes]:
        from gabactl.fuzz import corpus
        from gabactl.fuzz.cases import Case

        place = self.folder / "seeds"
        cases = [
            Case.from_readings([[1.0, 0.0], [1.0, 0.0], [float("nan"), 2.0]]),
            Case.from_readings([[1.0, 2.0, 3.0]], permutation=(2, 0, 1)),
            Case.from_readings([[1.0, 2.0]], exponent=3, save_after=1),
        ]
        out = [corpus.save(place, "gaba", "bounds", case).read_bytes() for case in cases]
        self.trees = [json.loads(data) for data in out]
        return out

    def bad(self, rng: random.Random) -> bytes:
        names = (
            "target",
            "property",
            "case",
            "segments",
            "reading",
            "repeat",
            "losses",
            "permutation",
            "exponent",
            "save_after",
        )
        if rng.random() < 0.7:
            return mutate.to_json(mutate.tree_of(rng, rng.choice(self.trees), names))
        return mutate.words_of(rng, *self.two(rng))

    def read(self, data: bytes) -> Any:
        from gabactl.fuzz import corpus

        place = self.folder / "corpus"
        place.mkdir(exist_ok=True)
        (place / "case.json").write_bytes(data)
        entries = corpus.load(place)
        for entry in entries:
            entry.case.expression().encode()
            f"{entry.target} {entry.property}".encode()
        return entries


class SweepFolder(Reader):
    """A folder that `gabactl sweep` left: its manifest and a part."""

    name = "sweep-folder"
    modules = ("gabactl.sweep.result",)

    def good(self) -> list[bytes]:
        import tempfile
        import textwrap

        from gabactl.sweep import load_sweep, run_sweep

        text = Sweep.texts(self)[-2]  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            grid = Path(made) / "grid.toml"
            grid.write_text(textwrap.dedent(text).replace("chunk = 4", "chunk = 100"))
            place = Path(made) / "out"
            run_sweep(load_sweep(grid), place, workers=1)
            manifest = (place / "manifest.json").read_bytes()
            self.tree = json.loads(manifest)
            part = (place / "parts" / "chunk-00000000.parquet").read_bytes()
        return [struct.pack("<I", len(manifest)) + manifest + part]

    def bad(self, rng: random.Random) -> bytes:
        data = self.seeds[0]
        size = struct.unpack("<I", data[:4])[0]
        manifest, part = data[4 : 4 + size], data[4 + size :]
        kind = rng.random()
        if kind < 0.5:
            names = (
                "axes",
                "chunks",
                "loops",
                "scales",
                "method",
                "title",
                "format",
                "fixed",
                "common",
                "points",
            )
            manifest = mutate.to_json(mutate.tree_of(rng, self.tree, names))
        elif kind < 0.65:
            manifest = mutate.words_of(rng, manifest)
        else:
            part = self._part(rng, part)
        return struct.pack("<I", len(manifest)) + manifest + part

    def _part(self, rng: random.Random, part: bytes) -> bytes:
        footer = int.from_bytes(part[-8:-4], "little")
        if rng.random() < 0.5:
            return mutate.bytes_of(rng, part)
        foot = mutate.bytes_of(rng, part[-8 - footer : -8], most=3)
        return part[: -8 - footer] + foot + len(foot).to_bytes(4, "little") + b"PAR1"

    def read(self, data: bytes) -> Any:
        from gabactl.sweep import open_sweep

        size = struct.unpack("<I", data[:4])[0]
        place = self.folder / "sweep"
        (place / "parts").mkdir(parents=True, exist_ok=True)
        (place / "manifest.json").write_bytes(data[4 : 4 + size])
        (place / "parts" / "chunk-00000000.parquet").write_bytes(data[4 + size :])
        result = open_sweep(place)
        result.table()
        if zlib.crc32(data) % 8 == 0:  # a summary reads every column again
            show(result)
        return result


# -- theorem files -------------------------------------------------------------------------------


class Theorems(Reader):
    """What a theorem file declares: the file is the user's own code, its statements are data."""

    name = "theorem-declarations"
    modules = ("gabactl.prove.theorem", "gabactl.prove.library")

    def good(self) -> list[bytes]:
        self.trees = [
            {
                "id": "ODD",
                "statement": "2 n + 1 is odd",
                "given": ["n is whole"],
                "method": "exact",
                "expect": "proved",
                "mutants": {"even": {"shift": 0}},
                "source": "arithmetic",
                "budget": 5.0,
            },
            {"id": "C-1", "statement": "w > 0", "mutants": {"a": {}, "b": {"x": 1}}},
        ]
        return [mutate.to_json(tree) for tree in self.trees]

    def bad(self, rng: random.Random) -> bytes:
        return mutate.to_json(mutate.tree_of(rng, rng.choice(self.trees), tuple(self.trees[0])))

    def read(self, data: bytes) -> Any:
        from gabactl.errors import InputError
        from gabactl.prove.engine import ProofResult, ProofTable
        from gabactl.prove.library import Selection
        from gabactl.prove.theorem import Outcome, theorem

        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            raise InputError("no declaration") from None
        if not isinstance(given, dict) or any(k not in self.trees[0] for k in given):
            raise InputError("no declaration")
        if not {"id", "statement", "mutants"} <= set(given):
            raise InputError("no declaration")  # Python itself refuses the call
        item = theorem(**given)(lambda shift=1: Outcome("proved" if shift else "refuted"))
        show(Selection(((self.folder, item),)))
        results = tuple(ProofResult(item, item.prove(m), 0.0, m) for m in (None, *item.mutants))
        show(ProofTable(results, 0.0, 1), *results)
        if not 0 < item.budget < 1e9:
            raise AssertionError(f"a budget of {item.budget} s")
        return item


def _check_line(error: Exception) -> None:
    """An answer is one short printable line."""
    from gabactl.errors import printable

    text = str(error)
    if not text or printable(text) != text or len(text) > 1200:
        raise AssertionError(f"the answer is not one short printable line: {text[:300]!r}")


def refusal(reader: Reader, data: bytes) -> str | None:
    """The line with which a reader refuses; None where it takes the input. All else is raised."""
    from gabactl.errors import InputError

    try:
        reader.read(data)
    except InputError as error:
        _check_line(error)
        return str(error)
    return None
