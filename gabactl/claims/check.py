"""Reach a verdict on every claim, from what settles it."""

from __future__ import annotations

import importlib
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gabactl.base.errors import InputError, MissingPackage
from gabactl.base.results import Result
from gabactl.base.tables import cut_short
from gabactl.claims.evidence import ClaimVerdict, Evidence, Finding
from gabactl.claims.ledger import Claim, ledger
from gabactl.claims.records import from_records
from gabactl.proving.engine import ProofTable, prove
from gabactl.proving.theorem import Outcome

__all__ = ["ClaimResult", "ClaimTable", "settle_claims"]

#: Modules with computations, each with functions ``CHECKS`` that return Evidence.
_MODULES = ("numeric", "toys", "recorded")


@dataclass(frozen=True)
class ClaimResult(Result):
    """A claim, our verdict, and what it rests on.

    Attributes
    ----------
    claim : Claim
        As in the ledger.
    evidence : Evidence
        Verdict and findings.
    """

    claim: Claim
    evidence: Evidence

    @property
    def title(self) -> str:  # type: ignore[override]
        """Id and verdict."""
        return f"{self.claim.id}: {self.evidence.verdict}"

    @property
    def ok(self) -> bool:
        """As expected; ``not_run`` decides nothing and is never a surprise."""
        return self.evidence.verdict in (self.claim.expect, "not_run")

    def rows(self) -> Sequence[Sequence[str]]:
        """Everything there is to say, one fact a row."""
        claim = self.claim
        rows = [("claim", claim.statement), ("source", claim.source), ("method", claim.method)]
        rows.append(("expected", claim.expect))
        for finding in self.evidence.findings:
            mark = {True: "agrees", False: "DIFFERS", None: ""}[finding.agrees]
            claimed = f" (claimed: {finding.expected})" if finding.expected else ""
            rows.append((mark or "seen", f"{finding.what}: {finding.ours}{claimed}"))
        if self.evidence.reason:
            rows.append(("reason", self.evidence.reason))
        if claim.note:
            rows.append(("note", claim.note))
        rows.append(("reproduce", claim.reproduce))
        return rows

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        claim = self.claim
        return {
            "id": claim.id,
            "statement": claim.statement,
            "source": claim.source,
            "method": claim.method,
            "expect": claim.expect,
            "verdict": self.evidence.verdict,
            "as_expected": self.ok,
            "findings": [vars(f) for f in self.evidence.findings],
            "reason": self.evidence.reason,
            "note": claim.note,
            "reproduce": claim.reproduce,
        }


@dataclass(frozen=True)
class ClaimTable(Result):
    """Verdicts on several claims.

    Attributes
    ----------
    results : tuple of ClaimResult
        In the order of the ledger.
    """

    results: tuple[ClaimResult, ...]

    @property
    def title(self) -> str:  # type: ignore[override]
        """How many of each verdict."""
        words = [r.evidence.verdict for r in self.results]
        counts = [f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words))]
        return f"{', '.join(counts)}; {len(self.surprises)} not as expected"

    @property
    def surprises(self) -> tuple[ClaimResult, ...]:
        """Claims whose verdict is not the expected one."""
        return tuple(r for r in self.results if not r.ok)

    def rows(self) -> Sequence[Sequence[str]]:
        """One line a claim."""
        rows = [("id", "verdict", "method", "claim", "ours")]
        for result in self.results:
            verdict = str(result.evidence.verdict)
            if not result.ok:
                verdict += f" (expected {result.claim.expect})"
            rows.append(
                (
                    result.claim.id,
                    verdict,
                    result.claim.method,
                    cut_short(result.claim.statement, 76),
                    cut_short(_ours(result.evidence), 64),
                )
            )
        return rows

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "as_expected": not self.surprises,
            "claims": [r.to_dict() for r in self.results],
        }


