"""Every theorem of the package has its verdict, and every planted error turns it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gabactl.law.stages import raw_weights, saturate, smooth
from gabactl.proving import ProofTable, prove, theorems
from gabactl.proving.library import proof_files

ROOT = Path(__file__).resolve().parents[2]

#: The statements of the required list that are true, and those that are not.
PROVED = [
    "C01",
    "C02",
    "C03-permutation",
    "C03-scale",
    "C04",
    "C05",
    "C06",
    "C07",
    "C10",
    "C11",
    "C15-hold",
    "C20-zero",
    "C21-contributions",
    "C33",
    "C33-inverse",
    "C34-step",
    "EMA-closed",
    "EMA-floor-steps",
    "DEAD-TIME",
    "AUTHORITY",
    "NEUTRAL",
    "JURY",
    "SAMPLE-pole",
    "SAMPLE-noise",
    "GRADNORM-negative",
    "GRADNORM-cycle",
    "ROUND-average",
    "ROUND-range",
    "COST-affine",
    "COST-project",
    "LYAPUNOV",
    "REPLAY",
    "SHARP-attained",
    "RANGE-renormalise-complement",
    "RANGE-renormalise-inverse",
    "RANGE-affine-complement",
    "RANGE-affine-inverse",
    "RANGE-project-complement",
    "RANGE-project-inverse",
    "SHARP-renormalise-complement",
    "SHARP-renormalise-inverse",
    "SHARP-affine-complement",
    "SHARP-affine-inverse",
    "SHARP-project-complement",
    "SHARP-project-inverse",
]
REFUTED = [
    "C01-published",
    "C09",
    "C11-100",
    "C12",
    "C13",
    "C13-every-K",
    "C14",
    "C15",
    "C16",
    "C20",
    "C21",
    "C22",
    "C22-share",
    "C23",
    "C33-three",
    "C34",
    "ROUND-4ulp",
    "SHARP-inverse-attained",
]


def report(table: ProofTable) -> str:
    return "\n".join(f"{r}" for r in table.surprises)


@pytest.fixture(scope="module")
def everything() -> ProofTable:
    return prove(mutants=True, time_limit=300)


@pytest.fixture(scope="module")
def table(everything: ProofTable) -> ProofTable:
    return replace(everything, results=tuple(r for r in everything.results if r.mutant is None))


def test_every_theorem_has_the_expected_verdict(table: ProofTable) -> None:
    assert not table.surprises, report(table)


@pytest.mark.parametrize(("ids", "verdict"), [(PROVED, "proved"), (REFUTED, "refuted")])
def test_the_required_statements_are_decided(
    table: ProofTable, ids: list[str], verdict: str
) -> None:
    assert {name: table.verdict(name) for name in ids} == dict.fromkeys(ids, verdict)


def test_every_refutation_shows_a_counterexample_and_every_proof_a_derivation(
    table: ProofTable,
) -> None:
    for result in table.results:
        found = result.outcome
        if found.verdict == "refuted":
            assert found.counterexample, result.theorem.id
        else:
            assert found.derivation or found.core or found.certificate, result.theorem.id


def test_counterexamples_are_replayed_through_controller_and_module(table: ProofTable) -> None:
    replays = table.outcome("REPLAY").replays
    for name in ("C09", "C13", "C14", "C15", "C21"):
        lines = [line for line in replays if line.startswith(f"{name}: ")]
        assert any("Controller, float64" in line for line in lines), name
        assert any("GABALoss" in line for line in lines), name


def test_the_c13_counterexample_is_minimal(table: ProofTable) -> None:
    # Theory: 229.1 readings to the floor, so no earlier step can break the promise.
    first = table.outcome("C13")
    assert any("active step 230" in step for step in first.derivation)
    assert first.counterexample is not None
    assert first.counterexample["w"] == "1/21, 20/21"


def test_every_planted_error_turns_its_verdict(everything: ProofTable) -> None:
    mutants = [r for r in everything.results if r.mutant is not None]
    assert len(mutants) >= len(everything.results) - len(mutants)
    assert all(r.ok for r in mutants), report(everything)


def no_renormalisation(ema: Any, floor: Any, floor_mode: str = "renormalise") -> Any:
    return (
        np.maximum(ema, floor) if floor_mode == "renormalise" else saturate(ema, floor, floor_mode)
    )  # type: ignore[arg-type]


def over_k(g: Any, law: str = "complement", guard: str = "hold") -> Any:
    raw = raw_weights(g, law, guard)  # type: ignore[arg-type]
    return raw * (len(g) - 1) / len(g) if law == "complement" else raw


def swapped_pole(ema: Any, raw: Any, beta: Any, interval: int = 1) -> Any:
    return smooth(raw, ema, beta, interval)


def frozen(self: Any, reading: Any) -> None:
    self.ema_weights = smooth(self.ema_weights, raw_weights(reading, guard="none"), 0.99)


@pytest.mark.parametrize(
    ("id", "name", "bug"),
    [
        ("LINK-floor", "saturate", no_renormalisation),
        ("C04", "saturate", lambda e, m, mode="renormalise": np.maximum(e, m) + m),
        ("LINK-law", "raw_weights", over_k),
        ("C06", "raw_weights", over_k),
        ("C15-usable", "usable", lambda g, law="complement": np.ones(len(g), dtype=bool)),
        ("SAMPLE-pole", "smooth", lambda e, r, b, n=1: smooth(e, r, b)),
    ],
)
def test_a_bug_in_the_shipped_stage_is_noticed(
    monkeypatch: pytest.MonkeyPatch, id: str, name: str, bug: Any
) -> None:
    item = next(t for group in theorems().values() for t in group if t.id == id)
    assert item.prove().verdict == item.expect
    monkeypatch.setitem(item.check.__globals__, name, bug)  # type: ignore[attr-defined]
    assert item.prove().verdict != item.expect


@pytest.mark.parametrize("id", ["EMA-closed", "EMA-floor-steps", "DEAD-TIME"])
def test_a_bug_in_the_shipped_average_is_noticed(monkeypatch: pytest.MonkeyPatch, id: str) -> None:
    item = next(t for group in theorems().values() for t in group if t.id == id)
    monkeypatch.setattr("gabactl.law.stages.smooth", swapped_pole)
    assert item.prove().verdict != item.expect


def test_a_controller_without_the_guard_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    every = {t.id: t for group in theorems().values() for t in group}
    monkeypatch.setattr("gabactl.law.controller.Controller._take", frozen)
    assert every["C16"].prove("guard hold").verdict != "proved"
    assert every["C15"].prove("guard hold").verdict != "proved"


def test_every_family_runs_as_a_script() -> None:
    for file in proof_files():
        assert 'if __name__ == "__main__":' in file.read_text(encoding="utf-8"), file
    done = subprocess.run(
        [sys.executable, str(ROOT / "proofs" / "sampling.py")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"SAMPLE-lag +proved", done.stdout)


def test_ids_and_statements_are_in_good_order() -> None:
    every = [t for group in theorems().values() for t in group]
    assert len({t.id for t in every}) == len(every)
    for item in every:
        assert item.source, item.id
        assert item.mutants, item.id
        assert item.statement.endswith("."), item.id


def test_the_generated_pages_are_those_of_the_objects() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "_generate_theorems.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_documented_rule_is_proved_in_15_lines(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "prove-your-own-rule.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    file = tmp_path / "pull.py"
    file.write_text(code, encoding="utf-8")
    table = prove(files=[file], mutants=True)
    assert [r.outcome.verdict for r in table.results] == ["proved", "refuted"]
    assert not table.surprises
