"""Proofs a reviewer can run: theorems, the back ends that decide them, and their results.

A theorem is a Python function that returns an :class:`Outcome`; :func:`theorem` gives it a
statement, hypotheses, the verdict expected, and mutants: planted errors that must turn the
verdict. The package's own theorems are in ``proofs/``, one family a file.

Examples
--------
>>> from gabactl.proving import theorem, smt
>>> @theorem("T1", "a damped average stays below 1", given=["0 <= b <= 1", "0 <= e, r <= 1"],
...          method="SMT", mutants={"gain above one": {"gain": 2}})
... def stays_below(gain=1):
...     b, e, r = smt.reals("b e r")
...     return smt.decide(gain * (b * e + (1 - b) * r) <= 1,
...                       pole=smt.within(0, b, 1), state=smt.within(0, e, 1),
...                       reading=smt.within(0, r, 1))
>>> stays_below.prove().verdict
'proved'
>>> stays_below.prove("gain above one").verdict
'refuted'
"""

from __future__ import annotations

import gabactl.proving.smt as smt
from gabactl.proving.engine import ProofResult, ProofTable, main, prove
from gabactl.proving.library import theorems
from gabactl.proving.theorem import Outcome, Theorem, theorem

__all__ = [
    "Outcome",
    "ProofResult",
    "ProofTable",
    "Theorem",
    "main",
    "prove",
    "smt",
    "theorem",
    "theorems",
]
