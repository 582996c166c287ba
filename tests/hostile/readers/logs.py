"""Logs that others wrote: TensorBoard events, exports of W&B."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from typing import Any

import numpy as np

from hostile import mutate
from hostile.readers.base import show
from hostile.readers.traces import TraceFile


class TensorBoard(TraceFile):
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


class Wandb(TraceFile):
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
