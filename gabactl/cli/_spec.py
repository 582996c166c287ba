"""The GABA settings on the command line: the same options in every command that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from gabactl.spec import GabaSpec

__all__ = ["SpecOptions", "spec_options"]

_OPTIONS: dict[str, tuple[Any, str, str]] = {
    "n_tasks": (int, "--tasks", "Number of tasks K."),
    "beta": (float, "--beta", "Pole of the moving average, in [0, 1)."),
    "floor": (float, "--floor", "Smallest weight aimed at, in [0, 1/K)."),
    "warmup": (int, "--warmup", "Steps with uniform weights at the start."),
    "law": (str, "--law", "complement (published) or inverse."),
    "floor_mode": (str, "--floor-mode", "renormalise (published), affine, project or clamp_state."),
    "guard": (str, "--guard", "hold, or none (published)."),
    "interval": (int, "--interval", "Steps between readings."),
}


@dataclass(frozen=True)
class SpecOptions:
    """What the user said of the settings; :meth:`resolve` completes it."""

    file: Path | None
    given: dict[str, Any]

    def resolve(self, base: GabaSpec | None = None) -> GabaSpec:
        """An option beats the file, the file beats ``base`` (a trace's metadata), that the defaults."""
        spec = GabaSpec.from_toml(self.file) if self.file is not None else base or GabaSpec()
        return spec.replace(**self.given) if self.given else spec


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the GABA options, collected into its parameter ``spec: SpecOptions``."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "spec"]
    added = [
        inspect.Parameter(
            f"spec_{name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                kind | None, typer.Option(flag, help=text, rich_help_panel="GABA")
            ],
        )
        for name, (kind, flag, text) in _OPTIONS.items()
    ]
    added.append(
        inspect.Parameter(
            "spec_file",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    "--spec", help="TOML file with a table [gaba].", rich_help_panel="GABA"
                ),
            ],
        )
    )

    @wraps(command)
    def run(**arguments: Any) -> Any:
        file = arguments.pop("spec_file")
        values = {name: arguments.pop(f"spec_{name}") for name in _OPTIONS}
        given = {name: value for name, value in values.items() if value is not None}
        return command(**arguments, spec=SpecOptions(file, given))

    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    run.__signature__ = signature.replace(parameters=[*keyword_only, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*keyword_only, *added]}
    return run
