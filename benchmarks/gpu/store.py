"""What the kit keeps: one JSON of figures and one Parquet of traces, whole after every result."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gabactl.base.errors import InputError
from gabactl.base.files import write_text
from gabactl.base.results import to_jsonable
from gabactl.traces import Trace, read_trace, write_parquet

FIGURES, TRACES = "figures.json", "traces.parquet"
#: Where the Parquet file has each run's own metadata and column types.
_RUNS = b"gabactl.runs"


class Store:
    """The results of one call of the kit.

    Parameters
    ----------
    folder : path
        For both files.
    provenance : dict
        Card, driver, versions, commit, command.
    """

    def __init__(self, folder: Path, provenance: dict[str, Any]) -> None:
        self.folder = folder
        self.figures: dict[str, Any] = {"provenance": provenance, "parts": {}}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TRACES).unlink(missing_ok=True)  # of an earlier call
        self.write()

    def keep(self, part: str, message: tuple[str, str, Any]) -> None:
        """Take one message of a part, and write."""
        kind, label, content = message
        entry = self.figures["parts"].setdefault(part, {"items": {}})
        if kind == "part":
            entry.update(content)
        elif kind == "item":
            entry["items"][label] = content
        else:
            try:
                add_trace(self.folder / TRACES, label, read_trace(content))
            except (InputError, OSError, pa.ArrowException) as error:
                entry["items"][f"trace {label}"] = {"status": "failed", "reason": str(error)}
        self.write()

    def write(self) -> None:
        """The JSON, whole or not at all."""
        text = json.dumps(to_jsonable(self.figures), indent=1, allow_nan=False)
        write_text(self.folder / FIGURES, text + "\n")


def add_trace(file: Path, run: str, trace: Trace) -> None:
    """Add a run's rows to the Parquet file, replacing earlier ones of that name."""
    with tempfile.TemporaryDirectory() as folder:
        table = pq.read_table(write_parquet(trace, Path(folder) / "run.parquet"))
    own = {
        "columns": {field.name: str(field.type) for field in table.schema},
        "metadata": {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()},
    }
    table = table.append_column("run", pa.array([run] * len(table)).dictionary_encode())
    runs: dict[str, Any] = {}
    if file.exists():
        before = pq.read_table(file)
        runs = json.loads(before.schema.metadata[_RUNS])
        before = before.filter(pc.not_equal(before["run"], run))
        # Columns that a run has not are null; float32 beside float64 becomes float64, exactly.
        table = pa.concat_tables([before, table], promote_options="permissive")
    table = table.replace_schema_metadata({_RUNS: json.dumps({**runs, run: own})})
    part = file.with_suffix(".part")
    pq.write_table(table, part, compression="zstd")
    os.replace(part, file)


def read_traces(file: Path) -> dict[str, Trace]:
    """Every run of the Parquet file, as it was recorded."""
    table = pq.read_table(file)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for run, own in json.loads(table.schema.metadata[_RUNS]).items():
            rows = table.filter(pc.equal(table["run"], run)).select(list(own["columns"]))
            types = [pa.type_for_alias(kind) for kind in own["columns"].values()]
            schema = pa.schema(
                [
                    pa.field(name, kind, nullable=name != "step")
                    for name, kind in zip(own["columns"], types, strict=True)
                ],
                metadata=own["metadata"],
            )
            place = Path(folder) / "run.parquet"
            pq.write_table(rows.cast(schema), place)
            found[run] = read_trace(place).replace(source=run)
    return found


def finished(files: list[Path]) -> frozenset[str]:
    """Runs of the protocol that earlier leases finished, by name."""
    names = set()
    for file in files:
        items = json.loads(file.read_text(encoding="utf-8"))["parts"].get("protocol", {})
        for name, figures in items.get("items", {}).items():
            if figures.get("stopped") in ("finished", "stopped early", "diverged"):
                names.add(name)
    return frozenset(names)