def settle_claims(
    ids: Iterable[str] = (),
    *,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> ClaimTable:
    """Settle claims.

    Theorems run in their own processes while the numbers are computed here.

    Parameters
    ----------
    ids : iterable of str
        Which (``C13``); none: all.
    workers : int, optional
        Processes for the theorems. Default: the number of cores, at most 8.
    progress : callable, optional
        Called with (done, all, name) after each step.

    Raises
    ------
    InputError
        An unknown id.

    Examples
    --------
    >>> settle_claims(["C08"]).results[0].evidence.verdict
    'reproduced'
    """
    claims = _select(list(ids))
    needed = list(dict.fromkeys(part.theorem for claim in claims for part in claim.parts))
    computed = [claim for claim in claims if claim.check]
    count, done = len(needed) + len(computed), 0

    def step(name: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, count, name)

    proofs: queue.SimpleQueue[ProofTable | BaseException] = queue.SimpleQueue()

    def decide() -> None:
        try:
            proofs.put(prove(needed, workers=workers, progress=lambda _, __, r: step(r.theorem.id)))
        except BaseException as error:
            proofs.put(error)

    if needed:
        # A daemon, so that an interrupt does not wait for the theorems.
        threading.Thread(target=decide, daemon=True).start()
    numbers = {}
    for claim in computed:
        numbers[claim.id] = _compute(claim)
        step(claim.id)
    table = proofs.get() if needed else None
    if isinstance(table, BaseException):
        raise table
    return ClaimTable(
        tuple(ClaimResult(claim, _settle(claim, table, numbers.get(claim.id))) for claim in claims)
    )


def _select(ids: list[str]) -> list[Claim]:
    known = {claim.id.lower(): claim for claim in ledger()}
    for name in ids:
        if name.lower() not in known:
            raise InputError(f"no claim {name!r}: the ids are C01 to C{len(known):02d}")
    wanted = {name.lower() for name in ids}
    return [claim for key, claim in known.items() if not wanted or key in wanted]


def _compute(claim: Claim) -> Evidence:
    for module in _MODULES:
        for compute in importlib.import_module(f"gabactl.claims.{module}").CHECKS:
            if compute.__name__ == claim.check:
                try:
                    found: Evidence = compute()
                except ModuleNotFoundError as error:
                    return Evidence("not_run", reason=str(MissingPackage(error.name or "?", "it")))
                return found
    raise InputError(f"{claim.id}: there is no check named {claim.check!r}")


def _settle(claim: Claim, table: ProofTable | None, number: Evidence | None) -> Evidence:
    """Theorems decide where there are deciding ones; numbers, then records, decide the rest."""
    findings: list[Finding] = []
    verdicts: list[ClaimVerdict] = []
    reason = ""
    for part in claim.parts:
        outcome = table.outcome(part.theorem) if table else Outcome("unknown", reason="not run")
        verdict = _part_verdict(part.negated, outcome.verdict)
        decided = part.decides and verdict != "unknown"
        findings.append(
            Finding(
                f"theorem {part.theorem}",
                part.says,
                f"{outcome.verdict} ({outcome.witness})",
                verdict == "proved" if decided else None,
            )
        )
        if part.decides:
            verdicts.append(verdict)
            if verdict == "unknown":
                reason = f"theorem {part.theorem} is open: {outcome.reason}"
    if number is not None:
        findings += number.findings
    if verdicts:
        for word in ("refuted", "unknown"):
            if word in verdicts:
                return Evidence(word, tuple(findings), reason if word == "unknown" else "")
        contradicted = number is not None and number.verdict in ("not_reproduced", "refuted")
        if contradicted:
            return Evidence("unknown", tuple(findings), "proof and computation disagree")
        return Evidence("proved", tuple(findings))
    if number is not None:
        return _with_record(claim, Evidence(number.verdict, tuple(findings), number.reason))
    recorded = from_records(claim)
    return Evidence(recorded.verdict, (*findings, *recorded.findings), recorded.reason)


def _with_record(claim: Claim, number: Evidence) -> Evidence:
    """A computation, and a recorded campaign beside it: one that differs overrules agreement."""
    recorded = from_records(claim) if claim.criteria else None
    if recorded is None or not recorded.findings:
        return number
    verdict = number.verdict
    open_still = verdict in ("not_run", "unknown") and recorded.verdict == "reproduced"
    if open_still or (
        verdict in ("not_run", "unknown", "reproduced") and recorded.verdict == "not_reproduced"
    ):
        verdict = recorded.verdict
    reason = number.reason if verdict == number.verdict else ""
    return Evidence(verdict, (*number.findings, *recorded.findings), reason)


def _part_verdict(negated: bool, verdict: str) -> ClaimVerdict:
    if verdict not in ("proved", "refuted"):
        return "unknown"
    return "proved" if (verdict == "proved") != negated else "refuted"


def _ours(evidence: Evidence) -> str:
    if evidence.reason:
        return evidence.reason
    shown = [f for f in evidence.findings if f.agrees is False] or list(evidence.findings)
    return "; ".join(f"{f.what} {f.ours}" for f in shown[:2])
