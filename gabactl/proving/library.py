"""Where the theorems are: the files in ``proofs/``, and any file a user names."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError, MissingPackage, packages_for
from gabactl.base.results import Result
from gabactl.proving.theorem import Theorem

__all__ = ["theorems"]


def proof_files() -> list[Path]:
    """The package's own theorem files, one family each.

    They are in ``gabactl/_proofs`` of an installed package and in ``proofs/`` of a checkout.

    Raises
    ------
    InputError
        Neither is there.

    Examples
    --------
    >>> "raw_law" in [file.stem for file in proof_files()]
    True
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_proofs", package.parent / "proofs"):
        files = sorted(f for f in folder.glob("*.py") if not f.name.startswith("_"))
        if files:
            return files
    raise InputError("no theorem files found: reinstall gabactl, or name a file (PATH.py)")


@lru_cache(maxsize=64)
def load(path: Path) -> tuple[Theorem, ...]:
    """The theorems of one file, in its order. Runs the code of that file.

    Parameters
    ----------
    path : Path
        A Python file whose module-level names hold theorems, or lists of them.

    Returns
    -------
    tuple of Theorem
        At least one.

    Raises
    ------
    InputError
        The file is missing, does not run, holds no theorem, or two with one id.

    Examples
    --------
    >>> [t.id for t in load(proof_files()[0])] != []
    True
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise InputError(f"{path}: no such file: name a Python file with theorems")
    name = f"_gabactl_theorems_{file.stem}_{abs(hash(file)):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file: name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with packages_for(f"{file.name} of the theorems"):
            spec.loader.exec_module(module)
    except MissingPackage:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}: does not run ({type(error).__name__}: {error})") from error
    found = [
        replace(item, family=file.stem)
        for value in vars(module).values()
        for item in (value if isinstance(value, (list, tuple)) else [value])
        if isinstance(item, Theorem)
    ]
    if not found:
        raise InputError(f"{path}: holds no theorem: decorate a check with gabactl.proving.theorem")
    _refuse_doubles(found)
    return tuple(found)


def theorems(files: Iterable[Path] | None = None) -> dict[Path, tuple[Theorem, ...]]:
    """All theorems, by file.

    Parameters
    ----------
    files : iterable of Path, optional
        Default: :func:`proof_files`.

    Returns
    -------
    dict of path to tuple of Theorem
        In the order of ``files``.

    Examples
    --------
    >>> sum(len(found) for found in theorems().values()) > 40
    True
    """
    found = {Path(file): load(Path(file)) for file in (proof_files() if files is None else files)}
    _refuse_doubles([t for group in found.values() for t in group])
    return found


@dataclass(frozen=True)
class Selection(Result):
    """Theorems chosen by name, undecided.

    Attributes
    ----------
    found : tuple of (Path, Theorem)
        In the order of the files.
    """

    found: tuple[tuple[Path, Theorem], ...]

    @property
    def title(self) -> str:  # type: ignore[override]
        """How many."""
        return f"{len(self.found)} theorems"

    def rows(self) -> Sequence[Sequence[str]]:
        """One line a theorem."""
        rows = [("id", "family", "method", "expected", "statement")]
        for _, item in self.found:
            rows.append((item.id, item.family, item.method, item.expect, item.statement))
        return rows

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "theorems": [
                {**item.to_dict(), "mutants": list(item.mutants)} for _, item in self.found
            ]
        }


def select(ids: Iterable[str] = (), files: Iterable[Path] | None = None) -> Selection:
    """Theorems by id, beginning of an id up to a hyphen, or family.

    Parameters
    ----------
    ids : iterable of str
        ``C13-every-K``, ``C13`` (all that begin so) or ``floor_ranges``. None: all.
    files : iterable of Path, optional
        Theorem files. Default: :func:`proof_files`.

    Raises
    ------
    InputError
        A name that fits nothing.

    Examples
    --------
    >>> select(["jury"]).to_dict()["theorems"][0]["id"]
    'JURY-criterion'
    """
    every = [(path, item) for path, group in theorems(files).items() for item in group]
    names = [name.lower() for name in ids]

    def chosen(item: Theorem, name: str) -> bool:
        known = item.id.lower()
        return name in (known, item.family.lower()) or known.startswith(name + "-")

    for name in names:
        if not any(chosen(item, name) for _, item in every):
            known = ", ".join(dict.fromkeys(item.family for _, item in every))
            raise InputError(
                f"no theorem {name!r}: give an id such as {every[0][1].id}, or a family ({known})"
            )
    return Selection(
        tuple(
            (path, item)
            for path, item in every
            if not names or any(chosen(item, name) for name in names)
        )
    )


def _refuse_doubles(found: Iterable[Theorem]) -> None:
    seen: set[str] = set()
    for item in found:
        if item.id in seen:
            raise InputError(f"two theorems have the id {item.id!r}: rename one")
        seen.add(item.id)
