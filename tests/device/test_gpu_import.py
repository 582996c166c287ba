"""What comes back from a GPU goes into the repository, and a rehearsal does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import gpu_import
from gpu.store import FIGURES, TRACES, add_trace
from gpu_import import BUNDLED, NOTHING, PAGE, RECORDS, RESULT, ROOT, block, main, with_block

from gabactl.base.errors import InputError
from gabactl.claims.records import read_record
from gabactl.traces import bundled, load_bundled, read_trace

CARD = {
    "device": "A Card",
    "driver": "1.2",
    "versions": {"torch": "2.11", "torchjd": "absent"},
    "commit": "abc",
    "command": "python benchmarks/gpu_kit.py -o OUT",
    "date": "2026-01-02T03:04:05+00:00",
    "rehearsal": False,
}


def lease(**changes: Any) -> dict[str, Any]:
    steps = {
        "C37: step time": {
            "status": "ok", "step_time_ratio": 1.5, "ms_plain": 4.0, "ms_gaba": 6.0,
            "batch": 256, "words": "1.50 | times",
        },
        "C36: memory": {"status": "failed", "reason": "OutOfMemoryError"},
    }  # fmt: skip
    runs = {
        "fd001-gaba": {"status": "ok", "stopped": "finished"},
        "fd001-equal": {"status": "ok", "stopped": "interrupted"},
    }
    parts = {"steps": {"items": steps}, "recordings": {"items": runs}}
    return {"provenance": {**CARD, **changes}, "parts": parts}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with the folders that are written to."""
    for folder in (BUNDLED, RECORDS, Path(RESULT).parent, Path(PAGE).parent):
        (tmp_path / "root" / folder).mkdir(parents=True)
    shutil.copy(ROOT / PAGE, tmp_path / "root" / PAGE)
    return tmp_path / "root"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / FIGURES).write_text(json.dumps(lease()))
    for name in ("fd001-gaba", "fd001-equal"):
        add_trace(folder / TRACES, name, load_bundled(name))
    return folder


def test_finished_runs_records_figures_and_the_page(out, root, capsys) -> None:
    assert main([str(out), "--root", str(root)]) == 0
    assert [f.name for f in (root / BUNDLED).iterdir()] == ["gpu-fd001-gaba.parquet"]
    trace = read_trace(root / BUNDLED / "gpu-fd001-gaba.parquet")
    assert trace.metadata["provenance"]["device"] == "A Card"
    assert trace.grad_norms.tobytes() == load_bundled("fd001-gaba").grad_norms.tobytes()
    # What failed leaves no record.
    assert [f.name for f in (root / RECORDS).iterdir()] == ["C37-cuda.json"]
    record = read_record((root / RECORDS / "C37-cuda.json").read_text(), "C37-cuda.json")
    assert record.values == {"step_time_ratio": 1.5, "ms_plain": 4.0, "ms_gaba": 6.0}
    assert record.provenance["commit"] == "abc"
    page = (root / PAGE).read_text()
    assert NOTHING not in page
    assert "| steps | C37: step time | 1.50 \\| times | 1 |" in page
    assert "| steps | C36: memory | failed OutOfMemoryError | 1 |" in page
    assert "1. A Card, driver 1.2, torch 2.11; commit abc, 2026-01-02" in page
    assert main(["--check", "--root", str(root)]) == 0
    (root / PAGE).write_text(page.replace("1.50", "1.40"))
    assert main(["--check", "--root", str(root)]) == 1


def test_a_later_lease_adds_and_what_failed_replaces_nothing(out, root) -> None:
    main([str(out), "--root", str(root)])
    later = lease(device="Another")
    later["parts"]["steps"]["items"] = {
        "C37: step time": {"status": "failed", "reason": "lost"},
        "C36: memory": {"status": "ok", "words": "2 times", "memory_ratio": 2.0, "batch": 256,
                        "mib_with_graph": 2.0, "mib_without_graph": 1.0},
    }  # fmt: skip
    (out / FIGURES).write_text(json.dumps(later))
    main([str(out), "--root", str(root)])
    kept = json.loads((root / RESULT).read_text())
    steps = kept["parts"]["steps"]
    assert [of["device"] for of in kept["leases"]] == ["A Card", "Another"]
    assert (steps["C37: step time"]["status"], steps["C37: step time"]["lease"]) == ("ok", 0)
    assert (steps["C36: memory"]["status"], steps["C36: memory"]["lease"]) == ("ok", 1)
    assert "Another" in (root / RECORDS / "C36-cuda.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rehearsal": True}, "is a rehearsal on a CPU"),
        ({"commit": "unknown"}, "does not say its commit"),
        ({"driver": ""}, "does not say its driver"),
    ],
)
def test_what_is_refused_writes_nothing(out, root, capsys, changes, message) -> None:
    (out / FIGURES).write_text(json.dumps(lease(**changes)))
    assert main([str(out), "--root", str(root)]) == 2
    assert message in capsys.readouterr().err
    assert not (root / RESULT).exists()
    assert not list((root / BUNDLED).iterdir())


def test_a_rehearsal_goes_into_another_checkout_only(rehearse, root, capsys) -> None:
    _, out = rehearse("--only", "recordings")
    assert main([str(out), "--rehearsal"]) == 2
    assert "give another --root" in capsys.readouterr().err
    assert main([str(out), "--rehearsal", "--root", str(root)]) == 0
    names = {f.stem for f in (root / BUNDLED).iterdir()}
    assert {"gpu-fd001-gaba", "gpu-fd001-equal"} <= names
    assert not any("bf16" in name for name in names)


def test_a_page_without_its_marks_is_not_written() -> None:
    with pytest.raises(InputError, match="has lost the marks"):
        with_block("no marks", block(None))


def test_the_page_and_the_readme_say_what_there_is() -> None:
    assert main(["--check"]) == 0
    there = any(name.startswith("gpu-") for name in bundled())
    assert (ROOT / RESULT).is_file() == there
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert ("not yet validated on a GPU" in " ".join(readme.split())) != there
    assert (gpu_import.NOTHING in (ROOT / PAGE).read_text(encoding="utf-8")) != there
