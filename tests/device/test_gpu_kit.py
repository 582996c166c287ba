"""The kit whole, on the CPU in tiny sizes; and with faults planted in its parts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from gpu.store import FIGURES, TRACES, add_trace, finished, read_traces

from gabactl.traces import load_bundled, read_trace, write_parquet
from gabactl.validation.check import check

#: What a rehearsal cannot run, and why.
LEFT_OUT = {
    "needs CUDA": {
        "CUDA graph: full", "CUDA graph: reuse", "NCCL, two ranks",
        "1 captured step", "4 captured steps", "8 captured steps",
    },
    "a rehearsal takes the small one": {"overhead, published network"},
}  # fmt: skip
RUNS = {
    "fd001-gaba",
    "fd001-equal",
    "fd001-excited-adamw-w005-seed0",
    "fd001-excited-adamw-w005-seed0-inverted",
    "fd001-gaba-tf32",
    "fd001-gaba-bf16",
}


@pytest.fixture(scope="module")
def rehearsal(rehearse: Any) -> tuple[subprocess.CompletedProcess[str], Path]:
    return rehearse()


def figures_in(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / FIGURES).read_text(encoding="utf-8"))
    return found


def states(figures: dict[str, Any]) -> dict[str, str]:
    return {
        label: item["status"]
        for part in figures["parts"].values()
        for label, item in part["items"].items()
    }


def test_everything_runs_but_what_needs_cuda(rehearsal) -> None:
    done, out = rehearsal
    figures = figures_in(out)
    for part in figures["parts"].values():
        assert part["status"] == "done", (part, done.stdout)
        for label, item in part["items"].items():
            if label == "FD002-fixed-seed42":  # the tiny data have one subset
                assert item["status"] == "failed"
            elif item["status"] == "left out":
                assert label in LEFT_OUT.get(item["reason"], {label}), item
            else:
                assert item["status"] == "ok", (label, item)
    seen = {label for label, state in states(figures).items() if state == "left out"}
    assert set().union(*LEFT_OUT.values()) <= seen
    assert done.returncode == 1, done.stderr  # for the subset that is not there
    assert "protocol" in done.stdout.splitlines()[-2]


def test_the_figures_say_where_they_are_from(rehearsal) -> None:
    of = figures_in(rehearsal[1])["provenance"]
    assert of["rehearsal"] is True
    for key in ("device", "driver", "versions", "commit", "command", "date"):
        assert of[key], key
    assert of["versions"]["torch"]


def test_the_traces_come_back_as_they_were_recorded(rehearsal) -> None:
    _, out = rehearsal
    traces = read_traces(out / TRACES)
    assert set(traces) >= RUNS | {"check-float32", "check-float64", "FD001-fixed-seed42"}
    for name in RUNS - {"fd001-equal"}:
        trace = traces[name]
        assert trace.precision == "float32"
        if "gaba" in name:
            assert check(trace).ok is True, name
        else:
            assert trace.excitation is not None
    assert traces["check-float64"].precision == "float64"
    found = check(traces["check-float64"])
    assert found.ok is True
    assert found.tolerance == 1e-12
    item = figures_in(out)["parts"]["recordings"]["items"]["fd001-gaba"]
    assert item["replay_ok"] is True
    assert item["steps"] == len(traces["fd001-gaba"])


def test_a_later_lease_leaves_out_what_an_earlier_one_finished(rehearsal, rehearse) -> None:
    _, out = rehearsal
    assert finished([out / FIGURES]) == {"FD001-fixed-seed42"}
    _, again = rehearse("--only", "protocol", "--after", str(out / FIGURES))
    items = figures_in(again)["parts"]["protocol"]["items"]
    assert items["FD001-fixed-seed42"]["reason"] == "an earlier lease finished it"


#: A fault in one item of each part; what is to fail then, and nothing else.
ITEM_FAULTS = """
from gpu import batches, checks, recordings, steps, training
def broken(*given, **named): raise RuntimeError("planted")
checks.fused_norms = broken
steps.memory = broken
whole, one = training.train, batches.batch
training.train = lambda data, s, **n: broken() if s.precision == "bf16" else whole(data, s, **n)
batches.batch = lambda bench, loops, *r: broken() if loops == 100 else one(bench, loops, *r)
"""
FAIL = {"fused norms", "C36: memory", "fd001-gaba-bf16", "compile both", "100 loops"}


def test_a_fault_in_an_item_of_each_part_leaves_the_others_whole(rehearsal, rehearse) -> None:
    done, out = rehearse(planted=ITEM_FAULTS)
    whole, found = states(figures_in(rehearsal[1])), states(figures_in(out))
    assert done.returncode == 1
    assert set(found) == set(whole)
    for label, state in found.items():
        assert state == ("failed" if label in FAIL else whole[label]), label


@pytest.mark.slow
@pytest.mark.parametrize("part", ["checks", "steps", "recordings", "batches", "graphs", "protocol"])
def test_a_part_that_dies_leaves_the_others_whole(rehearsal, rehearse, part) -> None:
    planted = f"""
