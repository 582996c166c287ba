"""What a check of a claim hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ClaimVerdict = Literal["proved", "refuted", "reproduced", "not_reproduced", "unknown", "not_run"]


@dataclass(frozen=True)
class Finding:
    """One number or fact of the claim beside ours.

    Attributes
    ----------
    what : str
        What was looked at.
    expected, ours : str
        As claimed, and as found.
    agrees : bool or None
        Whether ours is as claimed; None for context that decides nothing.
    """

    what: str
    expected: str
    ours: str
    agrees: bool | None = None


@dataclass(frozen=True)
class Evidence:
    """A verdict and what it rests on.

    Attributes
    ----------
    verdict : str
        One of the six words.
    findings : tuple of Finding
        Numbers, side by side.
    reason : str
        Why nothing was decided (``unknown``, ``not_run``).
    """

    verdict: ClaimVerdict
    findings: tuple[Finding, ...] = ()
    reason: str = ""


def near(what: str, claimed: float, ours: float, within: float, form: str) -> Finding:
    """A number of ours beside a published one.

    Parameters
    ----------
    what : str
        The quantity.
    claimed, ours : float
        Both numbers.
    within : float
        They agree where they are less than this apart.
    form : str
        How both are written.

    Examples
    --------
    >>> near("ratio", 500.0, 499.998, 0.005, "{:.2f}x")
    Finding(what='ratio', expected='500.00x', ours='500.00x', agrees=True)
    """
    return Finding(
        what, form.format(claimed), form.format(ours), bool(abs(ours - claimed) < within)
    )


def judged(
    findings: Sequence[Finding],
    good: ClaimVerdict = "reproduced",
    bad: ClaimVerdict = "not_reproduced",
) -> Evidence:
    """The verdict of findings: ``good`` when every deciding one agrees, ``bad`` when one does not.

    Parameters
    ----------
    findings : sequence of Finding
        Those with ``agrees`` None decide nothing; ``unknown`` where all are such.
    good, bad : str
        Two of the six words.

    Examples
    --------
    >>> judged([Finding("ratio", "500x", "500.0x", True), Finding("seed", "", "0")]).verdict
    'reproduced'
    """
    deciding = [f.agrees for f in findings if f.agrees is not None]
    if not deciding:
        return Evidence("unknown", tuple(findings), "nothing decides")
    return Evidence(good if all(deciding) else bad, tuple(findings))
