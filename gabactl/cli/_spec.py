"""The GABA settings on the command line: the same options in every command that takes them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gabactl.cli._fields import Row, takes
from gabactl.cli._help import SETTINGS_PANEL
from gabactl.law.floors import FLOORS
from gabactl.law.laws import LAWS
from gabactl.law.spec import GabaSpec, labels

if TYPE_CHECKING:
    from gabactl.runs.run import Run


ROWS: dict[str, Row | None] = {
    "n_tasks": Row("K", "Number of tasks, 2 or more.", option="--tasks"),
    "beta": Row("X", "Pole of the moving average, in [0, 1)."),
    "floor": Row("X", "Smallest weight aimed at, in [0, 1/K)."),
    "warmup": Row("STEPS", "Steps with uniform weights at the start, 0 or more."),
    "law": Row("NAME", f"{', '.join(labels(LAWS))}."),
    "floor_mode": Row("NAME", f"{', '.join(labels(FLOORS))}."),
    "guard": Row("NAME", "hold, or none (published)."),
    "interval": Row("STEPS", "Steps between readings, 1 or more."),
}
_FILE = inspect.Parameter(
    "file",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Row(
        "FILE",
        "TOML file with a table [gaba]. An option beats it, and it beats what a trace or a scenario "
        "says.",
        option="--spec",
    ).of(Path | None, "file", True, rich_help_panel=SETTINGS_PANEL),
)


@dataclass(frozen=True)
class SpecOptions:
    """What the user said of the settings; :meth:`resolve` completes it."""

    file: Path | None
    given: dict[str, Any]

    def __bool__(self) -> bool:
        """Whether anything was said."""
        return self.file is not None or bool(self.given)

    def resolve(self, base: GabaSpec | None = None) -> GabaSpec:
        """An option beats the file, the file beats ``base`` (a trace's metadata), that the defaults."""
        spec = GabaSpec.from_toml(self.file) if self.file is not None else base or GabaSpec()
        return spec.replace(**self.given) if self.given else spec

    def resolve_for(self, trace: Path) -> GabaSpec | None:
        """The same over a trace's settings, reading its first piece; None if nothing was said."""
        if not self:
            return None
        from gabactl.traces import trace_pieces

        first = next(iter(trace_pieces(trace)), None)
        own = None if first is None else first.spec or GabaSpec(n_tasks=len(first.tasks))
        return self.resolve(own)

    def run(self, trace: Path, last: int | None) -> Run:
        """A recorded run (or the end of it) under what was said; of at most a million steps."""
        from gabactl.runs.run import Run
        from gabactl.traces import MOST_STEPS

        return Run.of(trace, self.resolve_for(trace), last=last, most_steps=MOST_STEPS)


#: Give a command the GABA options, collected into its last parameter, ``spec: SpecOptions``.
spec_options = takes(
    "spec",
    GabaSpec,
    ROWS,
    _FILE,
    panel=SETTINGS_PANEL,
    make=lambda given: SpecOptions(given.pop("file", None), given),
)