import os
from dataclasses import replace
gpu_kit.PARTS = tuple(
    replace(p, run=lambda bench: os._exit(7)) if p.name == {part!r} else p for p in gpu_kit.PARTS
)
"""
    done, out = rehearse(planted=planted)
    whole, found = figures_in(rehearsal[1])["parts"], figures_in(out)["parts"]
    assert done.returncode == 1
    assert found.pop(part)["status"] == "died with exit code 7"
    for name, figures in found.items():
        assert figures["status"] == "done"
        got = {label: item["status"] for label, item in figures["items"].items()}
        assert got == {label: item["status"] for label, item in whole[name]["items"].items()}


def test_a_run_that_is_cut_off_keeps_what_it_recorded(rehearse) -> None:
    longer = """
from dataclasses import replace
from gpu import recordings
small = recordings.base
recordings.base = lambda bench, steps: replace(small(bench, steps), steps=10**6, epochs=10**6)
recordings.rates = lambda bench: {1: 1.0}
"""
    # A fifth of the time left is kept for closing.
    done, out = rehearse("--only", "recordings", "--minutes", "0.3", planted=longer)
    items = figures_in(out)["parts"]["recordings"]["items"]
    assert items["fd001-gaba"]["stopped"] == "interrupted", done.stdout
    assert items["fd001-equal"]["reason"] == "no time was left"
    trace = read_traces(out / TRACES)["fd001-gaba"]
    assert trace.truncated
    assert len(trace) == items["fd001-gaba"]["steps"] > 12
    assert check(trace).ok is True


def test_without_cuda_it_says_so(rehearse) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    done, out = rehearse(planted='sys.argv.remove("--rehearse")')
    assert done.returncode == 2
    assert done.stderr == "no CUDA device here: --rehearse tries the kit on the CPU\n"
    assert not out.exists()


def test_traces_in_one_file_are_those_that_went_in(tmp_path) -> None:
    file = tmp_path / TRACES
    gone = load_bundled("fd001-equal")
    names = ("fd001-gaba", "fd001-excited-sgd-w005-seed0", "fd001-gaba")  # the last replaces
    add_trace(file, "fd001-gaba", gone)
    double = load_bundled("fd002-gaba").replace(precision="float64", truncated=True)
    add_trace(file, "double", double)
    for name in names:
        add_trace(file, name, load_bundled(name))
    found = read_traces(file)
    assert sorted(found) == ["double", *sorted(set(names))]
    for name, trace in found.items():
        wanted = double if name == "double" else load_bundled(name)
        # What the file says of itself is compared through a file, too.
        again = read_trace(write_parquet(wanted, tmp_path / "again.parquet"))
        assert trace.metadata == again.metadata
        assert (trace.precision, trace.truncated) == (wanted.precision, wanted.truncated)
        for column in ("step", "grad_norms", "ema", "weights", "losses", "excitation"):
            a, b = getattr(trace, column), getattr(wanted, column)
            assert (a is None) == (b is None), column
            assert a is None or (a.tobytes() == b.tobytes()), (name, column)
