"""The process that fuzzes the readers: what it runs, what its log says, and where it is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from contextlib import nullcontext
from pathlib import Path

import pytest

from gabactl.base.errors import InputError, MissingPackage
from gabactl.fuzzing import _reader_target, readers

#: What libFuzzer prints, shortened.
QUIET = """
#2 INITED cov: 40 ft: 41 corp: 1/1b
#1024 pulse  cov: 310 ft: 400 corp: 12/900b
Done 2048 runs in 2 second(s)
stat::number_of_executed_units: 2048
"""
BROKEN = """
#7 NEW    cov: 55 ft: 60 corp: 3/10b
 === Uncaught Python exception: ===
ValueError: planted
Traceback (most recent call last):
==12== ERROR: libFuzzer: fuzz target exited
SUMMARY: libFuzzer: fuzz target exited
artifact_prefix='c/crash-'; Test unit written to c/crash-abc
"""


def test_a_log_without_a_finding():
    result = readers._read_log(QUIET, 0, 2.0, 5)
    assert (result.executions, result.edges, result.violated) == (2048, 310, False)
    assert (result.finding, result.witness, result.seed) == ("", None, 5)
    assert result.rows() == [
        ("verdict", "held"),
        ("files read", "2,048 in 2 s"),
        ("edges covered", "310"),
        ("seed", "5"),
    ]
    assert result.to_dict()["verdict"] == "held"


def test_a_log_with_a_finding_names_the_exception_and_the_file():
    result = readers._read_log(BROKEN, 77, 2.0, 0)
    assert result.violated
    assert result.finding == "ValueError: planted"
    assert result.witness == "c/crash-abc"
    assert (result.executions, result.edges) == (7, 55)
    assert result.rows()[-2:] == [("finding", "ValueError: planted"), ("file", "c/crash-abc")]
    assert result.to_dict()["verdict"] == "violated"


def test_a_process_that_ends_without_a_word_is_a_finding():
    bare = BROKEN.replace("ValueError: planted\n", "")
    told = readers._read_log(bare, 77, 2.0, 0).finding
    assert told == "==12== ERROR: libFuzzer: fuzz target exited"
    killed = readers._read_log("", -9, 2.0, 0)
    assert killed.finding == "the reader's process ended with code -9"
    assert (killed.executions, killed.edges, killed.witness) == (0, 0, None)


def test_the_process_gets_seeds_limits_and_a_folder_of_its_own(tmp_path, monkeypatch):
    asked = {}

    def run(command, **options):
        asked["command"] = command
        # The seeds are there while it runs.
        asked["seeds"] = sorted(p.suffix for p in Path(command[4]).iterdir())
        return subprocess.CompletedProcess(command, 0, QUIET, "")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(subprocess, "run", run)
    result = readers.fuzz_readers(time_limit=0.2, seed=3, corpus=tmp_path / "kept")
    assert (result.executions, result.seconds, result.seed) == (2048, 0.2, 3)
    command = asked["command"]
    assert command[:3] == [sys.executable, "-m", "gabactl.fuzzing._reader_target"]
    assert command[3] == str(tmp_path / "kept" / "readers")
    assert Path(command[3]).is_dir()
    assert asked["seeds"] == [".arrows", ".csv", ".parquet"]
    assert {"-max_total_time=1", "-seed=4", "-timeout=20"} <= set(command)


def test_without_atheris_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="atheris"):
        readers.fuzz_readers(corpus=tmp_path)
    assert not any(tmp_path.iterdir())


def test_only_a_refusal_is_an_answer_of_a_reader(monkeypatch):
    """The target with a stand-in for atheris: every byte string goes to every reader."""
    given = {}
    fake = types.ModuleType("atheris")
    fake.instrument_imports = lambda include: nullcontext(given.update(include=include))
    fake.Setup = lambda arguments, target: given.update(target=target)
    fake.Fuzz = lambda: given["target"](b"step,wall_time\n1,0.5\nno trace")
    monkeypatch.setitem(sys.modules, "atheris", fake)
    _reader_target.main()
    assert given["include"] == ["gabactl.traces"]
    from gabactl.traces import reader

    calls = []

    def refuses(path, **options):
        calls.append((Path(path).read_bytes(), options))
        raise InputError("no")

    monkeypatch.setattr(reader, "read_trace", refuses)
    monkeypatch.setattr(reader, "iter_trace", refuses)
    fake.Fuzz = lambda: given["target"](b"abc")
    _reader_target.main()
    assert calls == [(b"abc", {}), (b"abc", {"salvage": True}), (b"abc", {})]

    def breaks(path, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(reader, "iter_trace", breaks)
    with pytest.raises(ZeroDivisionError):
        _reader_target.main()
    monkeypatch.setattr(reader, "iter_trace", lambda path: iter(()))
    _reader_target.main()


@pytest.mark.slow
def test_the_readers_stand_some_seconds_of_it(tmp_path):
    pytest.importorskip("atheris")
    result = readers.fuzz_readers(time_limit=5.0, corpus=tmp_path)
    assert not result.violated, result.finding
    assert result.executions > 100
    assert result.edges > 50
