"""Packs loops into blocks of lanes, picks the kernel for each, runs them on threads, unpacks.

Which kernel runs a loop follows from its own settings and the disturbance, never from the loops
beside it, so that its figures are the same to the last bit in whatever batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gabactl._kernels import batch as general
from gabactl._kernels import bounded
from gabactl._kernels.controller import COMPLEMENT, HOLD, RENORMALISE
from gabactl._kernels.random import LARGEST_NORMAL

__all__ = ["FIGURES", "SETTLING_FIGURES", "Figures", "Goals", "Runner", "constants_of"]

#: What is measured of a loop.
FIGURES = (
    "worst_weight",
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

#: Blocks that are in memory at a time, per thread.
_PIECE = 128

#: Log norms beyond this may overflow, or become subnormal.
_RANGE = {"float64": 700.0, "float32": 80.0}

_LANES = bounded.LANES

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
        As in :class:`gabactl._kernels.controller.Codes`.
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
        fast = self.bounded_loops(log_norms, table)
        # Pieces begin on multiples of LANES of the loop's number, so that a loop keeps its lane.
        lead = self._first % _LANES
        blocks = -(-(lead + loops) // _LANES)
        size = min(_PIECE, -(-blocks // self._threads)) * _LANES
        cuts = [0, *range(size - lead, loops, size), loops]
        names = FIGURES if goals is None else SETTLING_FIGURES
        single = {name: np.empty(loops) for name in names}
        final = np.empty((log_norms.shape[1], loops if goals is None else 0))

        def work(start: int, stop: int) -> None:
            part = slice(start, stop)
            rows = {name: column[part] for name, column in table.items()}
            aims = None if goals is None else goals.of(part)
            for chosen, kernel in ((fast[part], self._bounded), (~fast[part], self._general)):
                if not chosen.any():
                    continue
                # A mixed piece goes through both kernels, so that every loop keeps its lane; what
                # a kernel makes of the other's loops is not looked at.
                with np.errstate(all="ignore"):
                    found = kernel(log_norms, lost, rows, aims, self._first + start)
                for name in names:
                    single[name][part][chosen] = found.single[name][chosen]
                if goals is None:
                    final[:, part][:, chosen] = found.final_weights[:, chosen]

        if self._threads == 1:
            for start, stop in pairwise(cuts):
                work(start, stop)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(work, cuts[:-1], cuts[1:]))
        return Figures(single, final)

    def bounded_loops(self, log_norms: NDArray[np.float64], table: Table) -> NDArray[np.bool_]:
        """Which loops cannot leave the bounds of the fast kernel, shape (loops,).

        Notes
        -----
        An average of numbers in [0, 1] that starts at 1/K is at least beta^t / K after t steps, and
        the floor lifts it to m: the log of a ratio of weights is at most L = min(ln(1/m),
        ln K - t ln beta). The plant adds |rho| L (1 - a)/(1 - |a|), the disturbance its own spread.
        """
        steps, k = log_norms.shape
        loops = len(table["beta"])
        if (
            k > bounded.MAX_TASKS
            or self._codes != (COMPLEMENT, RENORMALISE, HOLD)
            or not np.isfinite(log_norms).all()
        ):
            return np.zeros(loops, dtype=bool)
        spread = float((log_norms.max(axis=1) - log_norms.min(axis=1)).max())
        size = float(np.abs(log_norms).max())
        contribution, reading, _ = bounded.LIMITS[self._dtype.name]
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            moving = np.maximum(steps + table["interval"] - table["warmup"], 0.0)
            weights = np.minimum(
                -np.log(table["floor"]), math.log(k) - moving * np.log(table["beta"])
            )
            a = table["a"]
            plant = np.abs(table["rho"]) * weights * (1 - a) / (1 - np.abs(a))
            amplitude = np.abs(table["amplitude"])
            noise = LARGEST_NORMAL * table["noise"]
            return np.asarray(
                (weights + plant + amplitude * spread <= contribution)
                & (plant + amplitude * spread + 2 * noise <= reading)
                & (plant + amplitude * size + noise <= _RANGE[self._dtype.name])
            )

    def _bounded(
        self,
        log_norms: NDArray[np.float64],
        lost: NDArray[np.bool_],
        table: Table,
        goals: Goals | None,
        first_loop: int,
    ) -> Figures:
        steps, k = log_norms.shape
        lead, loops = first_loop % _LANES, len(table["beta"])
        blocks = -(-(lead + loops) // _LANES)
        pole = table["beta"] ** table["interval"]
        start: dict[str, Any] = {
            "pole": pole,
            "gain": (1 - pole) / (k - 1),
            "minus_rho": -table["rho"],
            "one_minus_a": 1 - table["a"],
            "next": table["warmup"],
            **{name: table[name] for name in ("floor", "interval", "a", "noise", "amplitude")},
            "worst": np.inf,
            "largest": -np.inf,
            **dict.fromkeys(("worst_high", "worst_low", "product_high", "product_low"), 1.0),
            **{f"ema {i}": 1.0 / k for i in range(k)},
        }
        if goals is not None:
            start |= {
                "last_weights": -1.0,
                "last_spread": -1.0,
                "spread_above": np.exp(goals.spread + goals.bands[1]),
                "spread_below": np.exp(goals.spread - goals.bands[1]),
                **{f"weight_above {i}": goals.weights[i] + goals.bands[0] for i in range(k)},
                **{f"weight_below {i}": goals.weights[i] - goals.bands[0] for i in range(k)},
            }
        names = bounded.row_names(k, goals is not None)
        state = np.zeros((blocks, len(names), _LANES), dtype=self._dtype)
        for name, values in start.items():
            row = state[:, names.index(name)]
            row[:] = values if np.ndim(values) == 0 else _pack(values, lead, self._dtype)
        bounded.run_bounded(
            bounded.layout(
                k,
                bool(table["rho"].any()),
                self._delay > 0,
                bool(table["noise"].any()),
                goals is not None,
            ),
            np.ascontiguousarray(log_norms[:, :-1] - log_norms[:, -1:], dtype=self._dtype),
            lost.any(axis=1),
            state.reshape(blocks, -1),
            self._delay,
            _first_loops(first_loop - lead, blocks),
            self._seed,
            steps // 2,
            3 * steps // 4,
            bounded.LIMITS[self._dtype.name][2],
        )

        def row_of(name: str) -> NDArray[np.float64]:
            values = state[:, names.index(name)].reshape(-1)[lead : lead + loops]
            return values.astype(np.float64)

        if goals is not None:
            return Figures(
                {
                    "last_outside_weights": row_of("last_weights"),
                    "last_outside_contributions": row_of("last_spread"),
                },
                np.empty((k, 0)),
            )
        floored = np.stack([np.maximum(row_of(f"ema {i}"), table["floor"]) for i in range(k)])
        window = max(steps - 3 * steps // 4, 1)
        mean = row_of("sum") / window
        return Figures(
            {
                "worst_weight": row_of("worst"),
                "largest_weight": row_of("largest"),
                "saturated_steps": row_of("saturated"),
                "active_steps": np.maximum(steps - table["warmup"], 0.0),
                "integrated_error": row_of("error"),
                "worst_log_spread": np.log(row_of("worst_high") / row_of("worst_low")),
                "final_log_spread": np.log(row_of("high") / row_of("low")),
                "early_peak": row_of("early_peak"),
                "late_peak": row_of("peak"),
                "mean_weight": row_of("start") + mean,
                "weight_variance": np.maximum(row_of("square") / window - mean**2, 0.0),
            },
            floored / floored.sum(axis=0),
        )

    def _general(
        self,
        log_norms: NDArray[np.float64],
        lost: NDArray[np.bool_],
        table: Table,
        goals: Goals | None,
        first_loop: int,
    ) -> Figures:
        steps, k = log_norms.shape
        lead, loops = first_loop % _LANES, len(table["beta"])
        rows = np.stack([table[name] for name in general.PARAMETERS])
        rows[0] = rows[0] ** table["interval"]
        if goals is None:
            aims, widths = np.zeros((k + 1, loops)), np.zeros((2, loops))
        else:
            aims, widths = np.concatenate([goals.weights, goals.spread[None]]), goals.bands
        packed = _pack(rows, lead, self._dtype)
        blocks = len(packed)
        single = np.empty((blocks, len(general.STATISTICS), _LANES), self._dtype)
        per_task = np.empty((blocks, len(general.TASK_STATISTICS), k, _LANES), self._dtype)
        general.run_blocks(
            np.ascontiguousarray(log_norms, dtype=self._dtype),
            np.ascontiguousarray(lost),
            bool(lost.any()),
            packed,
            _pack(aims, lead, self._dtype),
            _pack(widths, lead, self._dtype),
            self._delay,
            *self._codes,
            self._seed,
            _first_loops(first_loop - lead, blocks),
            bool(table["noise"].any()),
            bool(table["rho"].any()),
            goals is not None,
            steps // 2,
            3 * steps // 4,
            constants_of(k, self._dtype),
            single,
            per_task,
        )
        figures = dict(zip(general.STATISTICS, _unpack(single, lead, loops), strict=True))
        tasks = _unpack(per_task.reshape(blocks, -1, _LANES), lead, loops).reshape(-1, k, loops)
        of_tasks = dict(zip(general.TASK_STATISTICS, tasks, strict=True))
        mean = of_tasks["mean_weights"][0]
        figures["mean_weight"] = mean + 1.0 / k
        figures["weight_variance"] = np.maximum(of_tasks["square_weights"][0] - mean**2, 0.0)
        return Figures(figures, of_tasks["final_weights"])


def _first_loops(first: int, blocks: int) -> NDArray[np.int64]:
    return first + _LANES * np.arange(blocks, dtype=np.int64)


def _pack(rows: NDArray[np.float64], lead: int, dtype: Any) -> NDArray[Any]:
    """(rows, loops) into (blocks, rows, LANES), or (loops,) into (blocks, LANES).

    Unused lanes repeat the nearest loop.
    """
    loops = rows.shape[-1]
    blocks = -(-(lead + loops) // _LANES)
    sides = (lead, blocks * _LANES - lead - loops)
    if rows.ndim == 1:
        return np.pad(rows, sides, "edge").reshape(blocks, _LANES)
    wide = np.pad(rows, ((0, 0), sides), "edge").reshape(len(rows), blocks, _LANES)
    return np.ascontiguousarray(wide.transpose(1, 0, 2), dtype=dtype)


def _unpack(blocks: NDArray[Any], lead: int, loops: int) -> NDArray[np.float64]:
    """(blocks, rows, LANES) into (rows, loops), in float64."""
    flat = blocks.transpose(1, 0, 2).reshape(blocks.shape[1], -1)
    return np.asarray(flat[:, lead : lead + loops], dtype=np.float64)


def constants_of(n_tasks: int, dtype: Any) -> Any:
    """0, 1, infinity, smallest normal, 1/(K-1), 1/K, 1e-12 and K, in the type of a computation.

    (A bare literal would turn float32 arithmetic into float64.)

    Examples
    --------
    >>> constants_of(2, np.float64)[[4, 5]].tolist()
    [1.0, 0.5]
    """
    tiny = np.finfo(dtype).tiny
    return np.array(
        [0.0, 1.0, np.inf, tiny, 1.0 / (n_tasks - 1), 1.0 / n_tasks, 1e-12, n_tasks], dtype=dtype
    )
