"""Checkpoints of `gabactl train`."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from typing import Any

import numpy as np

from hostile import mutate
from hostile.readers.base import Reader


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
    holders = [h for h in mutate.holders(tree) if isinstance(h, dict) and h]
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
