"""The claims ledger: what the literature says of GABA, and what we find.

Each claim is settled by theorems, by numbers computed on the spot, by replays of recorded
training, or by a recorded result with its provenance. No verdict is stored: the ledger holds the
expectation, and :func:`settle_claims` reaches the verdict anew.

Examples
--------
>>> from gabactl.claims import ledger
>>> len(ledger())
43
"""

from __future__ import annotations

from gabactl.claims.check import ClaimResult, ClaimTable, settle_claims
from gabactl.claims.evidence import Evidence, Finding
from gabactl.claims.ledger import Claim, Part, ledger

__all__ = [
    "Claim",
    "ClaimResult",
    "ClaimTable",
    "Evidence",
    "Finding",
    "Part",
    "ledger",
    "settle_claims",
]
