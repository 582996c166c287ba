"""The claims as written down: statement, source, method and expectation. No verdicts."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, get_args

from gabactl.base.errors import InputError
from gabactl.claims.evidence import ClaimVerdict

__all__ = ["ledger"]


@dataclass(frozen=True)
class Part:
    """A theorem a claim rests on.

    Attributes
    ----------
    theorem : str
        Its id.
    says : str
        What it says of the claim.
    decides : bool
        Whether it decides the claim, or qualifies it.
    negated : bool
        The theorem states the opposite of the claim.
    """

    theorem: str
    says: str
    decides: bool = True
    negated: bool = False


@dataclass(frozen=True)
class Criterion:
    """When a recorded number is as claimed: ``low <= value <= high``.

    Attributes
    ----------
    value : str
        Key of the number in the record.
    says : str
        What it says of the claim.
    low, high : float
        The range, ends included, in the number's own unit; infinite where it is open.
    """

    value: str
    says: str
    low: float
    high: float


@dataclass(frozen=True)
class Claim:
    """One claim of the literature.

    Attributes
    ----------
    id, statement, source, method : str
        Name, the claim in our words, where it is made, how it is settled.
    expect : str
        The verdict we expect.
    parts : tuple of Part
        Theorems.
    check : str
        Name of a computation, or "".
    criteria : tuple of Criterion
        For recorded results.
    note : str
        What a reader should know besides.
    reproduce : str
        The command.
    """

    id: str
    statement: str
    source: str
    method: str
    expect: ClaimVerdict
    parts: tuple[Part, ...] = ()
    check: str = ""
    criteria: tuple[Criterion, ...] = ()
    note: str = ""

    @property
    def reproduce(self) -> str:
        """The command that settles this claim alone."""
        return f"gabactl claims {self.id}"


@lru_cache(maxsize=1)
def ledger() -> tuple[Claim, ...]:
    """All claims, in order.

    Returns
    -------
    tuple of Claim

    Examples
    --------
    >>> ledger()[12].id, ledger()[12].expect
    ('C13', 'refuted')
    """
    text = resources.files("gabactl.claims").joinpath("claims.toml").read_text(encoding="utf-8")
    return tuple(_claim(entry) for entry in tomllib.loads(text)["claim"])


def _claim(entry: dict[str, Any]) -> Claim:
    claim = Claim(
        **{
            **entry,
            "parts": tuple(Part(**part) for part in entry.get("parts", ())),
            "criteria": tuple(Criterion(**item) for item in entry.get("criteria", ())),
        }
    )
    if claim.expect not in get_args(ClaimVerdict):
        raise InputError(f"{claim.id}: expect = {claim.expect!r} is no verdict")
    if not (claim.parts or claim.check or claim.criteria):
        raise InputError(f"{claim.id}: nothing settles it")
    return claim
