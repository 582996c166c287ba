"""Failing cases on disk, replayed first next time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from gabactl.base.errors import InputError
from gabactl.base.files import read_json, write_text
from gabactl.base.results import to_jsonable
from gabactl.fuzzing.cases import Case

_FORMAT = "gabactl-fuzz-case"
_MAX_BYTES = 4 << 20
_MAX_FILES = 1000


@dataclass(frozen=True)
class Entry:
    """A case and what it failed.

    Attributes
    ----------
    target, property : str
        What it was found on.
    case : Case
        The input.
    path : Path
        The file.
    """

    target: str
    property: str
    case: Case
    path: Path


def save(folder: str | Path, target: str, prop: str, case: Case, note: str = "") -> Path:
    """Write a case, under a name that depends on its content, in one atomic step.

    Parameters
    ----------
    folder : path
        Made where it does not exist.
    target, prop : str
        What it was found on.
    case : Case
        The input.
    note : str
        The finding in words, for people.

    Raises
    ------
    InputError
        The folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = save(folder, "gaba", "bounds", Case.from_readings([[1.0, 0.0]]))
    >>> [entry.case.expression() for entry in load(folder)]
    ['[[1.0, 0.0]]']
    """
    body = {
        "format": _FORMAT,
        "version": 1,
        "target": target,
        "property": prop,
        "note": note,
        "case": case.to_dict(),
    }
    text = json.dumps(to_jsonable(body), indent=1, allow_nan=False)
    key = json.dumps([target, prop, case.to_dict()], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in f"{target}-{prop}")
    path = Path(folder) / f"{stem}-{digest}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text + "\n")
    except OSError as error:
        raise InputError(
            f"corpus {folder}: cannot be written ({error.strerror}): choose another with --corpus"
        ) from None
    return path


def load(folder: str | Path) -> list[Entry]:
    """The cases of a folder, in the order of their names; none where there is no folder.

    Parameters
    ----------
    folder : path
        Its ``*.json`` files are read: 1000 at most, of 4 MiB each at most.

    Raises
    ------
    InputError
        A file that is too large or is not a case; more than 1000 files.

    Examples
    --------
    >>> load("no-such-folder")
    []
    """
    root = Path(folder)
    if not root.is_dir():
        return []
    files = sorted(root.glob("*.json"))
    if len(files) > _MAX_FILES:
        raise InputError(f"corpus {root}: over {_MAX_FILES} cases: move the old ones away")
    return [_read(file) for file in files]


def _read(file: Path) -> Entry:
    body = read_json(file, _MAX_BYTES)
    match body:
        case {
            "format": str(kind),
            "version": 1,
            "target": str(target),
            "property": str(prop),
            "case": dict(case),
        } if kind == _FORMAT:
            return Entry(target, prop, Case.from_dict(case, source=str(file)), file)
    raise InputError(f"{file}: not a fuzz case of this program: delete or mend it")
