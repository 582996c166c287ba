"""``gabactl prove`` and ``gabactl claims`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gabactl.cli import main


def test_prove_prints_verdicts_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "C05", "C01-published", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "1 proved, 1 refuted, 0 unknown; 0 not as expected" in out
    assert "g = (0, 0)" in out


def test_prove_details_show_the_derivation_and_json_is_strict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["prove", "C05", "--details", "--mutants", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "equal by algebra" in out
    assert "gain 1/K" in out
    assert main(["prove", "C05", "--json", "--workers", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["as_expected"] is True
    (item,) = found["theorems"]
    assert item["verdict"] == item["expect"] == "proved"
    assert item["derivation"]


def test_a_surprise_in_a_users_file_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from gabactl.proving import smt, theorem\n"
        "@theorem('WRONG', 'all squares exceed 1', method='SMT', mutants={'two': {'n': 2}})\n"
        "def check(n=1):\n"
        "    x, = smt.reals('x')\n"
        "    return smt.decide(x * x > n)\n",
        encoding="utf-8",
    )
    assert main(["prove", str(file), "--workers", "1"]) == 1
    assert "refuted (not as expected)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["prove", "NOPE"],
        ["prove", "none.py"],
        ["prove", "C05", "--time", "0"],
        ["prove", "C05", "--workers", "0"],
        ["claims", "C99"],
        ["claims", "C08", "--html", "no/such/folder/x.html"],
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("gabactl: ")
    assert err.count("\n") == 1


def test_claims_table_details_json_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "claims.html"
    assert main(["claims", "C08", "c37", "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "C08  reproduced" in out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["claims", "C08", "--details"]) == 0
    assert "22.36x (claimed: 22.36x)" in capsys.readouterr().out
    assert main(["claims", "C08", "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["claims"]
    assert item["verdict"] == "reproduced"


def test_a_claim_that_turns_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    from gabactl.claims import numeric

    def uniform(_: Any) -> Any:
        return np.array([0.5, 0.5])

    monkeypatch.setattr(numeric, "raw_weights", uniform)
    assert main(["claims", "C08"]) == 1
    assert "expected reproduced" in capsys.readouterr().out


def test_help_says_that_files_are_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--help"]) == 0
    assert "is run" in " ".join(capsys.readouterr().out.split())


def test_the_list_decides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "floor_ranges", "--list"]) == 0
    out = capsys.readouterr().out
    assert "RANGE-project-inverse" in out
    assert "verdict" not in out
    assert main(["prove", "C13", "--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["theorems"]
    assert [item["id"] for item in found] == ["C13", "C13-every-K"]
    assert all(item["mutants"] for item in found)
