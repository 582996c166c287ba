"""``gabactl report``: the main job."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def report() -> None:
        """Analyse a recorded run."""
