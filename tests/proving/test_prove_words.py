"""What is told of a verdict, and what is no theorem and no outcome."""

from __future__ import annotations

import pytest

from gabactl.base.errors import InputError
from gabactl.proving import Outcome, theorem
from gabactl.proving.engine import ProofResult, ProofTable


@theorem(
    "SUM", "a + b = b + a", given=("a is a number", "b too"), method="exact", mutants={"minus": {}}
)
def sum_() -> Outcome:
    return Outcome("proved")


def test_the_witness_in_one_line() -> None:
    assert Outcome("unknown").witness == "no step decided"
    assert Outcome("unknown", reason="late").witness == "late"
    assert Outcome("refuted", counterexample={"a": "1", "b": "2"}).witness == (
        "counterexample a = 1, b = 2"
    )
    assert Outcome("proved", certificate={"P": "1", "Q": "2"}).witness == (
        "certificate P = 1, Q = 2"
    )
    assert Outcome("proved", ("one",)).witness == "1 step"
    assert Outcome("proved", ("one", "two"), ("h", "k")).witness == "2 steps; core h, k"
    assert Outcome("proved", core=("h",)).witness == "core h"
    assert Outcome("proved").witness == ""


def test_the_table_names_mutants_and_surprises() -> None:
    proved, unknown = Outcome("proved", ("one",)), Outcome("unknown", reason="late " * 20)
    table = ProofTable(
        (ProofResult(sum_, proved, 0.25), ProofResult(sum_, unknown, 1.5, "minus")), 2.0, 1
    )
    assert [row[1] for row in table.rows()[1:]] == ["proved", "unknown (not as expected)"]
    assert "mutant: minus" in table.rows()[2]
    assert table.surprises == (table.results[1],)
    assert table.verdict("SUM") == "proved"
    assert table.outcome("OTHER") == Outcome("unknown", reason="not run")
    # A mutant is not the theorem.
    only = ProofTable(table.results[1:], 2.0, 1)
    assert only.outcome("SUM").reason == "not run"


def test_titles_and_plain_values() -> None:
    proved = ProofResult(sum_, Outcome("proved", ("one",)), 0.25)
    vain = ProofResult(sum_, Outcome("proved"), 1.5, "minus")
    assert proved.title == "SUM: proved"
    told = ProofTable((proved, vain), 2.0, 1).to_dict()
    assert (told["as_expected"], told["seconds"], told["workers"]) == (False, 2.0, 1)
    assert told["theorems"] == [proved.to_dict(), vain.to_dict()]
    assert proved.to_dict() == {
        "id": "SUM",
        "family": "",
        "statement": "a + b = b + a",
        "given": ["a is a number", "b too"],
        "method": "exact",
        "source": "",
        "expect": "proved",
        "mutant": None,
        "as_expected": True,
        "seconds": 0.25,
        **proved.outcome.to_dict(),
    }
    assert (vain.to_dict()["mutant"], vain.to_dict()["as_expected"]) == ("minus", False)


GOOD = Outcome("proved", ("one",)).to_dict()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "no verdict"),
        ({**GOOD, "verdict": "yes"}, "no verdict"),
        ({**GOOD, "derivation": "one"}, "str for a list of texts"),
        ({**GOOD, "core": [1]}, "int for a text"),
        ({**GOOD, "certificate": ["P"]}, "list for named values"),
        ({**GOOD, "reason": None}, "NoneType for a text"),
    ],
)
def test_an_answer_that_is_none_is_refused(answer: object, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Outcome.from_dict(answer)  # type: ignore[arg-type]


def test_an_answer_without_a_part_is_refused() -> None:
    with pytest.raises(KeyError):
        Outcome.from_dict({"verdict": "proved"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "theorem '': id = '' is not one line of text"),
        ({"statement": "a\nb"}, r"statement = 'a\nb' is not one line of text"),
        ({"source": 3}, "source = 3 is not one line of text"),
        ({"given": "one"}, "given = 'one': give a list of lines of text"),
        ({"given": [1]}, "given = [1]: give a list of lines of text"),
        ({"mutants": ["m"]}, "mutants = ['m']: give names and the arguments that plant them"),
        ({"mutants": {"m": 3}}, "mutants = {'m': 3}: give names and the arguments"),
        ({"budget": 0}, "budget = 0 is not in (0, 1e6] s"),
        ({"budget": True}, "budget = True is not in (0, 1e6] s"),
        ({"budget": "60"}, "budget = '60' is not in (0, 1e6] s"),
    ],
)
def test_what_is_no_theorem_is_refused(changes: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"id": "T", "statement": "s", "mutants": {"m": {}}}
    with pytest.raises(InputError) as caught:
        theorem(**{**good, **changes})  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert str(caught.value).startswith("theorem ")


def test_a_mutant_that_is_not_there_and_a_check_without_an_outcome() -> None:
    with pytest.raises(InputError, match=r"^SUM has no mutant 'plus': choose one of minus$"):
        sum_.prove("plus")

    @theorem("T", "s", method="exact", mutants={"m": {}})
    def check() -> Outcome:
        return 3  # type: ignore[return-value]

    assert check.prove() == Outcome("unknown", reason="the check returned int")

    @theorem("T", "s", method="exact", mutants={"m": {}})
    def breaks() -> Outcome:
        raise ZeroDivisionError("by zero")

    assert breaks.prove() == Outcome("unknown", reason="ZeroDivisionError: by zero")
