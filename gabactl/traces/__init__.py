"""Recorded training runs: the schema, reading, writing, and the traces that come along.

Examples
--------
>>> from gabactl.traces import Trace
>>> len(Trace.from_arrays([[250.0, 0.5], [300.0, 0.4]]))
2
"""

from __future__ import annotations

from gabactl.traces.library import (
    MOST_STEPS,
    bundled,
    load_bundled,
    load_trace,
    trace_pieces,
)
from gabactl.traces.metadata import SCHEMA_VERSION, describe_environment
from gabactl.traces.reader import iter_trace, read_trace
from gabactl.traces.rewrite import convert, finish, write_csv, write_parquet
from gabactl.traces.schema import Trace
from gabactl.traces.writer import TraceWriter, stream_path

__all__ = [
    "MOST_STEPS",
    "SCHEMA_VERSION",
    "Trace",
    "TraceWriter",
    "bundled",
    "convert",
    "describe_environment",
    "finish",
    "iter_trace",
    "load_bundled",
    "load_trace",
    "read_trace",
    "stream_path",
    "trace_pieces",
    "write_csv",
    "write_parquet",
]
