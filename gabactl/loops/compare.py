"""Several balancers on the same disturbance, side by side, with intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gabactl.balancers import Balancer
from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.loops.profiles import Profile
from gabactl.loops.result import SimulationResult, signal_figure
from gabactl.loops.simulate import as_balancer, simulate
from gabactl.plants import Plant

__all__ = ["CompareResult", "compare"]

#: What is compared: key, heading, and how to print it.
METRICS: dict[str, tuple[str, str]] = {
    "mean_log_spread": ("mean log ratio of contributions", ".3g"),
    "median_contribution_ratio": ("median ratio", ".4g"),
    "final_contribution_ratio": ("left over at the end", ".4g"),
    "settling_weights": ("settling: weights", ".4g"),
    "settling_contributions": ("contributions", ".4g"),
    "integrated_error": ("integrated error", ".5g"),
    "smallest_weight": ("smallest weight", ".4g"),
    "largest_weight": ("largest weight", ".4g"),
    "saturated_fraction": ("saturated", ".0%"),
    "sign_changes": ("sign changes", ".4g"),
    "negative_fraction": ("negative", ".0%"),
    "ripple": ("ripple", ".3g"),
    "diverged": ("diverged", ".0%"),
}

_LEFT_OUT = ("mean_log_spread", "integrated_error", "largest_weight", "ripple")
_SHOWN = tuple(key for key in METRICS if key not in _LEFT_OUT)


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds.

    Attributes
    ----------
    mean : float or None
        Mean over the seeds that have a value; None where none has.
    low, high : float or None
        95 % Student interval of the mean; None below two values.
    seeds : int
        Seeds that have a value.
    """

    mean: float | None
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True, eq=False)
class CompareResult(Result):
    """What several balancers did on one disturbance.

    Attributes
    ----------
    results : mapping name -> SimulationResult
        The run with the first seed, trajectories included.
    estimates : mapping name -> mapping metric -> Estimate
        Every figure of ``METRICS`` over the seeds.
    seeds : tuple of int
        Seeds used.
    disturbance : str
        Title of the disturbance.
    filled : int
        Steps of a recorded run without a usable reading, for which another one stood in.
    """

    results: Mapping[str, SimulationResult]
    estimates: Mapping[str, Mapping[str, Estimate]]
    seeds: tuple[int, ...]
    disturbance: str
    filled: int = 0

    @property
    def title(self) -> str:  # type: ignore[override]
        """Disturbance, plant and number of seeds in one line."""
        first = next(iter(self.results.values()))
        return (
            f"{', '.join(self.results)} on {self.disturbance or 'a disturbance'} "
            f"({first.plant}, noise {first.noise:g}, {len(self.seeds)} seed"
            f"{'s' if len(self.seeds) > 1 else ''})"
        )

    def facts(self) -> dict[str, Any]:
        """Figures and settings per balancer."""
        first = next(iter(self.results.values()))
        return {
            "disturbance": self.disturbance,
            "plant": first.plant,
            "noise_std": first.noise,
            "seeds": list(self.seeds),
            "steps": first.steps,
            "filled_steps": self.filled,
            "balancers": {
                name: {
                    "settings": dict(result.settings),
                    "figures": {k: vars(e) for k, e in self.estimates[name].items()},
                    "first_seed": result.to_dict(),
                }
                for name, result in self.results.items()
            },
        }

    def rows(self) -> Sequence[Sequence[str]]:
        """One row per balancer."""
        head = ("balancer", *(METRICS[key][0] for key in _SHOWN))
        body = [
            (name, *(_cell(self.estimates[name][key], METRICS[key][1]) for key in _SHOWN))
            for name in self.results
        ]
        notes = (
            [(f"{self.filled} steps had no reading: the one before or after stood in",)]
            if self.filled
            else []
        )
        return [head, *body, *notes]

    def plot(
        self,
        ax: Any | None = None,
        what: Literal["contributions", "weights"] = "contributions",
        task: int = 0,
    ) -> Any:
        """One line per balancer.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        what : {"contributions", "weights"}
            Largest over smallest contribution, or the signed share w_i / sum |w_j| of one task
            (methods differ in what their weights sum to).
        task : int
            Which task's share, from 0.

        Raises
        ------
        InputError
            Another ``what``.

        Examples
        --------
        >>> from gabactl.loops.profiles import constant
        >>> len(compare(["gaba", "fixed"], constant(500.0, 300)).plot().lines)
        2
        """
        from gabactl.base import plots

        with plots.style():
            ax = plots.axes(ax)
            for n, (name, result) in enumerate(self.results.items()):
                steps = result.step
                if what == "contributions":
                    shown = result.contribution_ratios
                elif what == "weights":
                    with np.errstate(invalid="ignore", over="ignore"):
                        shown = result.weights[:, task] / np.abs(result.weights).sum(axis=1)
                else:
                    raise InputError(
                        f"what = {what!r} cannot be drawn: choose contributions or weights"
                    )
                shown = np.where(np.isfinite(shown), shown, np.nan)
                ax.plot(
                    *plots.thin(steps, shown),
                    label=name,
                    color=plots.PALETTE[n % len(plots.PALETTE)],
                    lw=1.2,
                    zorder=4 - n / 100,
                )
            if what == "contributions":
                ax.set(yscale="log", ylabel="largest / smallest contribution")
            else:
                ax.set_ylabel(f"share of the weights, task {task + 1}")
                ax.axhline(0.0, color="0.6", linewidth=0.8)
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
        >>> len(compare(["gaba", "fixed"], constant(500.0, 300)).figure().axes)
        3
        """

        def draw(panels: Sequence[Any]) -> None:
            next(iter(self.results.values())).plot(panels[0], "norms")
            self.plot(panels[1], "weights")
            self.plot(panels[2], "contributions")
            panels[1].get_legend().remove()

        return signal_figure(self.title, draw, figure)


def compare(
    balancers: Mapping[str, Any] | Sequence[str],
    profile: Profile | Callable[[int], Profile],
    plant: Plant | None = None,
    *,
    noise: float = 0.0,
    seeds: Sequence[int] = (0,),
    tolerance: float = 0.02,
) -> CompareResult:
    """Drive several balancers with the same disturbance, noise and plant.

    Parameters
    ----------
    balancers : mapping name -> Balancer, GabaSpec or callable, or sequence of names
        What is compared.
    profile : Profile, or function of the seed that gives one
        The disturbance.
    plant : Plant, optional
        What answers to the weights.
    noise, tolerance
        As in :func:`gabactl.loops.simulate.simulate`.
    seeds : sequence of int
        Every balancer sees the same draws for the same seed.

    Raises
    ------
    InputError
        No balancers or no seeds.

    Examples
    --------
    >>> from gabactl.loops.profiles import constant
    >>> result = compare(["gaba", "fixed"], constant(500.0, 600))
    >>> round(result.estimates["fixed"]["final_contribution_ratio"].mean, 3)
    500.0
    """
    if not seeds:
        raise InputError("seeds is empty: give at least one")
    profiles = {seed: profile if isinstance(profile, Profile) else profile(seed) for seed in seeds}
    first = profiles[seeds[0]]

    def run(rule: Balancer) -> list[SimulationResult]:
        return [
            simulate(rule, profiles[seed], plant, noise=noise, seed=seed, tolerance=tolerance)
            for seed in seeds
        ]

    return compared(balancers, first.n_tasks, run, tuple(int(s) for s in seeds), first.title)


def compared(
    balancers: Mapping[str, Any] | Sequence[str],
    n_tasks: int,
    run: Callable[[Balancer], Sequence[SimulationResult]],
    seeds: tuple[int, ...],
    title: str,
    filled: int = 0,
) -> CompareResult:
    """Run several balancers, and set their figures side by side.

    Parameters
    ----------
    balancers
        As for :func:`compare`.
    n_tasks : int
        Number of tasks.
    run : function of a Balancer
        Its run with each seed.
    seeds, title, filled
        As in the result: seeds, disturbance, steps for which another reading stood in.

    Raises
    ------
    InputError
        No balancers.

    Examples
    --------
    >>> from gabactl.loops.profiles import constant
    >>> run = lambda rule: [simulate(rule, constant(500.0, 9))]
    >>> list(compared(["fixed"], 2, run, (0,), "500x").results)
    ['fixed']
    """
    named = dict(balancers) if isinstance(balancers, Mapping) else {n: n for n in balancers}
    if not named:
        raise InputError("no balancers were given: name at least one, such as gaba")
    results: dict[str, SimulationResult] = {}
    estimates: dict[str, dict[str, Estimate]] = {}
    for name, given in named.items():
        runs = run(as_balancer(given, n_tasks))
        results[name] = runs[0]
        found = [figures(one) for one in runs]
        estimates[name] = {key: _estimate([f[key] for f in found]) for key in METRICS}
    return CompareResult(results, estimates, seeds, title, filled)


def figures(result: SimulationResult) -> dict[str, float | None]:
    """The figures of ``METRICS`` of one run; None where one does not apply.

    Parameters
    ----------
    result : SimulationResult
        A run.

    Returns
    -------
    dict of str to (float or None)
        Under the keys of ``METRICS``: ratios, shares from 0 to 1, counts, and times in steps.

    Examples
    --------
    >>> from gabactl.loops.profiles import constant
    >>> round(figures(simulate("fixed", constant(500.0, 100)))["median_contribution_ratio"], 6)
    500.0
    """
    last = result.responses[-1]
    ratios = result.contribution_ratios
    ratios = ratios[~np.isnan(ratios)]
    tail = result.weights[-max(1, (last.stop - last.start) // 10) :]
    return {
        "mean_log_spread": result.integrated_error / result.steps,
        "median_contribution_ratio": _finite(np.median(ratios)) if ratios.size else None,
        "final_contribution_ratio": _finite(last.settled_contribution_ratio),
        "settling_weights": last.settling_weights,
        "settling_contributions": last.settling_contributions,
        "integrated_error": result.integrated_error,
        "smallest_weight": _finite(result.smallest_weight),
        "largest_weight": _finite(result.largest_weight),
        "saturated_fraction": result.saturated_fraction,
        "sign_changes": float(result.sign_changes),
        "negative_fraction": result.negative_fraction,
        "ripple": _finite(np.ptp(tail, axis=0).max()),
        "diverged": float(result.diverged_at is not None),
    }


def _estimate(values: Sequence[float | None]) -> Estimate:
    known: NDArray[np.float64] = np.array([v for v in values if v is not None], dtype=float)
    if not known.size:
        return Estimate(None, None, None, 0)
    mean = float(known.mean())
    if known.size < 2:
        return Estimate(mean, None, None, int(known.size))
    from scipy import stats

    half = float(stats.t.ppf(0.975, known.size - 1) * known.std(ddof=1) / math.sqrt(known.size))
    return Estimate(mean, mean - half, mean + half, int(known.size))


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _cell(estimate: Estimate, form: str) -> str:
    if estimate.mean is None:
        return "-"
    text = format(estimate.mean, form)
    if estimate.low is None or estimate.high is None or estimate.high == estimate.low:
        return text
    return f"{text} [{format(estimate.low, form)}, {format(estimate.high, form)}]"
