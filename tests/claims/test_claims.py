"""The claims ledger: complete, honest, and able to change its mind."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.claims import Claim, Evidence, Finding, ledger, numeric, recorded, settle_claims, toys
from gabactl.claims.evidence import ClaimVerdict, judged
from gabactl.claims.ledger import Criterion, Part
from gabactl.claims.page import render_page, write_page
from gabactl.claims.records import Record, from_records, read_record, records
from gabactl.proving import theorems

CHECKS: dict[str, Callable[[], Evidence]] = {
    run.__name__: run for run in (*numeric.CHECKS, *toys.CHECKS, *recorded.CHECKS)
}
QUICK = ("C05", "C08", "C09", "C20", "C31", "C33", "C35", "C37")


def by_id(name: str) -> Claim:
    return next(claim for claim in ledger() if claim.id == name)


def test_there_are_43_claims_in_order() -> None:
    assert [claim.id for claim in ledger()] == [f"C{n:02d}" for n in range(1, 44)]
    assert all(claim.source and claim.statement.endswith(".") for claim in ledger())


def test_everything_that_settles_a_claim_exists() -> None:
    known = {t.id for group in theorems().values() for t in group}
    for claim in ledger():
        assert {part.theorem for part in claim.parts} <= known, claim.id
        assert not claim.check or claim.check in CHECKS, claim.id
        deciding = [part for part in claim.parts if part.decides]
        assert deciding or claim.check or claim.criteria, claim.id


def test_the_ledger_stores_no_verdict() -> None:
    text = Path(str(importlib.util.find_spec("gabactl.claims").origin)).with_name("claims.toml")  # type: ignore[union-attr]
    keys = set(re.findall(r"^(\w+) =", text.read_text(encoding="utf-8"), re.M))
    assert keys == {
        "id",
        "statement",
        "source",
        "method",
        "expect",
        "parts",
        "check",
        "criteria",
        "note",
    }


@pytest.fixture(scope="module")
def table() -> Any:
    return settle_claims(QUICK)


def test_quick_claims_come_out_as_expected(table: Any) -> None:
    assert {r.claim.id: r.evidence.verdict for r in table.results} == {
        "C05": "proved",
        "C08": "reproduced",
        "C09": "refuted",
        "C20": "refuted",
        "C31": "reproduced",
        "C33": "proved",
        "C35": "reproduced",
        "C37": table.results[-1].evidence.verdict,
    }
    assert not table.surprises, "\n".join(map(str, table.surprises))


def test_results_are_strict_json_and_say_how_to_reproduce(table: Any) -> None:
    found = json.loads(table.to_json())
    assert found["as_expected"] is True
    for claim in found["claims"]:
        assert claim["verdict"] in get_args(ClaimVerdict)
        assert claim["reproduce"] == f"gabactl claims {claim['id']}"


@pytest.mark.parametrize(
    "name",
    [
        "toy_contributions",
        "toy_ratios",
        "toy_run",
        "second_measurement",
        "state_round_trip",
        "gradnorm_step",
    ],
)
def test_torch_claims_are_reproduced(name: str) -> None:
    pytest.importorskip("torch")
    found = CHECKS[name]()
    assert found.verdict == "reproduced", found.findings


def test_detaching_is_not_what_keeps_the_published_graph_small() -> None:
    pytest.importorskip("torch")
    published, differentiable = CHECKS["graph_without_detach"]().findings
    assert published.agrees is False
    nodes = [int(n) for n in re.findall(r"\d+", differentiable.ours)]
    assert nodes[1] > 5 * nodes[0] > nodes[2]


def test_heads_contaminate_by_less_than_claimed() -> None:
    pytest.importorskip("torch")
    found = CHECKS["heads_in_the_sensor"]()
    assert found.verdict == "not_reproduced"
    assert "529x becomes 576x" in found.findings[0].ours


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("settled_average", "not_reproduced"),
        ("residual_contributions", "refuted"),
        ("same_equilibrium", "reproduced"),
        ("ratio_level", "reproduced"),
        ("ratio_course", "not_reproduced"),
        ("without_warm_up", "not_reproduced"),
        ("over_subsets", "reproduced"),
    ],
)
def test_claims_on_recorded_training(name: str, verdict: str) -> None:
    assert CHECKS[name]().verdict == verdict


def test_the_residual_is_that_of_the_theorem_on_a_constant_ratio(monkeypatch: Any) -> None:
    from gabactl.traces import Trace

    norms = np.tile([500.0, 1.0], (3000, 1))
    monkeypatch.setattr(
        recorded, "_traces", lambda excited=False: {"flat": Trace.from_arrays(norms)}
    )
    (finding,) = CHECKS["residual_contributions"]().findings
    # Theory: m (1 + R) = 25.05 at 500x.
    assert "25.1x" in finding.ours or "25.0x" in finding.ours


def test_an_equalising_controller_would_turn_the_residual(monkeypatch: Any) -> None:
    from gabactl.law.spec import GabaSpec
    from gabactl.runs.run import Run

    spec = GabaSpec.published(floor=1e-5, beta=0.0, warmup=0)
    monkeypatch.setattr(recorded, "Run", lambda trace, _: Run(trace, spec))
    assert CHECKS["residual_contributions"]().verdict == "reproduced"


def test_a_wrong_law_turns_the_numeric_claims(monkeypatch: Any) -> None:
    monkeypatch.setattr(numeric, "raw_weights", lambda g: np.array([0.5, 0.5]))
    assert CHECKS["schemes"]().verdict == "not_reproduced"
    assert CHECKS["gradnorm_targets"]().verdict == "not_reproduced"


def test_a_wrong_sensor_turns_the_toy_claims(monkeypatch: Any) -> None:
    pytest.importorskip("torch")
    right = toys._norms
    monkeypatch.setattr(toys, "_norms", lambda *a, **k: [1.01 * x for x in right(*a, **k)])
    assert CHECKS["toy_ratios"]().verdict == "not_reproduced"


def test_without_torch_nothing_is_claimed(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (claim,) = (claim for claim in ledger() if claim.check == "toy_ratios")
    (result,) = settle_claims([claim.id]).results
    assert (result.evidence.verdict, result.evidence.findings) == ("not_run", ())
    assert "gabactl[torch]" in result.evidence.reason


def test_without_traces_nothing_is_claimed(monkeypatch: Any) -> None:
    monkeypatch.setattr(recorded, "_traces", lambda excited=False: {})
    assert {run().verdict for run in recorded.CHECKS} == {"not_run"}


GOOD = {
    "claim": "C37",
    "values": {"step_time_ratio": 2.09},
    "provenance": {
        "command": "python x.py",
        "date": "2026-01-01",
        "device": "cpu",
        "versions": "torch 2",
    },
}


@pytest.mark.parametrize(("value", "verdict"), [(1.05, "reproduced"), (2.09, "not_reproduced")])
def test_a_record_is_judged_by_its_numbers(monkeypatch: Any, value: float, verdict: str) -> None:
    record = read_record(json.dumps({**GOOD, "values": {"step_time_ratio": value}}), "a.json")
    monkeypatch.setattr("gabactl.claims.records.records", lambda: (record,))
    found = from_records(by_id("C37"))
    assert found.verdict == verdict
    assert any(f.ours == "python x.py" for f in found.findings)


def test_no_record_or_half_a_record_is_not_run(monkeypatch: Any) -> None:
    monkeypatch.setattr("gabactl.claims.records.records", lambda: ())
    assert from_records(by_id("C37")).verdict == "not_run"
    half = Record("C42", {"friedman_p_rmse": 0.5}, GOOD["provenance"])  # type: ignore[arg-type]
    monkeypatch.setattr("gabactl.claims.records.records", lambda: (half,))
    assert from_records(by_id("C42")).verdict == "not_run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "'claim' is missing"),
        (json.dumps({**GOOD, "values": {"a": float("nan")}}), "not a finite number"),
        (json.dumps({**GOOD, "values": {"a": True}}), "not a finite number"),
        (json.dumps({**GOOD, "provenance": {"command": "x"}}), "provenance lacks 'date'"),
        (" " * (2 << 20), "larger than 1 MiB"),
    ],
)
def test_a_bad_record_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_record(text, "a.json")


def test_the_bundled_records_belong_to_claims_that_are_settled_by_records() -> None:
    for record in records():
        claim = by_id(record.claim)
        assert claim.criteria, record.claim
        if record.decides:
            assert {c.value for c in claim.criteria} <= set(record.values)
        else:
            assert record.reason


@pytest.mark.parametrize(
    ("theorem_verdict", "negated", "number", "verdict"),
    [
        ("proved", False, None, "proved"),
        ("proved", True, None, "refuted"),
        ("refuted", True, None, "proved"),
        ("unknown", False, None, "unknown"),
        ("proved", False, "not_reproduced", "unknown"),
        ("proved", False, "reproduced", "proved"),
        ("proved", False, "not_run", "proved"),
    ],
)
def test_theorems_and_numbers_are_joined(
    theorem_verdict: Any, negated: bool, number: Any, verdict: str
) -> None:
    from gabactl.claims.check import _settle
    from gabactl.proving import Outcome, ProofResult, ProofTable

    item = next(t for group in theorems().values() for t in group)
    claim = Claim("CX", "S.", "s", "m", "proved", (Part(item.id, "says", negated=negated),))
    table = ProofTable((ProofResult(item, Outcome(theorem_verdict), 0.0),), 0.0, 1)
    found = _settle(claim, table, Evidence(number) if number else None)
    assert found.verdict == verdict


def test_a_surprise_is_a_finding_and_not_run_is_none() -> None:
    from gabactl.claims import ClaimResult

    claim = Claim("CX", "S.", "s", "m", "proved", criteria=(Criterion("v", "x", 0, 1),))
    assert not ClaimResult(claim, Evidence("refuted")).ok
    assert not ClaimResult(claim, Evidence("unknown")).ok
    assert ClaimResult(claim, Evidence("not_run")).ok


def test_findings_decide_or_give_context() -> None:
    assert judged([Finding("a", "", "", None)]).verdict == "unknown"
    assert (
        judged([Finding("a", "", "", True), Finding("b", "", "", False)]).verdict
        == "not_reproduced"
    )


def test_unknown_claims_are_refused() -> None:
    with pytest.raises(InputError, match="no claim 'C99'"):
        settle_claims(["C99"])


def test_the_page_is_complete_escaped_and_self_contained(table: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    first = table.results[0]
    nasty = replace(first, claim=replace(first.claim, statement="<script>alert(1)</script>"))
    page = render_page(replace(table, results=(nasty, *table.results[1:])))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    file = tmp_path / "claims.html"
    write_page(table, file)
    text = file.read_text(encoding="utf-8")
    assert all(f'id="{name}"' in text for name in QUICK)
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(InputError, match="cannot be written"):
        write_page(table, tmp_path / "none" / "claims.html")
