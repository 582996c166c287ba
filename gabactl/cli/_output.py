"""How commands answer: a table for people, strict JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gabactl.base.results import Result

__all__ = ["JsonFlag", "show"]

#: The option every command that reports something takes.
JsonFlag = Annotated[bool, typer.Option("--json", help="Machine output: strict JSON on stdout.")]


def show(result: Result | Sequence[Result] | dict[str, Any], as_json: bool) -> None:
    """Print a result (or several), as a table or as JSON."""
    # Here, because it loads NumPy, which `gabactl --version` has no use for.
    from gabactl.base.results import Result, to_jsonable

    if as_json:
        print(json.dumps(to_jsonable(result), indent=2, allow_nan=False))
        return
    results = [result] if isinstance(result, (Result, dict)) else list(result)
    print("\n\n".join(str(item) for item in results))
