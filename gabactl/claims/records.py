"""Recorded results: numbers from a device or a long training, with where they come from."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from importlib import resources
from typing import Any

from gabactl.base.errors import InputError
from gabactl.claims.evidence import Evidence, Finding, judged
from gabactl.claims.ledger import Claim

_MAX_BYTES = 1 << 20
_PROVENANCE = ("command", "date", "device", "versions")


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes
    ----------
    claim : str
        Id of the claim it settles.
    values : dict of str to float
        Numbers, under the names the claim's criteria use.
    provenance : dict of str to str
        At least command, date, device and versions.
    note : str
        What differs from the published protocol.
    decides : bool
        False for figures of another protocol than the claim's: they are shown, and settle nothing.
    reason : str
        Why they do not.
    """

    claim: str
    values: dict[str, float]
    provenance: dict[str, str]
    note: str = ""
    decides: bool = True
    reason: str = ""


def read_record(text: str, name: str) -> Record:
    """Check and read one record.

    Parameters
    ----------
    text : str
        A JSON object with ``claim``, ``values``, ``provenance`` and, if need be, ``note``.
    name : str
        For error messages.

    Raises
    ------
    InputError
        Not JSON, a missing key, or a value that is no finite number.

    Examples
    --------
    >>> read_record('{"claim": "C37"}', "a.json")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: a.json: 'values' is missing: a record has claim, values, provenance
    """
    if len(text) > _MAX_BYTES:
        raise InputError(f"{name}: larger than 1 MiB, which no record is")
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({error}): mend the file") from None
    if not isinstance(found, dict):
        raise InputError(f"{name}: not a JSON object: a record has claim, values, provenance")
    for key in ("claim", "values", "provenance"):
        if key not in found:
            raise InputError(f"{name}: {key!r} is missing: a record has claim, values, provenance")
    values, provenance = found["values"], found["provenance"]
    if not isinstance(values, dict) or not isinstance(provenance, dict):
        raise InputError(f"{name}: values and provenance are tables of named entries")
    for key, value in values.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not abs(value) < math.inf  # whole numbers may be larger than any float
            or abs(value) > sys.float_info.max
        ):
            raise InputError(f"{name}: values[{key!r}] = {value!r} is not a finite number")
    missing = [key for key in _PROVENANCE if not provenance.get(key)]
    if missing:
        raise InputError(f"{name}: provenance lacks {missing[0]!r}: say {', '.join(_PROVENANCE)}")
    decides, reason = found.get("decides", True), str(found.get("reason", ""))
    if not isinstance(decides, bool) or not (decides or reason):
        raise InputError(f"{name}: decides is true, or false with a reason")
    return Record(
        str(found["claim"]),
        {str(k): float(v) for k, v in values.items()},
        {str(k): str(v) for k, v in provenance.items()},
        str(found.get("note", "")),
        decides,
        reason,
    )


def records() -> tuple[Record, ...]:
    """The records that come with the package, in the order of their file names.

    Returns
    -------
    tuple of Record
        Empty where the package has none.

    Examples
    --------
    >>> all(record.provenance["command"] for record in records())
    True
    """
    folder = resources.files("gabactl.claims").joinpath("records")
    if not folder.is_dir():
        return ()
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    return tuple(read_record(file.read_text(encoding="utf-8"), file.name) for file in files)


def from_records(claim: Claim) -> Evidence:
    """Evidence from the last record of a claim: ``not_run`` where there is none that decides.

    Parameters
    ----------
    claim : Claim
        Its criteria say which values agree; values without one are shown for context.

    Examples
    --------
    >>> from gabactl.claims.ledger import ledger
    >>> from_records(ledger()[0]).verdict
    'not_run'
    """
    found = [record for record in records() if record.claim == claim.id]
    if not found:
        return Evidence("not_run", reason="no recorded result: it needs a device or long training")
    record = found[-1]
    findings = []
    judged_by = {criterion.value: criterion for criterion in claim.criteria}
    missing = [name for name in judged_by if name not in record.values]
    if missing and record.decides:
        return Evidence("not_run", reason=f"the record lacks {missing[0]!r}")
    for name, value in record.values.items():
        criterion = judged_by.get(name)
        says = criterion.says if criterion else ""
        agrees = None
        if criterion and record.decides:
            agrees = criterion.low <= value <= criterion.high
        findings.append(Finding(name.replace("_", " "), says, f"{value:.6g}", agrees))
    findings += [Finding("recorded", key, text) for key, text in record.provenance.items()]
    if record.note:
        findings.append(Finding("protocol", "as published", record.note))
    if not record.decides:
        return Evidence("not_run", tuple(findings), record.reason)
    return judged(findings)
