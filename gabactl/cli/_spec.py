"""The GABA settings on the command line: the same options in every command that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from gabactl.cli._complete import SETTINGS
from gabactl.law.floors import FLOORS
from gabactl.law.laws import LAWS
from gabactl.law.spec import GabaSpec, labels

__all__ = ["SpecOptions", "spec_options"]

#: Type, option, metavar, help. The defaults are those of GabaSpec.
_OPTIONS: dict[str, tuple[Any, str, str, str]] = {
    "n_tasks": (int, "--tasks", "K", "Number of tasks, 2 or more."),
    "beta": (float, "--beta", "X", "Pole of the moving average, in [0, 1)."),
    "floor": (float, "--floor", "X", "Smallest weight aimed at, in [0, 1/K)."),
    "warmup": (int, "--warmup", "STEPS", "Steps with uniform weights at the start, 0 or more."),
    "law": (str, "--law", "NAME", f"{', '.join(labels(LAWS))}."),
    "floor_mode": (
        str,
        "--floor-mode",
        "NAME",
        f"{', '.join(labels(FLOORS))}.",
    ),
    "guard": (str, "--guard", "NAME", "hold, or none (published)."),
    "interval": (int, "--interval", "STEPS", "Steps between readings, 1 or more."),
}
_SPEC_HELP = (
    "TOML file with a table [gaba]. An option beats it, and it beats what a trace or a scenario "
    "says."
)


@dataclass(frozen=True)
class SpecOptions:
    """What the user said of the settings; :meth:`resolve` completes it."""

    file: Path | None
    given: dict[str, Any]

    def resolve(self, base: GabaSpec | None = None) -> GabaSpec:
        """An option beats the file, the file beats ``base`` (a trace's metadata), that the defaults."""
        spec = GabaSpec.from_toml(self.file) if self.file is not None else base or GabaSpec()
        return spec.replace(**self.given) if self.given else spec

    def resolve_for(self, trace: Path) -> GabaSpec | None:
        """The same over a trace's settings, reading its first piece; None if nothing was said."""
        if self.file is None and not self.given:
            return None
        from gabactl.traces import trace_pieces

        first = next(iter(trace_pieces(trace)), None)
        own = None if first is None else first.spec or GabaSpec(n_tasks=len(first.tasks))
        return self.resolve(own)


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
                kind | None,
                typer.Option(
                    flag,
                    metavar=metavar,
                    help=text,
                    show_default=str(GabaSpec.__dataclass_fields__[name].default),
                    rich_help_panel="GABA",
                    autocompletion=SETTINGS.get(name),
                ),
            ],
        )
        for name, (kind, flag, metavar, text) in _OPTIONS.items()
    ]
    added.append(
        inspect.Parameter(
            "spec_file",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option("--spec", metavar="FILE", help=_SPEC_HELP, rich_help_panel="GABA"),
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
