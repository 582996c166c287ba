"""``gabactl nyquist``."""

from __future__ import annotations

import typer

from gabactl.cli._frequency import register_plot


def register(app: typer.Typer) -> None:
    """Add the command."""
    register_plot(app, "nyquist", "Nyquist plot of the open loop, with its turns round -1.")
