"""What a training run reports: progress on the way, scores, and the outcome."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gabactl.base.results import Result
from gabactl.nn.training.settings import TrainingSettings

__all__ = ["TrainingResult"]


@dataclass(frozen=True)
class Score:
    """How good the predictions are on one set of windows.

    Attributes
    ----------
    rmse, nasa : float
        Against min(RUL, 125), in cycles; the score of :func:`gabactl.cmapss.nasa_score`.
    rmse_uncapped, nasa_uncapped : float
        Against the RUL without the limit, which the network was never shown.
    health_accuracy : float
        Share of right health classes.
    """

    rmse: float
    nasa: float
    rmse_uncapped: float
    nasa_uncapped: float
    health_accuracy: float


@dataclass(frozen=True)
class Progress:
    """What a progress display is told after each step.

    Attributes
    ----------
    step, steps : int
        Taken so far, and at most; earlier runs included.
    epoch, epochs : int
        The one under way, from 1, and at most.
    validation_rmse : float
        Of the last full epoch, in cycles; NaN before any.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    validation_rmse: float


@dataclass(frozen=True)
class TrainingResult(Result):
    """The end of a training run, interrupted or not.

    Attributes
    ----------
    settings : TrainingSettings
        What was asked for.
    steps, epochs : int
        Taken so far, earlier runs included; epochs in full.
    parameters : int
        Of the network.
    device : str
        Where it ran.
    seconds : float
        Of this run alone.
    best_epoch : int
        Epoch of the best validation RMSE; 0 before the first.
    validation_rmse : float
        The best, in cycles; NaN before the first full epoch.
    test : Score or None
        On the last window of each test engine; None when interrupted.
    rmse_all_windows : float
        Over every window of the test engines, where the data have them; else NaN.
    rmse_test_selected : float
        The best test RMSE of any epoch: what choosing the epoch by the test engines would have
        reported. An optimistic bound, never used; NaN before the first full epoch.
    stopped : str
        ``finished``, ``stopped early``, ``diverged`` or ``interrupted``.
    rul_output_off : bool
        The RUL head gave 0, without gradient, for the whole last batch.
    record, checkpoint : path or None
        The files written.
    """

    settings: TrainingSettings
    steps: int
    epochs: int
    parameters: int
    device: str
    seconds: float
    best_epoch: int
    validation_rmse: float
    test: Score | None
    rmse_all_windows: float
    rmse_test_selected: float
    stopped: str
    rul_output_off: bool
    record: Path | None
    checkpoint: Path | None
    title = "Training on C-MAPSS"

    @property
    def interrupted(self) -> bool:
        """Stopped by Ctrl-C; ``--resume`` goes on."""
        return self.stopped == "interrupted"

    def rows(self) -> list[tuple[str, ...]]:
        """The outcome as a table."""
        s = self.settings
        balancer = s.balancer if s.excite is None else f"{s.balancer}, excited"
        rows: list[tuple[str, ...]] = [
            ("data", f"{s.subset}, {s.channels} channels, batch {s.batch_size}, seed {s.seed}"),
            ("model", f"{s.model}, {self.parameters:,} parameters, on {self.device}"),
            ("balancer", balancer),
            ("ended", f"{self.stopped} after {self.steps:,} steps, {self.epochs} full epochs"),
            ("time", f"{self.seconds:.0f} s in this run"),
        ]
        if math.isfinite(self.validation_rmse):
            rows.append(
                ("validation RMSE", f"{self.validation_rmse:.2f} cycles (epoch {self.best_epoch})")
            )
        if self.test is not None:
            rows += [
                (
                    "test RMSE",
                    f"{self.test.rmse:.2f} cycles ({self.test.rmse_uncapped:.2f} uncapped)",
                ),
                ("NASA score", f"{self.test.nasa:.1f} ({self.test.nasa_uncapped:.1f} uncapped)"),
                ("health accuracy", f"{100 * self.test.health_accuracy:.1f} %"),
            ]
        if math.isfinite(self.rmse_all_windows):
            rows.append(("test RMSE, every window", f"{self.rmse_all_windows:.2f} cycles"))
        if self.rul_output_off:
            rows.append(
                ("warning", "the final ReLU of the RUL head is off: lower --lr, or set --clip")
            )
        rows += [
            (n, str(p)) for n, p in (("trace", self.record), ("checkpoint", self.checkpoint)) if p
        ]
        return rows

    def facts(self) -> dict[str, Any]:
        """Keys as the attributes; ``validation_rmse`` is null before the first full epoch."""
        return {**super().facts(), "settings": self.settings.to_dict()}
