"""The batch of loops in PyTorch, for a GPU: every loop is an element of a tensor.

The same steps as the compiled kernels, for every law, floor mode and guard, and the same random
numbers, because they are counted and not drawn. Elementary functions are PyTorch's, so that
figures agree with the compiled ones to rounding, not to the last bit. A step is about a hundred
launches whatever the number of loops: it pays from some hundred thousand loops on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gabactl.law.spec import FloorMode, Guard, Law
from gabactl.law.stages import follow, raw_weights, saturate, usable
from gabactl.loops.kernels.random import PHILOX, PHILOX_ROUNDS, WEYL
from gabactl.loops.kernels.runner import Figures, Goals, Table

__all__ = ["TorchRunner", "normals"]

_MASK = 0xFFFFFFFF


class TorchRunner:
    """What :class:`gabactl.loops.kernels.runner.Runner` does, on a device.

    Parameters
    ----------
    settings : tuple of str
        Law, floor mode and guard.
    delay, seed, first_loop, dtype
        As there.
    device : str
        Such as ``cpu``, ``cuda`` or ``cuda:1``.
    """

    def __init__(
        self,
        settings: tuple[Law, FloorMode, Guard],
        delay: int,
        seed: int,
        first_loop: int,
        dtype: str,
        device: str,
    ) -> None:
        self._law, self._floor_mode, self._guard = settings
        self._delay = delay
        self._seed = seed
        self._first = first_loop
        self._dtype = getattr(torch, dtype)
        self._device = torch.device(device)

    def run(
        self,
        log_norms: NDArray[np.float64],
        lost: NDArray[np.bool_],
        table: Table,
        goals: Goals | None = None,
    ) -> Figures:
        """All loops through all steps; see :meth:`gabactl.loops.kernels.runner.Runner.run`."""
        with torch.no_grad():
            return self._run(log_norms, lost, table, goals)

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(np.ascontiguousarray(values), dtype=self._dtype, device=self._device)

    def _run(
        self,
        log_norms: NDArray[np.float64],
        lost: NDArray[np.bool_],
        table: Table,
        goals: Goals | None,
    ) -> Figures:
        steps, k = log_norms.shape
        loops = len(table["beta"])
        s = {name: self._tensor(column) for name, column in table.items()}
        # The stages work along the last axis, tasks; here that is the first, beside the loops.
        pole = self._tensor(table["beta"] ** table["interval"])[:, None]
        floor = s["floor"][:, None]
        logs = self._tensor(log_norms)
        gone = torch.tensor(np.ascontiguousarray(lost), device=self._device)
        any_lost = [bool(row.any()) for row in lost]
        feedback = bool(table["rho"].any())
        noisy = bool(table["noise"].any())
        numbers = self._first + torch.arange(loops, dtype=torch.int64, device=self._device)

        def full(value: float, *shape: int) -> torch.Tensor:
            return torch.full((*shape, loops), value, dtype=self._dtype, device=self._device)

        ema, lag = full(1.0 / k, k), full(0.0, k)
        queue = [full(0.0, k) for _ in range(self._delay)]
        wait = s["warmup"].clone()
        worst, largest = full(math.inf), full(-math.inf)
        saturated, total, worst_spread = full(0.0), full(0.0), full(0.0)
        early_peak, late_peak = full(0.0), full(0.0)
        weights, spread = ema, full(0.0)
        start, sums, squares = full(1.0 / k), full(0.0), full(0.0)
        early, late = steps // 2, 3 * steps // 4
        outside_weights, outside_spread = full(-1.0), full(-1.0)
        if goals is not None:
            aim, aim_spread = self._tensor(goals.weights), self._tensor(goals.spread)
            band_weights, band_spread = self._tensor(goals.bands)
        for t in range(steps):
            level = s["amplitude"] * logs[t][:, None] - s["rho"] * lag
            norms = level.exp()
            reading = norms
            if noisy:
                draw = normals(self._seed, numbers, t, k).to(self._dtype)
                reading = (level + s["noise"] * draw).exp()
            if any_lost[t]:
                reading = reading.masked_fill(gone[t][:, None], math.nan)
            raw = raw_weights(reading.T, self._law, self._guard)
            due = wait <= 0
            wait = torch.where(due, s["interval"], wait) - 1
            moving = due
            if self._guard == "hold":
                moving = due & usable(reading.T, self._law)
            new = follow(ema.T, raw, pole, 1, floor, self._floor_mode).T
            ema = torch.where(moving, new, ema)
            started = s["warmup"] <= t
            values = saturate(ema.T, floor, self._floor_mode).T
            below = (ema < s["floor"]).any(dim=0)
            before, weights = weights, torch.where(started, values, 1.0 / k)
            contributions = weights * norms
            spread = contributions.amax(dim=0).log() - contributions.amin(dim=0).log()
            if goals is None:
                total += spread
                worst_spread = torch.fmax(worst_spread, spread)
                saturated += (started & below).to(self._dtype)
                worst = torch.fmin(worst, weights.amin(dim=0))
                largest = torch.fmax(largest, weights.amax(dim=0))
                if t >= early:
                    size = (weights - 1.0 / k).abs().amax(dim=0)
                    if t < late:
                        early_peak = torch.fmax(early_peak, size)
                    else:
                        late_peak = torch.fmax(late_peak, size)
                if t == late:
                    start = before[0]
                if t >= late:
                    sums += weights[0] - start
                    squares += (weights[0] - start) ** 2
            else:
                now = full(float(t))
                far = ((weights - aim).abs() > band_weights).any(dim=0)
                outside_weights = torch.where(far, now, outside_weights)
                far = (spread - aim_spread).abs() > band_spread
                outside_spread = torch.where(far, now, outside_spread)
            if feedback:
                tiny = torch.finfo(self._dtype).tiny
                logits = weights.clamp_min(tiny).log()
                told = logits - logits.mean(dim=0)
                if queue:
                    queue.append(told)
                    told = queue.pop(0)
                lag = s["a"] * lag + (1 - s["a"]) * told

        def back(values: torch.Tensor) -> NDArray[np.float64]:
            return values.to("cpu", torch.float64).numpy()

        if goals is not None:
            found = {
                "last_outside_weights": back(outside_weights),
                "last_outside_contributions": back(outside_spread),
            }
            return Figures(found, np.empty((k, 0)))
        window = max(steps - late, 1)
        mean = back(sums) / window
        return Figures(
            {
                "smallest_weight": back(worst),
                "largest_weight": back(largest),
                "saturated_steps": back(saturated),
                "active_steps": np.maximum(steps - table["warmup"], 0.0),
                "integrated_error": back(total),
                "worst_log_spread": back(worst_spread),
                "final_log_spread": back(spread),
                "early_peak": back(early_peak),
                "late_peak": back(late_peak),
                "mean_weight": back(start) + mean,
                "weight_variance": np.maximum(back(squares) / window - mean**2, 0.0),
            },
            back(weights),
        )


def normals(seed: int, loops: torch.Tensor, step: int, n_tasks: int) -> torch.Tensor:
    """The numbers of :func:`gabactl.loops.kernels.random.normals` at one step, shape (K, loops).

    Parameters
    ----------
    seed : int in [0, 2^63)
        Of the simulation.
    loops : tensor of int64, shape (loops,)
        Numbers of the loops, on the device of the result.
    step, n_tasks : int
        Which step, and how many tasks.

    Examples
    --------
    >>> from gabactl.loops.kernels.random import normals as compiled
    >>> z = normals(3, torch.arange(2), 1, 3)
    >>> np.abs(z[:, 1].numpy() - compiled(3, 1, 2, 3)[1]).max() < 1e-14
    np.True_
    """
    groups = (n_tasks + 3) // 4
    words = (
        torch.full_like(loops, step).expand(groups, -1),
        torch.arange(groups, dtype=torch.int64, device=loops.device)[:, None],
        loops & _MASK,
        loops >> 32,
    )
    c0, c1, c2, c3 = words
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for n in range(PHILOX_ROUNDS):
        # The product wraps at 2^64; its two halves are right all the same.
        p0, p1 = c0 * PHILOX[0], c2 * PHILOX[1]
        key0, key1 = (k0 + n * WEYL[0]) & _MASK, (k1 + n * WEYL[1]) & _MASK
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ key0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ key1,
            p0 & _MASK,
        )
    pairs = []
    for radius_word, angle_word in ((c0, c1), (c2, c3)):
        uniform = (radius_word.to(torch.float64) + 0.5) * 2.0**-32
        radius = (-2 * uniform.log()).sqrt()
        # Less than half a turn either way, where the angle is held most closely.
        turn = torch.where(angle_word >= 2**31, angle_word - 2**32, angle_word)
        angle = turn.to(torch.float64) * (2 * math.pi / 2**32)
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs, dim=1).reshape(4 * groups, -1)[:n_tasks]
