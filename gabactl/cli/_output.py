"""How commands answer: a table for people, strict JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gabactl.results import Result, to_jsonable

__all__ = ["JsonFlag", "show"]

#: The option every command that reports something takes.
JsonFlag = Annotated[bool, typer.Option("--json", help="Machine output: strict JSON on stdout.")]


def show(result: Result | Sequence[Result] | dict[str, Any], as_json: bool) -> None:
    """Print a result (or several), as a table or as JSON."""
    if as_json:
        print(json.dumps(to_jsonable(result), indent=2, allow_nan=False))
        return
    results = [result] if isinstance(result, (Result, dict)) else list(result)
    print("\n\n".join(str(item) for item in results))
