"""The engine: selection, time limits, crashes and files of users."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gabactl.base.errors import InputError
from gabactl.proving import Outcome, prove, theorem
from gabactl.proving.engine import ProofResult
from gabactl.proving.library import load

HEAD = "from gabactl.proving import Outcome, smt, theorem\n"


def write(folder: Path, body: str, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(HEAD + body, encoding="utf-8")
    return file


def one(id: str, body: str) -> str:
    return (
        f"@theorem({id!r}, 'a statement', method='exact', mutants={{'other': {{'x': 2}}}})\n"
        f"def check_{id.lower()}(x=1):\n    {body}\n"
    )


def test_a_check_that_runs_too_long_is_unknown_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        one("SLOW", "while True: pass") + one("FAST", "return Outcome('proved', ('x',))"),
    )
    warm = prove(["FAST"], [file], workers=1, time_limit=120)
    assert warm.verdict("FAST") == "proved"
    table = prove(files=[file], workers=1, time_limit=8)
    assert table.verdict("SLOW") == "unknown"
    assert "no answer within" in table.outcome("SLOW").reason
    assert table.verdict("FAST") == "proved"
    assert [r.theorem.id for r in table.surprises] == ["SLOW"]


def test_a_process_that_dies_is_unknown_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "import os\n"
        + one("DIES", "os._exit(3)")
        + one("LIVES", "return Outcome('proved', ('x',))"),
    )
    table = prove(files=[file], workers=1, time_limit=120)
    assert table.verdict("DIES") == "unknown"
    assert table.verdict("LIVES") == "proved"


def test_an_error_in_a_check_is_unknown_with_its_reason(tmp_path: Path) -> None:
    file = write(
        tmp_path, one("ERR", "raise ZeroDivisionError('by zero')") + one("NONE", "return 1")
    )
    table = prove(files=[file], workers=1)
    assert table.outcome("ERR").reason == "ZeroDivisionError: by zero"
    assert "returned int" in table.outcome("NONE").reason


def test_what_a_check_prints_does_not_disturb_the_answers(tmp_path: Path) -> None:
    file = write(
        tmp_path, "print('hello')\n" + one("LOUD", "print('{}'); return Outcome('proved', ('x',))")
    )
    assert prove(files=[file], workers=1).verdict("LOUD") == "proved"


def test_a_solver_that_is_late_is_stopped_however_soon_the_signal_comes() -> None:
    from gabactl.proving import smt

    # Minutes of work. A single signal is lost where it falls between two of the solver's
    # procedures, which depends on the moment: so many moments.
    a, b, c, d, e, f = smt.reals("a b c d e f")
    goal = (a**4 + b**4 + c**4 + d**4 + e**4 + f**4 + 1) * (a * a + b * b + 1) >= (
        4 * a * b * c * d * e * f * a + a * b
    )
    for timeout in (1e-6, 0.0005, 0.001, 0.002, 0.002, 0.003, 0.005, 0.02, 0.05):
        began = time.perf_counter()
        found = smt.decide(
            goal, timeout=timeout, one=a * b * c == d + e * f, two=a**3 + b**3 == c**3 + d
        )
        assert (found.verdict, found.reason) == (
            "unknown",
            f"the solver gave up: no answer within {timeout:g} s",
        )
        assert time.perf_counter() - began < 10.0
    # What was stopped leaves no signal behind for what comes next.
    assert smt.decide(a * a >= 0).verdict == "proved"


def test_a_solver_that_gives_up_by_itself_says_why() -> None:
    import z3

    from gabactl.proving import smt

    x, y = smt.reals("x y")
    found = smt.decide(z3.Not(z3.And(x**y == 2, y**x == 3)))
    assert (found.verdict, found.reason) == ("unknown", "the solver gave up: unknown")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_timeout_is_a_positive_time(timeout: float) -> None:
    from gabactl.proving import smt

    with pytest.raises(InputError, match=f"timeout = {timeout}: give a number of seconds above 0"):
        smt.decide(smt.reals("x")[0] >= 0, timeout=timeout)


def test_an_irrational_counterexample_is_no_counterexample() -> None:
    from gabactl.proving import smt

    (x,) = smt.reals("x")
    assert smt.decide(x * x != 2).verdict == "unknown"


def test_a_mutant_that_does_not_turn_is_not_as_expected(tmp_path: Path) -> None:
    file = write(tmp_path, one("VAIN", "return Outcome('proved', (str(x),))"))
    table = prove(files=[file], mutants=True, workers=1)
    assert [(r.mutant, r.ok) for r in table.results] == [(None, True), ("other", False)]


def test_an_unknown_mutant_does_not_count_as_turned() -> None:
    @theorem("U", "a statement", method="exact", mutants={"m": {}})
    def check() -> Outcome:
        return Outcome("unknown")

    assert not ProofResult(check, check.prove("m"), 0.0, "m").ok


def test_selection_by_id_prefix_family_and_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "".join(one(i, "return Outcome('proved', ('x',))") for i in ("A1", "B1")).replace(
            "'B1', 'a", "'A1-more', 'a"
        ),
    )
    ids = lambda *names: [r.theorem.id for r in prove(names, [file], workers=1).results]  # noqa: E731
    assert ids("a1") == ["A1", "A1-more"]
    assert ids("A1-more") == ["A1-more"]
    assert ids("mine") == ["A1", "A1-more"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "holds no theorem"),
        ("1/0\n", "does not run"),
        (one("X", "pass") + one("Y", "pass").replace("'Y'", "'X'"), "two theorems have the id"),
        ("@theorem('X', 's', mutants={})\ndef f(): pass\n", "has no mutant"),
        (
            "@theorem('X', 's', mutants={'a': {}}, method='magic')\ndef f(): pass\n",
            "method = 'magic'",
        ),
        ("@theorem('X', 's', mutants={'a': {}}, expect='yes')\ndef f(): pass\n", "expect = 'yes'"),
    ],
)
def test_a_file_that_is_no_good_is_refused(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, body, f"bad{abs(hash(message))}.py"))


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no theorem 'nope'"):
        prove(["NOPE"])
    with pytest.raises(InputError, match="no such file"):
        prove(files=[tmp_path / "none.py"])
    with pytest.raises(InputError, match="time = 0"):
        prove(["C05"], time_limit=0)
    with pytest.raises(InputError, match="workers = 0"):
        prove(["C05"], workers=0)


def test_an_outcome_survives_the_way_between_processes() -> None:
    found = Outcome("refuted", ("a",), ("h",), {"x": "1/3"}, ("line",), {"P": "1"}, "why")
    assert Outcome.from_dict(found.to_dict()) == found
