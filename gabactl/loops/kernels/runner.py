"""Packs loops by kind, runs them on threads, and makes figures of what comes back.

With feedback, spreads are differences of logarithms, without they are ratios: which of the two
follows from a loop's own settings, never from the loops beside it, so that its figures are the
same to the last bit in whatever batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gabactl.law.laws import PUBLISHED_EPSILON
from gabactl.loops.kernels.batch import LOOP_ROWS, SETTINGS, TASK_ROWS, Numbers, run_blocks
from gabactl.loops.kernels.controller import COMPLEMENT, HOLD

#: What is measured of a loop.
FIGURES = (
    "smallest_weight",
    "largest_weight",
    "saturated_steps",
    "active_steps",
    "integrated_error",
    "worst_log_spread",
    "final_log_spread",
    "early_peak",
    "late_peak",
    "mean_weight",
    "weight_variance",
)

#: What is measured where goals are given.
SETTLING_FIGURES = ("last_outside_weights", "last_outside_contributions")

#: What comes back of a loop, beside the weights of its tasks.
_OUTPUTS = (
    *("saturated_steps", "smallest_weight", "largest_weight", "early_peak", "late_peak", "start"),
    *("sum", "square", "error", "product", "worst_spread", "spread"),
)

#: Largest number of loops a thread takes at a time.
_PIECE = 8192

_LN2 = math.log(2.0)

Table = Mapping[str, NDArray[np.float64]]


class Goals(NamedTuple):
    """What settling is measured against.

    Attributes
    ----------
    weights : array, shape (K, loops)
        Weights a loop tends to.
    spread : array, shape (loops,)
        Log spread it tends to.
    bands : array, shape (2, loops)
        Half width of the band around each.
    """

    weights: NDArray[np.float64]
    spread: NDArray[np.float64]
    bands: NDArray[np.float64]

    def of(self, loops: Any) -> Goals:
        """Those of some loops."""
        return Goals(self.weights[:, loops], self.spread[loops], self.bands[:, loops])


class Figures(NamedTuple):
    """What a run gives: ``single`` of shape (loops,) each, final weights of shape (K, loops)."""

    single: dict[str, NDArray[np.float64]]
    final_weights: NDArray[np.float64]


def figures(
    measured: dict[str, NDArray[np.float64]], steps: int, warmup: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The figures of a loop from what was measured of it.

    Parameters
    ----------
    measured : dict
        What needs no further step, under its name in :data:`FIGURES`; and of the last quarter of the
        steps the weight of task 0 before it, ``start``, and the sums of the distances from that and
        of their squares, ``sum`` and ``square``.
    steps : int
        All steps.
    warmup : array, shape (loops,)
        Those of each loop's warm-up.

    Examples
    --------
    >>> sums = {"start": np.full(1, 0.5), "sum": np.full(1, 0.2), "square": np.full(1, 0.02)}
    >>> figures(sums, 8, np.zeros(1))["mean_weight"].round(6).tolist()
    [0.6]
    """
    window = max(steps - 3 * steps // 4, 1)
    mean = measured["sum"] / window
    return {
        **{name: measured[name] for name in FIGURES if name in measured},
        "active_steps": np.maximum(steps - warmup, 0.0),
        "mean_weight": measured["start"] + mean,
        "weight_variance": np.maximum(measured["square"] / window - mean**2, 0.0),
    }


@dataclass(frozen=True)
class Runner:
    """Runs loops of one law, floor mode, guard and delay.

    Parameters
    ----------
    codes : (law, floor_mode, guard)
        As in :class:`gabactl.loops.kernels.controller.Codes`.
    delay : int
        Of the plant.
    seed, first_loop : int
        Of the noise.
    dtype : {"float64", "float32"}
        Precision.
    threads : int
        Threads; they change no number.
    """

    codes: tuple[int, int, int]
    delay: int
    seed: int
    first_loop: int
    dtype: str
    threads: int

    def run(
        self,
        log_norms: NDArray[np.float64],
        lost: NDArray[np.bool_],
        table: Table,
        goals: Goals | None = None,
    ) -> Figures:
        """All loops through all steps.

        Parameters
        ----------
        log_norms, lost : arrays, shape (steps, K)
            Disturbance, which each loop multiplies by its amplitude, and sensor failures.
        table : mapping name -> array, shape (loops,)
            The loops' settings.
        goals : Goals, optional
            Asks for settling, and then for nothing else.
        """
        loops = len(table["beta"])
        kinds = (table["rho"] != 0) + np.int8(2) * (table["noise"] > 0)
        size = min(_PIECE, -(-loops // self.threads))
        cuts = [*range(0, loops, size), loops]
        names = FIGURES if goals is None else SETTLING_FIGURES
        single = {name: np.empty(loops) for name in names}
        final = np.empty((log_norms.shape[1], loops if goals is None else 0))

        def work(start: int, stop: int) -> None:
            here = kinds[start:stop]
            for kind in np.flatnonzero(np.bincount(here)):
                mine = here == kind
                # A slice takes no copy.
                chosen: Any = slice(start, stop) if mine.all() else start + np.flatnonzero(mine)
                rows = {name: column[chosen] for name, column in table.items()}
                aims = None if goals is None else goals.of(chosen)
                numbers = self.first_loop + np.arange(start, stop)[mine]
                with np.errstate(all="ignore"):
                    found = self._alike(log_norms, lost, rows, aims, numbers)
                for name in names:
                    single[name][chosen] = found.single[name]
                if goals is None:
                    final[:, chosen] = found.final_weights

        if self.threads == 1:
            for start, stop in pairwise(cuts):
                work(start, stop)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(work, cuts[:-1], cuts[1:]))
        return Figures(single, final)

    def _alike(
        self,
        log_norms: NDArray[np.float64],
        lost: NDArray[np.bool_],
        table: Table,
        goals: Goals | None,
        numbers: NDArray[np.int64],
    ) -> Figures:
        """Loops all of which have feedback or none of them, and the same for noise."""
        (steps, k), loops = log_norms.shape, len(numbers)
        feedback, noisy = bool(table["rho"][0] != 0), bool(table["noise"][0] > 0)
        pole = table["beta"] ** table["interval"]
        settings = {
            **{name: table[name] for name in SETTINGS if name in table},
            "pole": pole,
            "keep": (1 - pole) / (k - 1 if self.codes[0] == COMPLEMENT else 1),
            "next": table["warmup"],
        }
        if goals is not None:
            edges = goals.spread + goals.bands[1], goals.spread - goals.bands[1]
            above, below = np.exp(edges)
            settings |= {
                "spread_above": above,
                "spread_below": below,
                **{f"weight_above {i}": goals.weights[i] + goals.bands[0] for i in range(k)},
                **{f"weight_below {i}": goals.weights[i] - goals.bands[0] for i in range(k)},
            }
        names = [*LOOP_ROWS, *(f"{name} {i}" for i in range(k) for name in TASK_ROWS)]
        rows = {name: n for n, name in enumerate(names)}
        values = [f"value {i}" for i in range(k)]
        wanted = [*SETTLING_FIGURES] if goals else [*_OUTPUTS, *values]
        out = np.empty((len(wanted), loops), dtype=self.dtype)
        logs = np.ascontiguousarray(log_norms, self.dtype)
        gone = np.asarray(lost.any(axis=1))
        fresh: NDArray[np.bool_] = np.ones(steps, dtype=bool)
        fresh[1:] = (logs[1:] != logs[:-1]).any(axis=1) | gone[1:]
        fresh[1:] |= gone[:-1]
        run_blocks(
            logs,
            fresh,
            gone,
            self.codes,
            (feedback, noisy, goals is not None),
            self.delay,
            self.seed,
            self._numbers(k),
            np.array([_initial(name, k) for name in names], self.dtype),
            np.array([rows[name] for name in settings]),
            np.stack(list(settings.values())).astype(self.dtype, copy=False),
            numbers,
            np.array([rows[name] for name in wanted]),
            out,
        )
        found = dict(zip(wanted, out.astype(np.float64, copy=False), strict=True))
        if goals is not None:
            return Figures(found, np.empty((k, 0)))
        found |= {
            "integrated_error": found["error"] * _LN2 + np.log(found["product"]),
            "worst_log_spread": np.log(found["worst_spread"]),
            "final_log_spread": np.log(found["spread"]),
        }
        last = np.stack([found[name] for name in values])
        return Figures(figures(found, steps, table["warmup"]), last / last.sum(axis=0))

    def _numbers(self, n_tasks: int) -> Numbers:
        of, epsilon = np.dtype(self.dtype).type, 0.0 if self.codes[2] == HOLD else PUBLISHED_EPSILON
        tiny = np.finfo(self.dtype).tiny
        given = (0, 1, math.inf, tiny, 1 / n_tasks, n_tasks, epsilon)
        return Numbers(*(of(x) for x in given))


def _initial(name: str, n_tasks: int) -> float:
    """What a row holds before the first step."""
    return {
        "ema": 1.0 / n_tasks,
        "product": 1.0,
        "last_outside_weights": -1.0,
        "last_outside_contributions": -1.0,
        **dict.fromkeys(("smallest_weight", "window_smallest"), math.inf),
        **dict.fromkeys(("largest_weight", "window_largest"), -math.inf),
    }.get(name.split()[0], 0.0)
