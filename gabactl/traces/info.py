"""What a trace holds, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gabactl.base.results import Result
from gabactl.traces.library import load_trace
from gabactl.traces.reader import open_source
from gabactl.traces.schema import GROUPS, Trace

__all__ = ["TraceInfo", "trace_info"]


@dataclass(frozen=True)
class TraceInfo(Result):
    """Facts of a trace file.

    Attributes
    ----------
    trace : Trace
        What is in it.
    format : str
        Kind of file, or "bundled".
    size_bytes : int or None
        Of the file; None for a bundled run, and for a folder of event files.
    """

    trace: Trace
    format: str
    size_bytes: int | None

    @property
    def title(self) -> str:  # type: ignore[override]
        """Heading of the table."""
        return f"Trace {self.trace.source}"

    def plot(self, ax: Any | None = None) -> Any:
        """Gradient norm of each task over the steps; returns the axes."""
        import numpy as np

        from gabactl.base import plots

        with plots.style():
            ax = plots.axes(ax)
            norms = np.where(self.trace.grad_norms > 0, self.trace.grad_norms, np.nan)
            for i, task in enumerate(self.trace.tasks):
                ax.semilogy(self.trace.step, norms[:, i], lw=0.8, label=task)
            ax.set(xlabel="step", ylabel="gradient norm", title=self.title)
            ax.legend()
        return ax

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        trace = self.trace
        wall = trace.wall_time
        return {
            "source": trace.source,
            "format": self.format,
            "size_bytes": self.size_bytes,
            "truncated": trace.truncated,
            "tasks": list(trace.tasks),
            "steps": len(trace),
            "first_step": int(trace.step[0]),
            "last_step": int(trace.step[-1]),
            "measured_steps": int(trace.measured.sum()),
            "columns": [
                *(prefix for prefix, name in GROUPS.items() if getattr(trace, name) is not None),
                *(n for n in ("wall_time", "excitation") if getattr(trace, n) is not None),
                *(["param_norms"] if trace.param_norms else []),
            ],
            "precision": trace.precision,
            "seconds": None if wall is None else float(wall[-1]),
            "metadata": trace.metadata,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Table rows."""
        facts = self.to_dict()
        metadata = facts.pop("metadata")
        seconds = facts.pop("seconds")
        facts.pop("source")
        first, last = facts.pop("first_step"), facts.pop("last_step")
        facts["steps"] = f"{facts['steps']} ({first} to {last})"
        lines = [
            (key.replace("_", " "), _text(value))
            for key, value in facts.items()
            if value is not None
        ]
        if seconds is not None:
            lines.append(("seconds", f"{seconds:.1f}"))
        skip = ("tasks", "complete", "param_names")
        return lines + [(key, _text(value)) for key, value in metadata.items() if key not in skip]


def trace_info(path: str | Path) -> TraceInfo:
    """Read a trace file (or a bundled one) and say what it holds.

    Parameters
    ----------
    path : path or str
        A file, or a bundled name.

    Raises
    ------
    InputError
        As :func:`gabactl.traces.read_trace`.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.csv"
    >>> _ = file.write_text("grad_norm_a,grad_norm_b\\n250,0.5\\n")
    >>> trace_info(file).to_dict()["steps"]
    1
    """
    trace = load_trace(path)
    if not Path(path).exists():
        return TraceInfo(trace, "bundled", None)
    with open_source(path) as source:
        folder = Path(path).is_dir()
        return TraceInfo(trace, source.format, None if folder else Path(path).stat().st_size)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
