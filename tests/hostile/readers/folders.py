"""Folders of results: the corpus of the fuzzer, sweeps."""

from __future__ import annotations

import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

from hostile import mutate
from hostile.readers.base import JsonReader, Reader, show
from hostile.readers.settings import Sweep


class Corpus(Reader):
    name = "fuzz-corpus"
    modules = ("gabactl.fuzzing.corpus", "gabactl.fuzzing.cases", "gabactl.base.files")

    def good(self) -> list[bytes]:
        from gabactl.fuzzing import corpus
        from gabactl.fuzzing.cases import Case

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
        from gabactl.fuzzing import corpus

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
    modules = ("gabactl.loops.sweeps.result",)

    def good(self) -> list[bytes]:
        import tempfile
        import textwrap

        from gabactl.loops.sweeps import load_sweep, run_sweep

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
        from gabactl.loops.sweeps import open_sweep

        size = int.from_bytes(data[:4], "little")
        place = self.folder / "sweep"
        (place / "parts").mkdir(parents=True, exist_ok=True)
        (place / "manifest.json").write_bytes(data[4 : 4 + size])
        (place / "parts" / "chunk-00000000.parquet").write_bytes(data[4 + size :])
        result = open_sweep(place)
        result.table()
        if zlib.crc32(data) % 32 == 0:  # a summary reads every column again
            show(result)
        return result


class SweepResume(JsonReader):
    """The manifest of a folder in which a sweep is to go on."""

    name = "sweep-resume"
    modules = ("gabactl.loops.sweeps.engine", "gabactl.loops.sweeps.result")

    def good(self) -> list[bytes]:
        import textwrap

        from gabactl.loops.sweeps import load_sweep
        from gabactl.loops.sweeps.engine import COLUMNS

        text = textwrap.dedent(Sweep.texts(self)[-2])  # type: ignore[arg-type]
        self.sweep = load_sweep(self.put("grid.toml", text.encode()))
        self.tree = {**self.sweep.describe(), "columns": list(COLUMNS)}
        return [mutate.to_json(self.tree)]

    def read(self, data: bytes) -> Any:
        from contextlib import ExitStack

        from gabactl.loops.sweeps.engine import _prepare

        place = self.folder / "begun"
        place.mkdir(exist_ok=True)
        (place / "manifest.json").write_bytes(data)
        with ExitStack() as stack:
            _prepare(self.sweep, place, True, stack)
        return place
