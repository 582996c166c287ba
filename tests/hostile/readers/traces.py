"""Recorded traces: Parquet, Arrow stream, CSV."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from typing import Any, ClassVar

import numpy as np

from hostile import mutate
from hostile.readers.base import Reader, check_line, show


def traces() -> list[Any]:
    from gabactl.law.spec import GabaSpec
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


class TraceFile(Reader):
    modules = ("gabactl.traces",)
    suffix: ClassVar[str]

    def read(self, data: bytes) -> Any:
        from gabactl.base.errors import InputError
        from gabactl.traces import iter_trace, read_trace
        from gabactl.traces.info import trace_info

        file = self.put("trace" + self.suffix, data)
        # Three ways to read the same file: each input takes one or all, by its content.
        way = zlib.crc32(data) % 16
        if way == 0:
            try:
                read_trace(file, salvage=True)
            except InputError as error:
                check_line(error)
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
    if rng.random() < 0.9:  # else nothing behind the checksum would be reached
        tree = {key: value for key, value in tree.items() if key != "crc32"}
    names = ("tasks", "spec", "schema_version", "complete", "param_names", "seed", "versions")
    return mutate.to_json(mutate.tree_of(rng, tree, names))


class Parquet(TraceFile):
    name = "trace-parquet"
    suffix = ".parquet"
    memory = 3 << 30

    def good(self) -> list[bytes]:
        import pyarrow.parquet as pq

        from gabactl.traces import write_parquet

        out = []
        for trace in traces():
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
            table = strange_table(rng, rng.choice(self.tables))
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


def strange_table(rng: random.Random, table: Any) -> Any:
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


class Stream(TraceFile):
    name = "trace-arrow-stream"
    suffix = ".arrows"

    def good(self) -> list[bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from gabactl.traces import TraceWriter, write_parquet

        out, self.tables = [], []
        for trace in traces():
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
            table = strange_table(rng, rng.choice(self.tables))
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


class Csv(TraceFile):
    name = "trace-csv"
    suffix = ".csv"

    def good(self) -> list[bytes]:
        from gabactl.traces import write_csv

        out = [write_csv(t, self.folder / "seed.csv").read_bytes() for t in traces()]
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
