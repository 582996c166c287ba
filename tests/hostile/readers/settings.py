"""Settings in TOML and in one line: specs, scenarios, grids, plans, plants, excitations."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from hostile import mutate
from hostile.readers.base import Reader, check_line


class Toml(Reader):
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


class Spec(Toml):
    name = "spec-toml"
    modules = ("gabactl.law.spec", "gabactl.base.files")
    names = ("n_tasks", "beta", "floor", "warmup", "law", "floor_mode", "guard", "interval", "gaba")

    def texts(self) -> list[str]:
        from gabactl.law.spec import GabaSpec

        three = GabaSpec(n_tasks=3, floor=0.01, law="inverse", floor_mode="affine", interval=5)
        return [GabaSpec().to_toml(), three.to_toml(), "beta = 0.9\n"]

    def read(self, data: bytes) -> Any:
        from gabactl.law.spec import GabaSpec

        spec = GabaSpec.from_toml(self.put("spec.toml", data))
        self.put("again.toml", spec.to_toml().encode())
        if GabaSpec.from_toml(self.folder / "again.toml") != spec:
            raise AssertionError("does not read back as written")
        return spec


def _bundled(sweeps: bool) -> list[str]:
    from gabactl.loops.scenarios import simulation_files

    files = [f for f in simulation_files() if f.stem.startswith("sweep") == sweeps]
    return [f.read_text(encoding="utf-8") for f in files if "campaign" not in f.stem]


class Scenario(Toml):
    name = "scenario-toml"
    modules = (
        "gabactl.loops.scenarios",
        "gabactl.loops.profiles",
        "gabactl.balancers",
        "gabactl.plants",
    )
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
        from gabactl.loops.scenarios import load_scenario

        scenario = load_scenario(self.put("scenario.toml", data))
        f"{scenario.title}{scenario.description}{list(scenario.balancers)}".encode()
        return scenario


class Sweep(Toml):
    name = "sweep-grid-toml"
    modules = (
        "gabactl.loops.sweeps.description",
        "gabactl.loops.scenarios",
        "gabactl.loops.profiles",
    )
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
        from gabactl.loops.sweeps import load_sweep

        sweep = load_sweep(self.put("sweep.toml", data))
        first = sweep.parameters(0, min(sweep.loops, 4))
        if any(not np.isfinite(v).all() for v in first.values()):
            raise AssertionError("a parameter is not finite")
        json.dumps(sweep.describe(), allow_nan=False).encode()
        return sweep


class Texts(Reader):
    """Settings that are given in one line, or in the environment: plants, excitations, bounds."""

    name = "option-text"
    modules = (
        "gabactl.plants",
        "gabactl.loops.profiles",
        "gabactl.nn.excitation",
        "gabactl.balancers",
    )

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
        from gabactl.base.errors import InputError
        from gabactl.cli.cmapss.train import _numbers
        from gabactl.cli.fuzz import _bound
        from gabactl.cli.trace import _columns
        from gabactl.cli.tune import _pair
        from gabactl.loops.scenarios import load_scenario
        from gabactl.nn.excitation import Excitation
        from gabactl.plants import parse_plant

        text = data.decode("utf-8", "surrogateescape")
        if not hasattr(self, "scenario"):
            self.scenario = load_scenario("published")
        last = None
        calls: tuple[Callable[[str], Any], ...] = (
            parse_plant,
            Excitation.parse,
            _bound,
            _numbers,
            lambda given: _columns(given.split(" ")),
            lambda given: _pair("--rho", given),
            _browser,
        )
        if ":" not in text or "=" in text:  # package.module:factory runs code, as documented
            calls = (*calls, self.scenario.choose)
        for call in calls:
            try:
                last = call(text)
            except InputError as error:
                check_line(error)
        return last


def _browser(text: str) -> str:
    """The environment variable that names a browser to print with."""
    from gabactl.reports.pdf import find_browser

    before = os.environ.get("GABACTL_BROWSER")
    os.environ["GABACTL_BROWSER"] = text.replace("\0", "")
    try:
        return find_browser()
    finally:
        del os.environ["GABACTL_BROWSER"]
        if before is not None:
            os.environ["GABACTL_BROWSER"] = before


class Campaign(Toml):
    name = "campaign-toml"
    modules = ("gabactl.nn.campaigns.plan", "gabactl.nn.training.settings", "gabactl.nn.excitation")
    needs = ("torch",)
    names = (
        "campaign", "name", "subsets", "seeds", "threads", "checkpoint_every", "method", "balancer",
        "spec", "epochs", "steps", "batch_size", "optimizer", "lr", "excite", "device", "weights",
        "channels", "model", "dropout", "patience", "clip", "precision", "sample_weights",
    )  # fmt: skip

    def texts(self) -> list[str]:
        from gabactl.loops.scenarios import simulation_files

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
        return [small] * 4 * len(bundled) + bundled  # a bundled one takes ten times as long

    def read(self, data: bytes) -> Any:
        from gabactl.nn.campaigns.plan import load_campaign

        plan = load_campaign(self.put("campaign.toml", data))
        for run in plan.runs:
            if "/" in run.name or run.name.startswith("."):
                raise AssertionError(f"a run of the name {run.name!r} leaves its folder")
        return plan
