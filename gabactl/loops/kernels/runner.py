"""Packs loops by kind, runs them on threads, and makes figures of what comes back.

With feedback, spreads are differences of logarithms, without they are ratios: which of the two
follows from a loop's own settings, never from the loops beside it, so that its figures are the
same to the last bit in whatever batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gabactl.law.laws import PUBLISHED_EPSILON
from gabactl.loops.kernels.batch import LOOP_ROWS, SETTINGS, TASK_ROWS, Numbers, run_blocks
from gabactl.loops.kernels.controller import COMPLEMENT, HOLD

__all__ = ["FIGURES", "SETTLING_FIGURES", "Figures", "Goals", "Runner"]

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
    *("saturated", "smallest", "largest", "early_peak", "late_peak", "start", "sum", "square"),
    *("error", "product", "worst_spread", "spread"),
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

    def __init__(
        self,
        codes: tuple[int, int, int],
        delay: int,
        seed: int,
        first_loop: int,
        dtype: str,
        threads: int,
    ) -> None:
        self._codes = codes
        self._delay = delay
        self._seed = seed
        self._first = first_loop
        self._dtype = np.dtype(dtype)
        self._threads = threads

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
        size = min(_PIECE, -(-loops // self._threads))
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
                numbers = self._first + np.arange(start, stop)[mine]
                with np.errstate(all="ignore"):
                    found = self._alike(log_norms, lost, rows, aims, numbers)
                for name in names:
                    single[name][chosen] = found.single[name]
                if goals is None:
                    final[:, chosen] = found.final_weights

        if self._threads == 1:
            for start, stop in pairwise(cuts):
                work(start, stop)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
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
            "keep": (1 - pole) / (k - 1 if self._codes[0] == COMPLEMENT else 1),
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
        wanted = ["last_weights", "last_spread"] if goals else [*_OUTPUTS]
        wanted += [] if goals else [f"value {i}" for i in range(k)]
        out = np.empty((len(wanted), loops), dtype=self._dtype)
        logs = np.ascontiguousarray(log_norms, self._dtype)
        gone = np.asarray(lost.any(axis=1))
        fresh: NDArray[np.bool_] = np.ones(steps, dtype=bool)
        fresh[1:] = (logs[1:] != logs[:-1]).any(axis=1) | gone[1:]
        fresh[1:] |= gone[:-1]
        run_blocks(
            logs,
            fresh,
            gone,
            self._codes,
            (feedback, noisy, goals is not None),
            self._delay,
            self._seed,
            self._numbers(k),
            np.array([_initial(name, k) for name in names], self._dtype),
            np.array([rows[name] for name in settings]),
            np.stack(list(settings.values())).astype(self._dtype, copy=False),
            numbers,
            np.array([rows[name] for name in wanted]),
            out,
        )
        found = dict(zip(wanted, out.astype(np.float64, copy=False), strict=True))
        if goals is not None:
            return Figures(
                {
                    "last_outside_weights": found["last_weights"],
                    "last_outside_contributions": found["last_spread"],
                },
                np.empty((k, 0)),
            )
        values = np.stack([found[f"value {i}"] for i in range(k)])
        window = max(steps - 3 * steps // 4, 1)
        mean = found["sum"] / window
        return Figures(
            {
                "smallest_weight": found["smallest"],
                "largest_weight": found["largest"],
                "saturated_steps": found["saturated"],
                "active_steps": np.maximum(steps - table["warmup"], 0.0),
                "integrated_error": found["error"] * _LN2 + np.log(found["product"]),
                "worst_log_spread": np.log(found["worst_spread"]),
                "final_log_spread": np.log(found["spread"]),
                "early_peak": found["early_peak"],
                "late_peak": found["late_peak"],
                "mean_weight": found["start"] + mean,
                "weight_variance": np.maximum(found["square"] / window - mean**2, 0.0),
            },
            values / values.sum(axis=0),
        )

    def _numbers(self, n_tasks: int) -> Numbers:
        of, epsilon = self._dtype.type, 0.0 if self._codes[2] == HOLD else PUBLISHED_EPSILON
        tiny = np.finfo(self._dtype).tiny
        given = (0, 1, math.inf, tiny, 1 / n_tasks, n_tasks, epsilon)
        return Numbers(*(of(x) for x in given))


def _initial(name: str, n_tasks: int) -> float:
    """What a row holds before the first step."""
    name = name.split()[0]
    if name in ("smallest", "window_smallest"):
        return math.inf
    if name in ("largest", "window_largest"):
        return -math.inf
    return {
        "ema": 1.0 / n_tasks,
        "product": 1.0,
        "last_weights": -1.0,
        "last_spread": -1.0,
    }.get(name, 0.0)
