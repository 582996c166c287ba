"""What one simulated loop did: every signal, and its answer to every level of the disturbance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.loops.profiles import Profile

__all__ = ["SimulationResult"]

Array = NDArray[np.float64]
#: Figures of a whole run.
_FIGURES = (
    *("smallest_weight", "largest_weight", "saturated_fraction", "saturated_steps"),
    *("sign_changes", "negative_fraction", "diverged_at"),
)


@dataclass(frozen=True)
class SegmentResponse:
    """The answer to one level of a disturbance. Steps count from the level's first one.

    Attributes
    ----------
    start, stop : int
        First step (from 0) and the one after the last.
    disturbance_ratio : float
        Largest over smallest norm under uniform weights, at the end of the level.
    settled_weights : tuple of float
        Weights the loop tends to at this level.
    settled_contribution_ratio : float
        Largest over smallest contribution w_i g_i there (1 is balanced).
    settling_weights, settling_contributions : int or None
        Updates until the weights (log contributions) stay within ``tolerance`` of the whole
        change; None where they do not within the level, or the disturbance does not come to rest
        in it.
    integrated_error : float
        Sum over the level of the log of largest over smallest contribution (steps).
    worst_contribution_ratio : float
        Largest over smallest contribution, at its worst.
    saturated_fraction : float or None
        Share of active steps with some ema below the floor; None for other balancers.
    """

    start: int
    stop: int
    disturbance_ratio: float
    settled_weights: tuple[float, ...]
    settled_contribution_ratio: float
    settling_weights: int | None
    settling_contributions: int | None
    integrated_error: float
    worst_contribution_ratio: float
    saturated_fraction: float | None


@dataclass(frozen=True, eq=False)
class SimulationResult(Result):
    """Everything a simulated loop did.

    Attributes
    ----------
    balancer : str
        Name.
    settings : mapping
        Of the balancer.
    profile : Profile
        The disturbance.
    plant : str
        What answered.
    noise : float
        Standard deviation of the noise on each log reading.
    seed : int
        Of noise and plant.
    tolerance : float
        Band of the settling times, as a share of the change.
    grad_norms : array, shape (steps, K)
        Norms without the noise of the reading.
    readings : array, shape (steps, K)
        What the sensor gave.
    weights : array, shape (steps, K)
        Applied weights.
    raw, ema : array, shape (steps, K), or None
        The other stages, for GABA.
    responses : tuple of SegmentResponse
        One per level of the disturbance.
    smallest_weight, largest_weight : float
        Extremes of the applied weights.
    saturated_fraction : float or None
        Share of active steps with some ema below the floor (GABA).
    saturated_steps : int or None
        The same as a number of steps.
    sign_changes : int
        How often a weight changed its sign.
    negative_fraction : float
        Share of steps with a negative weight.
    diverged_at : int or None
        First step with a weight that is not finite or beyond 10^6.
    first_step : int
        Number of the first step.
    """

    balancer: str
    settings: Mapping[str, Any]
    profile: Profile
    plant: str
    noise: float
    seed: int
    tolerance: float
    grad_norms: Array
    readings: Array
    weights: Array
    raw: Array | None
    ema: Array | None
    responses: tuple[SegmentResponse, ...]
    smallest_weight: float
    largest_weight: float
    saturated_fraction: float | None
    saturated_steps: int | None
    sign_changes: int
    negative_fraction: float
    diverged_at: int | None
    first_step: int = 1

    @property
    def title(self) -> str:  # type: ignore[override]
        """Balancer, disturbance and plant in one line."""
        return f"{self.balancer} on {self.profile.title or 'a disturbance'} ({self.plant})"

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.weights)

    @property
    def step(self) -> NDArray[np.int64]:
        """Step numbers, shape (steps,)."""
        return np.arange(self.first_step, self.first_step + self.steps)

    @property
    def contributions(self) -> Array:
        """c_i = w_i g_i, shape (steps, K)."""
        return self.weights * self.grad_norms

    @property
    def contribution_ratios(self) -> Array:
        """Largest over smallest |c_i| per step, shape (steps,); infinite where one is 0."""
        return np.exp(spread(self.contributions))

    @property
    def integrated_error(self) -> float:
        """Sum over all steps of the log of largest over smallest contribution."""
        return math.fsum(r.integrated_error for r in self.responses)

    def facts(self) -> dict[str, Any]:
        """Settings and figures."""
        return {
            "balancer": self.balancer,
            "settings": dict(self.settings),
            "disturbance": self.profile.title,
            "plant": self.plant,
            "noise_std": self.noise,
            "seed": self.seed,
            "tolerance": self.tolerance,
            "steps": self.steps,
            "responses": [_with_reasons(asdict(r)) for r in self.responses],
            "integrated_error": self.integrated_error,
            **{name: getattr(self, name) for name in _FIGURES},
        }

    def rows(self) -> Sequence[Sequence[str]]:
        """One row per level, and the figures of the whole run."""
        table: list[tuple[str, ...]] = [
            (
                "level",
                "steps",
                "imbalance",
                "settled weights",
                "left over",
                "settling: weights",
                "contributions",
                "saturated",
            )
        ]
        for n, r in enumerate(self.responses, 1):
            weights = " ".join(f"{w:.4g}" for w in r.settled_weights[:4])
            table.append(
                (
                    str(n),
                    f"{r.start}-{r.stop - 1}",
                    _times(r.disturbance_ratio),
                    weights + (" ..." if len(r.settled_weights) > 4 else ""),
                    _times(r.settled_contribution_ratio),
                    _steps(r.settling_weights),
                    _steps(r.settling_contributions),
                    "-" if r.saturated_fraction is None else f"{r.saturated_fraction:.0%}",
                )
            )
        table.append(("all", f"weights {self.smallest_weight:.4g} to {self.largest_weight:.4g}"))
        table.append(("", f"integrated contribution error {self.integrated_error:.1f} steps"))
        if self.sign_changes:
            table.append(
                (
                    "",
                    f"{self.sign_changes} sign changes of a weight, "
                    f"negative {self.negative_fraction:.0%} of the time",
                )
            )
        if self.diverged_at is not None:
            table.append(("", f"diverged at step {self.diverged_at}"))
        return table

    def plot(
        self,
        ax: Any | None = None,
        what: Literal["weights", "contributions", "norms"] = "weights",
    ) -> Any:
        """One signal over the steps.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        what : {"weights", "contributions", "norms"}
            Applied weights; ratio of the contributions; gradient norms.

        Raises
        ------
        InputError
            Another ``what``.

        Examples
        --------
        >>> from gabactl.loops.profiles import constant
        >>> from gabactl import GabaSpec
        >>> from gabactl.loops.simulate import simulate
        >>> len(simulate(GabaSpec(), constant(500.0, 300)).plot().lines)
        2
        """
        from gabactl.base import plots

        with plots.style():
            ax = plots.axes(ax)
            steps = self.step
            if what == "weights":
                for i, column in enumerate(self.weights.T):
                    ax.plot(*plots.thin(steps, column), label=f"task {i + 1}")
                ax.set_ylabel("applied weight")
            elif what == "contributions":
                ratios = self.contribution_ratios
                shown = np.where(np.isfinite(ratios), ratios, np.nan)
                ax.plot(*plots.thin(steps, shown), label=self.balancer)
                ax.set(yscale="log", ylabel="largest / smallest contribution")
            elif what == "norms":
                for i, column in enumerate(self.readings.T):
                    shown = np.where(column > 0, column, np.nan)
                    ax.plot(*plots.thin(steps, shown), label=f"task {i + 1}", linewidth=0.8)
                ax.set(yscale="log", ylabel="gradient norm")
            else:
                raise InputError(
                    f"what = {what!r} cannot be drawn: choose weights, contributions or norms"
                )
            for event in self.profile.events[1:]:
                ax.axvline(event + self.first_step, color="0.6", linewidth=0.8, linestyle=":")
            ax.set_xlabel("step")
            ax.legend()
        return ax

    def figure(self, figure: Any | None = None) -> Any:
        """Norms, weights and contributions below one another.

        Parameters
        ----------
        figure : matplotlib.figure.Figure, optional
            Where to draw; default a new one.

        Examples
        --------
        >>> from gabactl.loops.profiles import constant
        >>> from gabactl import GabaSpec
        >>> from gabactl.loops.simulate import simulate
        >>> len(simulate(GabaSpec(), constant(500.0, 300)).figure().axes)
        3
        """

        def draw(panels: Sequence[Any]) -> None:
            for panel, what in zip(panels, ("norms", "weights", "contributions"), strict=True):
                self.plot(panel, what)  # type: ignore[arg-type]

        return signal_figure(self.title, draw, figure)


def signal_figure(title: str, draw: Callable[[Any], None], figure: Any | None = None) -> Any:
    """Three panels below one another over the same steps.

    Parameters
    ----------
    title : str
        Above the first.
    draw : callable
        Gets the three axes.
    figure : matplotlib.figure.Figure, optional
        Where to draw; default a new one.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> len(signal_figure("a run", lambda panels: None).axes)
    3
    """
    from gabactl.base import plots

    with plots.style():
        panels = plots.panels(3, 8.0) if figure is None else figure.subplots(3, sharex=True)
        draw(panels)
        for panel in panels[:2]:
            panel.set_xlabel("")
        panels[0].set_title(title, fontsize="medium", wrap=True)
    return panels[0].get_figure()


def spread(contributions: Array) -> Array:
    """ln(max |c_i| / min |c_i|) per step: 0 is balanced.

    Parameters
    ----------
    contributions : array, shape (steps, K)
        Weighted norms.

    Returns
    -------
    array, shape (steps,)
        In nats, at least 0.

    Examples
    --------
    >>> spread(np.array([[1.0, 1.0], [-4.0, 1.0]])).round(4).tolist()
    [0.0, 1.3863]
    """
    size = np.abs(contributions)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(size.max(axis=-1)) - np.log(size.min(axis=-1))


def _with_reasons(record: dict[str, Any]) -> dict[str, Any]:
    """A reason beside every number that JSON cannot hold, and beside a settling time of None."""
    for key in ("disturbance_ratio", "settled_contribution_ratio", "worst_contribution_ratio"):
        if not math.isfinite(record[key]):
            record[f"{key}_reason"] = "a norm or weight is 0, or not finite"
    for key in ("settling_weights", "settling_contributions"):
        if record[key] is None:
            record[f"{key}_reason"] = "not within the level, or the disturbance never rests"
    return record


def _times(ratio: float) -> str:
    return f"{ratio:,.4g}x" if math.isfinite(ratio) else "-"


def _steps(count: int | None) -> str:
    return "-" if count is None else str(count)
