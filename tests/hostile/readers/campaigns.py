"""What runs of a campaign leave."""

from __future__ import annotations

import dataclasses
import io
import json
import random
from typing import Any

from hostile import mutate
from hostile.readers.base import JsonReader, Reader, check_line, show


class CampaignRecord(JsonReader):
    """What a run of a campaign says of itself."""

    name = "campaign-record"
    modules = ("gabactl.nn.campaigns.files",)
    needs = ("torch",)

    def good(self) -> list[bytes]:
        from gabactl.base.results import to_jsonable
        from gabactl.nn.training.settings import TrainingSettings

        self.tree = {
            "status": "finished", "reason": None, "steps": 40, "epochs": 4, "best_epoch": 2, "validation_rmse": 20.5,
            "rmse_capped": 18.0, "nasa_capped": 900.0, "accuracy": 0.9, "parameters": 1000, "seconds": 3.5,
            "device": "cpu", "precision": "fp32", "torch": "2", "settings": to_jsonable(TrainingSettings().to_dict()),
        }  # fmt: skip
        return [mutate.to_json(self.tree)]

    def read(self, data: bytes) -> Any:
        from gabactl.nn.campaigns.files import read_record

        self.put("result.json", data)
        record = read_record(self.folder)
        f"{record}".encode()
        return record


class CampaignTable(Reader):
    """The table of a campaign: read as results, and as evidence for the claims."""

    name = "campaign-table"
    modules = ("gabactl.nn.campaigns.table", "campaign_claims")
    memory = 3 << 30

    def good(self) -> list[bytes]:
        import pyarrow.parquet as pq

        from gabactl.nn.campaigns import CampaignResults
        from gabactl.nn.campaigns.files import COLUMNS
        from gabactl.nn.campaigns.table import save_results

        runs = [(s, m, n) for s in ("FD001", "FD003") for m in ("gaba", "fixed") for n in (1, 2)]
        given = {
            "run": [f"{s}-{m}-seed{n}" for s, m, n in runs],
            "subset": [s for s, _, _ in runs],
            "method": [m for _, m, _ in runs],
            "seed": [n for _, _, n in runs],
            "balancer": [m for _, m, _ in runs],
            "status": ["finished"] * 7 + ["failed"],
            "trace": [None] * 7 + ["runs/x/trace.parquet"],
        }
        plain = {str: "x", int: 3, float: 12.5}
        table = {name: given.get(name, [plain[kind]] * 8) for name, kind in COLUMNS.items()}
        gaps = {**table, "rmse_capped": [None, 1e308, -1.0, 5.0] * 2, "reason": [None] * 8}
        self.out = []
        for each in (table, gaps):
            save_results(CampaignResults(each), self.folder / "results.parquet")
            self.out.append((self.folder / "results.parquet").read_bytes())
        self.tables = [pq.read_table(io.BytesIO(data)) for data in self.out]
        return self.out

    def bad(self, rng: random.Random) -> bytes:
        import pyarrow.parquet as pq

        kind = rng.random()
        if kind < 0.5:
            sink = io.BytesIO()
            try:
                pq.write_table(self._changed(rng), sink)
            except Exception:  # a table that cannot be written is no input
                return self.seeds[0][: rng.randrange(len(self.seeds[0]))]
            return sink.getvalue()
        data, other = self.two(rng)
        if kind < 0.65:
            return mutate.bytes_of(rng, data, other)
        footer = int.from_bytes(data[-8:-4], "little")
        foot = mutate.bytes_of(rng, data[-8 - footer : -8], other, most=3)
        return data[: -8 - footer] + foot + len(foot).to_bytes(4, "little") + b"PAR1"

    def _changed(self, rng: random.Random) -> Any:
        import pyarrow as pa

        table = rng.choice(self.tables)
        columns = {name: table.column(name) for name in table.schema.names}
        for _ in range(rng.choice((1, 1, 2, 3))):
            name = rng.choice(list(columns))
            values = columns[name].to_pylist()
            kind = rng.randrange(6)
            if kind == 0:
                del columns[name]
            elif kind == 1:
                columns[name] = pa.nulls(len(values), columns[name].type)
            elif kind == 2:
                columns[name] = pa.array(values).cast(pa.string(), safe=False)
            else:
                texts = ("", "../../x", "/etc/passwd", "\x1b[2J", "a\x00b", "x" * 3000, None, "NaN")
                numbers = (None, float("nan"), float("inf"), 1e308, -1e308, 0.0)
                kinds = {pa.string(): texts, pa.float64(): numbers}
                strange = kinds.get(columns[name].type, (None, -1, 0, 2**63 - 1, -(2**63)))
                values[rng.randrange(len(values))] = rng.choice(strange)
                columns[name] = pa.array(values, columns[name].type)
        return pa.table(columns)

    def read(self, data: bytes) -> Any:
        from campaign_claims import read_campaign

        from gabactl.base.errors import InputError
        from gabactl.nn.campaigns import load_results

        file = self.put("results.parquet", data)
        try:
            figures = read_campaign(self.folder)
            if any(not trace.source for trace in figures.traces.values()):
                raise AssertionError("a trace from nowhere")
        except InputError as error:
            check_line(error)
        results = load_results(file)
        show(results)
        return results


class ClaimRecord(JsonReader):
    """A recorded result that backs a claim."""

    name = "claim-record"
    modules = ("gabactl.claims.records",)

    def good(self) -> list[bytes]:
        self.tree = {
            "claim": "C37", "values": {"rmse_gaba": 12.5, "runs": 5}, "note": "80 epochs",
            "provenance": {"command": "gabactl cmapss campaign", "date": "2026-01-01", "device": "cpu", "versions": "torch 2"},
            "decides": False, "reason": "another protocol",
        }  # fmt: skip
        return [mutate.to_json(self.tree)]

    def read(self, data: bytes) -> Any:
        from gabactl.claims.records import read_record

        record = read_record(data.decode("utf-8", "replace"), "record.json")
        json.dumps(dataclasses.asdict(record), allow_nan=False).encode()
        return record
