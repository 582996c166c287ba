"""A few hundred bad inputs for every reader, every case ever found, and faults planted on purpose.

The hundred thousand of each are those of ``simulations/hostile_inputs.py``.
"""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gabactl.base.errors
from hostile import guided, watch
from hostile.child import Guard, inputs, one
from hostile.planted import FAULTS
from hostile.readers import READERS, Reader, refusal
from hostile.readers.base import is_ours

CASES = Path(__file__).parent / "cases"
NAMES = [name for name in READERS if name != "planted"]
#: Readers whose inputs cost milliseconds get fewer of them here.
FEW = {
    "campaign-table": 60,
    "checkpoint": 60,
    "recording-recovery": 60,
    "state-dict": 60,
    "sweep-folder": 60,
    "sweep-grid-toml": 100,
    "trace-parquet": 150,
}
#: Readers for which most bad inputs say something else, or nothing: they are taken.
TAKES = ("option-text", "dashboard-address", "dashboard-headers", "proof-answer")


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return {}


def reader_of(name: str, made: dict[str, Reader], factory: pytest.TempPathFactory) -> Reader:
    missing = [p for p in READERS[name].needs if importlib.util.find_spec(p) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    if name not in made:
        made[name] = READERS[name](factory.mktemp(name))
    return made[name]


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_read_or_refused_in_one_line(
    name: str, readers: dict[str, Reader], tmp_path_factory: pytest.TempPathFactory
) -> None:
    reader = reader_of(name, readers, tmp_path_factory)
    for data in reader.seeds:
        assert refusal(reader, data) is None
    guard = Guard(reader.folder)  # not armed: a hook of the interpreter cannot be taken away
    counts: Counter[str] = Counter()
    for number in range(FEW.get(name, 300)):
        verdict, what = one(reader, guard, inputs(reader, 1, number))
        assert verdict != "finding", f"input {number} of seed 1: {what}"
        counts[verdict] += 1
    # Enough of them are bad, or (names in an address) enough of them get far.
    assert counts["refused"] > 20 or name in TAKES


@pytest.mark.parametrize(
    "case", sorted(CASES.glob("*/*")), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_found_cases_stay_mended(
    case: Path, readers: dict[str, Reader], tmp_path_factory: pytest.TempPathFactory
) -> None:
    reader = reader_of(case.parent.name, readers, tmp_path_factory)
    verdict, what = one(reader, Guard(reader.folder), case.read_bytes())
    assert verdict != "finding", what


@pytest.mark.parametrize(
    "code",
    [
        b"x = 1\0", b"x = '\xff'", b"x = " + b"(" * 100_000 + b")" * 100_000,
        b"x = " + b"-" * 200_000 + b"1", b"x = " + b"9" * 5000, b"raise SystemExit(0)",
        b"raise ValueError('a\\nb\\x1b[2J')", b"",
    ],
    ids=["null", "not-utf8", "brackets", "minus", "digits", "exits", "escapes", "empty"],
)  # fmt: skip
def test_theorem_files_that_do_not_run(code: bytes, tmp_path: Path) -> None:
    from gabactl.base.errors import InputError, printable
    from gabactl.proving.library import load

    file = tmp_path / "theorems.py"
    file.write_bytes(code)
    with pytest.raises(InputError) as refused:
        load(file)
    assert printable(str(refused.value)) == str(refused.value)


def test_what_lies_in_a_checkout_of_our_name_is_not_ours() -> None:
    packages = "/home/someone/gabactl/.venv/lib/python3.11/site-packages"
    assert not is_ours(f"{packages}/torch/nn/modules/module.py")
    assert is_ours(gabactl.base.errors.__file__)


def test_cases_are_small() -> None:
    assert sum(case.stat().st_size for case in CASES.glob("*/*")) < 400_000


def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SECONDS", 0.5)
    total = watch.run("planted", 0, 0, len(FAULTS), module="hostile.planted")
    found = {finding["input"]: finding["what"] for finding in total["found"]}
    assert sorted(found) == [
        n for n, what in enumerate(FAULTS) if what not in ("takes it", "refuses it")
    ]
    words = {
        "raises": "KeyError", "says two lines": "not one short printable line",
        "writes outside": "for writing", "removes outside": "os.remove",
        "runs a program": "subprocess.Popen", "runs code": "ran code from '<string>'",
        "takes memory": "MemoryError", "dies": "SIGABRT", "hangs": "hangs: over 0.5 s",
    }  # fmt: skip
    for what, said in words.items():
        assert said in found[FAULTS.index(what)], found


def test_the_guarded_process_finds_nothing_in_a_sound_reader() -> None:
    total = watch.run("spec-toml", 1, 0, 100)
    assert total["found"] == []
    assert total["accepted"] + total["refused"] == 100
    assert 0 < total["slowest_cpu_seconds"] < watch.SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_guarded_inputs(name: str) -> None:
    if any(importlib.util.find_spec(p) is None for p in READERS[name].needs):
        pytest.skip("a package is not installed")
    assert watch.run(name, 2, 0, 400 if name in FEW else 1500)["found"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_hypothesis_draws(
    name: str, readers: dict[str, Reader], tmp_path_factory: pytest.TempPathFactory
) -> None:
    reader = reader_of(name, readers, tmp_path_factory)
    guard = Guard(reader.folder)

    @settings(max_examples=20 if name in FEW else 60, deadline=None, database=None)
    @given(st.randoms(use_true_random=False))
    def holds(rng: random.Random) -> None:
        verdict, what = one(reader, guard, reader.bad(rng))
        assert verdict != "finding", what

    holds()


@pytest.mark.slow
def test_coverage_guides() -> None:
    if not guided.available():
        pytest.skip("atheris is not installed")
    done = guided.run("fuzz-corpus", 2000)
    assert done["findings"] == []
    assert done["inputs"] >= 2000
    assert done["edges"] > 50
