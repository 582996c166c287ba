"""Steps of a derivation after each kind of verdict, exact equations, and what may be missing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import sympy as sp

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.proving import (
    Outcome,
    certificate,
    engine,
    library,
    prove,
    replay,
    rounding,
    smt,
    symbolic,
)
from gabactl.proving.library import load, select

FILE = """
from gabactl.proving import Outcome, theorem

@theorem("YES", "s", method="exact", mutants={"not": {"truth": False}})
def yes(truth=True):
    print("what is printed is no answer")
    return Outcome("proved" if truth else "refuted")
"""


def test_a_proving_process_answers_a_line_for_a_line_and_ends_with_its_input(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    asked = [(str(file), "YES", None), (str(file), "YES", "not"), (str(file), "NO", None)]
    asked += [(str(file), "YES", "other"), (str(tmp_path / "none.py"), "YES", None)]
    lines = [json.dumps({"path": p, "id": i, "mutant": m}) + "\n" for p, i, m in asked]
    ended = subprocess.run(
        [sys.executable, "-m", "gabactl.proving._worker"],
        input="".join(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = [Outcome.from_dict(json.loads(line)) for line in ended.stdout.splitlines()]
    assert [a.verdict for a in answers] == ["proved", "refuted", *["unknown"] * 3]
    assert answers[2].reason == "'NO'"
    assert answers[3].reason == "YES has no mutant 'other': choose one of not"
    assert answers[4].reason.endswith("none.py: no such file: name a Python file with theorems")
    assert ended.stderr.count("what is printed is no answer") == 2


def test_a_run_whose_only_process_dies_ends_and_tells_its_progress(tmp_path: Path) -> None:
    file = tmp_path / "dies.py"
    file.write_text(FILE.replace("print(", "import os; os._exit(3); print("))
    seen = []
    table = prove(files=[file], workers=1, progress=lambda *done: seen.append(done))
    assert table.outcome("YES").reason == "the proving process ended"
    assert [(n, of, result.theorem.id) for n, of, result in seen] == [(1, 1, "YES")]


class _Process:
    """A proving process that answers what it is told to."""

    def __init__(self, answer: str | None) -> None:
        self.stdin = self
        self._answer, self.killed = answer, False

    def write(self, text: str) -> None:
        if self._answer is None:
            raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        pass

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "the proving process ended ([Errno 32] Broken pipe)"),
        ("{}", "the proving process answered no verdict ('verdict')"),
        ("[]", "the proving process answered no verdict (no verdict)"),
        ("hello", "the proving process answered no verdict (Expecting value"),
        ("[" * 100_000, "the proving process answered no verdict ("),
    ],
)
def test_a_process_that_ends_or_answers_something_else_is_stopped(
    answer: str | None, reason: str
) -> None:
    worker, process = engine._Worker(), _Process(answer)
    worker._process = process  # type: ignore[assignment]
    worker._answers.put(answer or "")
    item = select(["C05"]).found[0]
    found = worker.ask(engine._Task(0, *item, None), 1.0)
    assert found.verdict == "unknown"
    assert found.reason.startswith(reason)
    assert process.killed


def test_a_file_of_theorems_run_by_itself_prints_its_table(tmp_path: Path, capsys) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    assert engine.main(file) == 0
    assert "1 proved, 0 refuted" in capsys.readouterr().out
    file = tmp_path / "wrong.py"
    file.write_text(FILE.replace("truth=True", "truth=False"))
    assert engine.main(file) == 1
    assert "refuted (not as expected)" in capsys.readouterr().out


def test_a_checkout_without_theorems_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(library, "__file__", str(tmp_path / "gabactl" / "prove" / "library.py"))
    with pytest.raises(InputError, match=r"^no theorem files found: reinstall gabactl"):
        library.proof_files()
    for folder in (tmp_path / "proofs", tmp_path / "gabactl" / "_proofs"):
        folder.mkdir(parents=True)
        (folder / "_private.py").touch()
        (folder / "one.py").touch()
        # An installed package's own come first.
        assert library.proof_files() == [folder / "one.py"]


def test_theorems_are_in_python_files(tmp_path: Path) -> None:
    file = tmp_path / "theorems.txt"
    file.write_text(FILE)
    with pytest.raises(InputError, match=r"theorems.txt: not a Python file: name a file that ends"):
        load(file)


# -- derivations ----------------------------------------------------------------------------


def test_steps_of_each_kind_make_a_proof() -> None:
    (x,) = smt.reals("x")
    proof = symbolic.Derivation()
    proof.holds("by the solver", x > 0, large=x > 1)
    proof.holds("without hypotheses", x * x >= 0)
    proof.exact("by numbers", True)
    proof.include("a part with steps", Outcome("proved", ("inner",), ("wide", "large")))
    proof.include("a part without", Outcome("proved"))
    proof.replayed(("float64: yes",))
    found = proof.done()
    assert found.replays == ("float64: yes",)
    assert found.verdict == "proved"
    assert found.derivation == (
        "by the solver: SMT (large)",
        "without hypotheses: SMT",
        "by numbers: computed",
        "inner",
        "a part without",
    )
    assert found.core == ("large", "wide")


def test_the_first_failure_is_the_counterexample_and_ends_the_looking() -> None:
    (x,) = smt.reals("x")
    proof = symbolic.Derivation()
    proof.exact("first", False, {"n": Fraction(1, 3)})
    proof.holds("not looked at", x > 0)
    proof.equal("nor this", sp.Integer(1), sp.Integer(2))
    proof.exact("second", False, {"n": 5})
    found = proof.done()
    assert (found.verdict, found.counterexample) == ("refuted", {"n": "1/3"})
    assert found.derivation == ("first: FAILS", "second: FAILS")


def test_a_refuted_part_refutes_and_brings_its_replays() -> None:
    (x,) = smt.reals("x")
    proof = symbolic.Derivation()
    proof.holds("too much", x >= 0)
    found = proof.done()
    assert found.verdict == "refuted"
    assert Fraction(dict(found.counterexample or {})["x"]) < 0
    proof = symbolic.Derivation()
    proof.include("part", Outcome("refuted", counterexample={"a": "1"}, replays=("float64",)))
    found = proof.done()
    assert (found.counterexample, found.replays) == ({"a": "1"}, ("float64",))


def test_what_is_left_open_leaves_all_open() -> None:
    x, y = smt.reals("x y")
    proof = symbolic.Derivation()
    proof.holds("a power", x**y != 2)
    proof.include("a part", Outcome("unknown", reason="late"))
    found = proof.done()
    assert (found.verdict, found.reason) == ("unknown", "a power: the solver gave up: unknown")
    assert found.derivation == ("a power: undecided", "a part: undecided")
    # Terms of a sum have no values of their own to try.
    g, i = sp.IndexedBase("g"), sp.Symbol("i")
    proof = symbolic.Derivation()
    proof.equal("terms", g[i], 2 * g[i])
    assert proof.done().reason == "terms: sympy leaves -g[i]"


def test_a_conjunction_is_its_first_part_that_fails_then_its_first_that_is_open() -> None:
    proved, open_ = Outcome("proved", ("p",), ("h",)), Outcome("unknown", ("u",), reason="late")
    refuted = Outcome("refuted", ("r",), counterexample={"a": "1"}, replays=("float64",))
    found = smt.both([proved, open_, refuted])
    assert (found.verdict, found.derivation) == ("refuted", ("p", "u", "r"))
    assert (found.counterexample, found.replays) == ({"a": "1"}, ("float64",))
    assert smt.both(iter([proved, open_])) == Outcome("unknown", ("p", "u"), reason="late")
    assert smt.both([proved]) == proved
    assert smt.both([]) == Outcome("proved")


# -- exact equations, rounding, replays ------------------------------------------------------


def test_no_certificate_where_its_equation_has_no_unique_solution() -> None:
    # p - a p a = 1 with a = 1; and with the eigenvalues 2 and 1/2, whose product is 1.
    assert certificate.lyapunov([[Fraction(1)]]) is None
    two = [[Fraction(2), Fraction(0)], [Fraction(0), Fraction(1, 2)]]
    assert certificate.lyapunov(two) is None
    assert certificate.lyapunov(two, Fraction(3)) is not None
    # A pivot that is 0 at first is found further down.
    swap = [[Fraction(0), Fraction(1)], [Fraction(1, 4), Fraction(0)]]
    p = certificate.lyapunov(swap)
    assert p is not None
    assert certificate.decreases(swap, p)


def test_a_recursion_that_rises_is_followed_to_its_top_or_given_up() -> None:
    assert rounding.highest(lambda e: 0.5 * e + 0.5, 0.0) == 1.0
    assert rounding.highest(lambda e: e + 1.0, 0.0, limit=5) is None


def test_the_module_confirms_where_torch_is_and_is_left_out_where_it_is_not(monkeypatch) -> None:
    def confirmed(module: bool) -> tuple[str, ...]:
        spec = GabaSpec(beta=0.0, warmup=0, floor_mode="clamp_state")
        return replay.confirm(
            spec,
            [[1, 0]],
            lambda w: w[0] < 0.2,
            beta=Fraction(0),
            floor=Fraction(1, 20),
            module=module,
        )

    assert [line.split(":")[0] for line in confirmed(False)] == [
        "stage functions, exact",
        "Controller, float64",
    ]
    if importlib.util.find_spec("torch"):
        assert confirmed(True)[2] == "GABALoss, float32: weights 0.0500000007, 0.949999988"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert confirmed(True)[2:] == ("GABALoss: not run (torch is not installed)",)
