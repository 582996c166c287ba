"""Fixtures that several areas share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def cmapss_dir() -> Path:
    """The real C-MAPSS files: GABACTL_CMAPSS, or ../shared/data/cmapss; skips where absent."""
    given = os.environ.get("GABACTL_CMAPSS")
    places = (
        [Path(given)]
        if given
        else [base / ".." / "shared" / "data" / "cmapss" for base in (_ROOT, Path.cwd())]
    )
    for place in places:
        if place.is_file() or any(place.glob("train_FD001.txt*")):
            return place
    pytest.skip(f"no C-MAPSS data in {places[0]}: set GABACTL_CMAPSS")


def engine_rows(
    lengths: list[int], rng: np.random.Generator, altitudes: tuple[int, ...] = (0,)
) -> list[str]:
    """Lines of a train or test file: sensors that drift with age, one engine after another."""
    lines = []
    for unit, length in enumerate(lengths, start=1):
        for cycle in range(1, length + 1):
            altitude = float(rng.choice(altitudes))
            settings = [altitude + rng.normal(0, 0.003), altitude / 50 + 0.0003, 100.0]
            age = cycle / 100.0
            sensors = 100.0 + altitude + age * np.arange(21) + rng.normal(0, 0.1, 21)
            cells = [*settings, *sensors]
            lines.append(f"{unit} {cycle} " + " ".join(f"{v:.4f}" for v in cells) + "  ")
    return lines


@pytest.fixture(scope="session")
def make_cmapss(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a small C-MAPSS-like subset into a new folder."""

    def make(
        subset: str = "FD001",
        train: tuple[int, ...] = (60, 70, 55, 80, 65, 50, 75, 62, 58, 66),
        test: tuple[int, ...] = (40, 21, 55),
        altitudes: tuple[int, ...] = (0,),
    ) -> Path:
        folder = tmp_path_factory.mktemp("cmapss")
        rng = np.random.default_rng(7)
        for kind, lengths in (("train", train), ("test", test)):
            lines = engine_rows(list(lengths), rng, altitudes)
            (folder / f"{kind}_{subset}.txt").write_text("\n".join(lines) + "\n")
        left = [20 + 50 * i for i in range(len(test))]
        (folder / f"RUL_{subset}.txt").write_text("".join(f"{r} \n" for r in left))
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_cmapss(make_cmapss: Callable[..., Path]) -> Path:
    """A folder with a small subset FD001 (315 training windows of 9 engines with seed 0)."""
    return make_cmapss()


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """One thread for PyTorch, so that sums are the same every time: those of a module's fixtures too."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
