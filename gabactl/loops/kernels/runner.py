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

from gabactl.loops.kernels import batch as general
from gabactl.loops.kernels.bounded import run_bounded
from gabactl.loops.kernels.controller import COMPLEMENT, HOLD, RENORMALISE
from gabactl.loops.kernels.random import LARGEST_NORMAL
from gabactl.loops.kernels.rows import LIMITS, MAX_TASKS, OUTPUTS, initial_rows, layout, row_names

__all__ = ["FIGURES", "SETTLING_FIGURES", "Figures", "Goals", "Runner", "constants_of"]

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

#: Blocks that are in memory at a time, per thread.
_PIECE = 128

#: Log norms beyond this may overflow, or become subnormal.
_RANGE = {"float64": 700.0, "float32": 80.0}

_LANES = general.LANES

#: Kind of the loops that take the general kernel.
_GENERAL = 4

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
        kinds = self._kinds(log_norms, table)
        # Pieces begin on multiples of LANES of the loop's number, so that a loop keeps its lane in
        # the general kernel.
        lead = self._first % _LANES
        blocks = -(-(lead + loops) // _LANES)
        size = min(_PIECE, -(-blocks // self._threads)) * _LANES
        cuts = [0, *range(size - lead, loops, size), loops]
        names = FIGURES if goals is None else SETTLING_FIGURES
        single = {name: np.empty(loops) for name in names}
        final = np.empty((log_norms.shape[1], loops if goals is None else 0))

        def work(start: int, stop: int) -> None:
            here = kinds[start:stop]
            for kind in np.flatnonzero(np.bincount(here)):
                mine = here == kind
                # A slice takes no copy. The general kernel takes a whole piece, so that every loop
                # keeps its lane; what it makes of the others is not looked at.
                chosen: Any = slice(start, stop) if mine.all() else start + np.flatnonzero(mine)
                taken = slice(start, stop) if kind == _GENERAL else chosen
                rows = {name: column[taken] for name, column in table.items()}
                aims = None if goals is None else goals.of(taken)
                with np.errstate(all="ignore"):
                    if kind == _GENERAL:
                        found = self._general(log_norms, lost, rows, aims, self._first + start)
                        kept: Any = mine
                    else:
                        numbers = self._first + np.arange(start, stop)[mine]
                        found = self._bounded(log_norms, lost, rows, aims, numbers)
                        kept = slice(None)
                for name in names:
                    single[name][chosen] = found.single[name][kept]
                if goals is None:
                    final[:, chosen] = found.final_weights[:, kept]

        if self._threads == 1:
            for start, stop in pairwise(cuts):
                work(start, stop)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(work, cuts[:-1], cuts[1:]))
        return Figures(single, final)

    def _kinds(self, log_norms: NDArray[np.float64], table: Table) -> NDArray[np.int8]:
        """Which kernel each loop takes, by its own settings alone."""
        kinds = (table["rho"] != 0) + np.int8(2) * (table["noise"] > 0)
        kinds[~self.bounded_loops(log_norms, table)] = _GENERAL
        return kinds

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
            k > MAX_TASKS
            or self._codes != (COMPLEMENT, RENORMALISE, HOLD)
            or not np.isfinite(log_norms).all()
        ):
            return np.zeros(loops, dtype=bool)
        spread = float((log_norms.max(axis=1) - log_norms.min(axis=1)).max())
        size = float(np.abs(log_norms).max())
        contribution, reading, _ = LIMITS[self._dtype.name]
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
        numbers: NDArray[np.int64],
    ) -> Figures:
        """Loops all of which have feedback or none of them, and the same for noise."""
        steps, k = log_norms.shape
        loops = len(numbers)
        feedback, noisy = bool(table["rho"][0] != 0), bool(table["noise"][0] > 0)
        interval, a = table["interval"], table["a"]
        pole = table["beta"] if (interval == 1).all() else table["beta"] ** interval
        settings = {
            "pole": pole,
            "gain": (1 - pole) / (k - 1),
            "response": table["rho"] * (a - 1),
            "noise": table["noise"] / _LN2,
            "next": table["warmup"],
            **{name: table[name] for name in ("floor", "interval", "a", "amplitude")},
        }
        if goals is not None:
            edges = goals.spread + goals.bands[1], goals.spread - goals.bands[1]
            above, below = (x / _LN2 if feedback else np.exp(x) for x in edges)
            settings |= {
                "spread_above": above,
                "spread_below": below,
                **{f"weight_above {i}": goals.weights[i] + goals.bands[0] for i in range(k)},
                **{f"weight_below {i}": goals.weights[i] - goals.bands[0] for i in range(k)},
            }
        rows = {name: n for n, name in enumerate(row_names(k))}
        wanted = [*OUTPUTS, *(f"ema {i}" for i in range(k))]
        out = np.empty((len(wanted), loops), dtype=self._dtype)
        run_bounded(
            layout(k, feedback, feedback and self._delay > 0, noisy, goals is not None),
            np.ascontiguousarray((log_norms[:, :-1] - log_norms[:, -1:]) / _LN2, self._dtype),
            lost.any(axis=1),
            np.array([rows[name] for name in settings]),
            np.stack(list(settings.values())).astype(self._dtype, copy=False),
            np.array(initial_rows(k), dtype=self._dtype),
            numbers,
            self._delay,
            self._seed,
            LIMITS[self._dtype.name][2],
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
        floored = np.maximum(out[-k:].astype(np.float64, copy=False), table["floor"])
        window = max(steps - 3 * steps // 4, 1)
        mean = found["sum"] / window
        return Figures(
            {
                "smallest_weight": found["worst_before"],
                "largest_weight": found["largest_before"],
                "saturated_steps": found["saturated"],
                "active_steps": np.maximum(steps - table["warmup"], 0.0),
                "integrated_error": found["error"] * _LN2,
                "worst_log_spread": found["worst_spread"] * _LN2,
                "final_log_spread": found["spread"] * _LN2,
                "early_peak": found["early_peak"],
                "late_peak": found["late_peak"],
                "mean_weight": found["start"] + mean,
                "weight_variance": np.maximum(found["square"] / window - mean**2, 0.0),
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
