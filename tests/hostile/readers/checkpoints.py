"""Checkpoints of `gabactl cmapss train`."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from typing import Any, ClassVar

import numpy as np

from hostile import mutate
from hostile.readers.base import Reader, is_ours


class Checkpoint(Reader):
    """`gabactl cmapss train` checkpoints: loaded, and restored into a run."""

    name = "checkpoint"
    modules = (
        "gabactl.nn.checkpoint",
        "gabactl.nn.training.loop",
        "gabactl.nn.losses.base",
        "gabactl.nn.losses.gaba",
    )
    needs = ("torch",)

    def good(self) -> list[bytes]:
        import torch

        from gabactl.cmapss.windows import load
        from gabactl.nn.training import loop as training
        from gabactl.nn.training.settings import TrainingSettings

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
        real = training.build_model
        # The smallest network that has all its parts: its tables are read a hundred thousand times.
        training.build_model = lambda *_: _tiny()  # type: ignore[assignment]
        try:
            self.runs = [
                training._Run(data, TrainingSettings(device="cpu", batch_size=4, balancer=b))
                for b in ("gaba", "gradnorm", "fixed", "uncertainty", "dwa")
            ]
        finally:
            training.build_model = real
        for run in self.runs:  # so that the optimizer, the balancer and the best weights are there
            run._step(torch.arange(4))
            run._finish_epoch()
        self.states = [_nested(run.state()) for run in self.runs]
        forms = [{"format": "gabactl-training-checkpoint", "version": 1, **s} for s in self.states]
        self.forms = forms
        return [_saved(form, torch) for form in forms]

    def bad(self, rng: random.Random) -> bytes:
        import torch

        kind = rng.random()
        if kind < 0.4:
            tree: Any = rng.choice(self.forms)
            tree = mutate.tree_of(
                rng, tree, ("model", "balancer", "settings", "rng", "best", "state", "param_groups")
            )
            if rng.random() < 0.5:
                _strange_tensor(rng, tree, torch)
            try:
                return _saved(tree, torch)
            except (RecursionError, OverflowError):
                return b"\x80\x02" + b"]" * 1000
        data, other = self.two(rng)
        if kind < 0.75:
            return _repickled(rng, data, other)
        if kind < 0.8:
            return _payload(rng) if rng.random() < 0.5 else _rezip(data, _payload(rng))
        return mutate.bytes_of(rng, data, other)

    def read(self, data: bytes) -> Any:
        import torch

        from gabactl.nn.checkpoint import load_checkpoint

        file = self.put("run.ckpt", data)
        state = load_checkpoint(file)
        # The run whose settings it claims, so that a restore gets far.
        given = state.get("settings")
        claimed = given.get("balancer") if isinstance(given, dict) else None
        names = [saved["settings"]["balancer"] for saved in self.states]
        which = names.index(claimed) if isinstance(claimed, str) and claimed in names else 0
        run = self.runs[which]
        run.restore(state, str(file))
        if not 0 <= run.step < 1 << 62:
            raise AssertionError(f"step {run.step} was taken over")
        # What was taken over serves: torch would notice much of it steps later.
        run._step(torch.arange(4))
        run._finish_epoch()
        run.test(run.last_windows)
        return run.step


def _saved(tree: Any, torch: Any) -> bytes:
    sink = io.BytesIO()
    torch.save(tree, sink)
    return sink.getvalue()


def _tiny() -> Any:
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Linear(14, 2, bias=False)
            self.rul_head = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU())
            self.health_head = nn.Linear(2, 3, bias=False)
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

        def forward(self, inputs: Any) -> Any:
            shared = self.trunk(inputs).mean(1)
            return self.rul_head(shared).squeeze(-1), self.health_head(shared)

    return Tiny()


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


class StateDict(Reader):
    """The saved state of a balancer, as other trainers keep it; then a step with it."""

    name = "state-dict"
    modules = (
        "gabactl.nn.losses.base",
        "gabactl.nn.losses.gaba",
        "gabactl.nn.losses.gradnorm",
        "gabactl.nn.losses.peers",
    )
    needs = ("torch", "torchjd")
    methods: ClassVar[tuple[str, ...]] = ("gaba", "gradnorm", "fixed", "uncertainty", "dwa", "famo")

    def good(self) -> list[bytes]:
        import torch

        from gabactl.nn import FixedLoss, GABALoss, GradNormLoss
        from gabactl.nn.losses.peers import peer_loss

        torch.manual_seed(0)
        self.x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        self.make = {
            "gaba": lambda: GABALoss(warmup_steps=1),
            "gradnorm": GradNormLoss,
            "fixed": lambda: FixedLoss((0.3, 0.7)),
            **{name: lambda name=name: peer_loss(name, 2) for name in self.methods[3:]},
        }
        self.forms = []
        for name in self.methods:
            loss = self.make[name]()
            for _ in range(2):
                self._step(loss)
            self.forms.append({"which": name, **_nested(loss.state_dict())})
        return [_saved(form, torch) for form in self.forms]

    def _step(self, loss: Any) -> None:
        total = loss.forward_k([(self.x**2).sum(), (self.x - 1).square().sum()], [self.x])
        total.backward()
        self.x.grad = None

    def bad(self, rng: random.Random) -> bytes:
        import torch

        if rng.random() < 0.25:
            data, other = self.two(rng)
            return mutate.bytes_of(rng, data, other)
        form = rng.choice(self.forms)
        tree = mutate.tree_of(rng, form, tuple(rng.choice(self.forms)))
        if rng.random() < 0.6:
            _strange_tensor(rng, tree, torch)
        try:
            return _saved(tree, torch)
        except (RecursionError, OverflowError):
            return b"\x80\x02" + b"]" * 1000

    def read(self, data: bytes) -> Any:
        from gabactl.base.errors import InputError
        from gabactl.nn.checkpoint import has_strange, load_tensors

        state = load_tensors(self.put("balancer.pt", data))
        if has_strange(state):
            raise InputError("tensors of a strange kind")
        which = state.pop("which", None) if isinstance(state, dict) else None
        if not isinstance(which, str) or which not in self.methods:
            raise InputError("no state")
        loss = self.make[which]()
        try:
            loss.load_state_dict(state)
        except (RuntimeError, AttributeError, TypeError) as error:
            if isinstance(error, InputError) or is_ours(_origin(error)):
                raise
            raise InputError(f"torch refuses it: {type(error).__name__}") from None
        self._step(loss)
        return loss.applied_weights.tolist()


def _origin(error: BaseException) -> str:
    import traceback

    return traceback.extract_tb(error.__traceback__)[-1].filename
