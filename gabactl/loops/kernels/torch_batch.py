"""The batch of loops in PyTorch, for a GPU: every loop is an element of a tensor.

The same steps as the compiled kernels, for every law, floor mode and guard, and the same random
numbers, because they are counted and not drawn. Elementary functions are PyTorch's, so that
figures agree with the compiled ones to rounding, not to the last bit. A step is about a hundred
launches whatever the number of loops: it pays from some hundred thousand loops on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gabactl.law.floors import FloorMode
from gabactl.law.laws import Guard, Law
from gabactl.law.stages import follow, raw_weights, saturate, usable
from gabactl.loops.kernels.random import PHILOX_ROUNDS, WEYL, philox_round
from gabactl.loops.kernels.runner import SETTLING_FIGURES, Figures, Goals, Table, figures

_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
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

    settings: tuple[Law, FloorMode, Guard]
    delay: int
    seed: int
    first_loop: int
    dtype: str
    device: str

    @torch.no_grad()
    def run(
        self,
        log_norms: NDArray[np.float64],
        lost: NDArray[np.bool_],
        table: Table,
        goals: Goals | None = None,
    ) -> Figures:
        """All loops through all steps; see :meth:`gabactl.loops.kernels.runner.Runner.run`."""
        law, floor_mode, guard = self.settings
        steps, k, dtype = *log_norms.shape, getattr(torch, self.dtype)
        loops = len(table["beta"])
        s = {name: self._tensor(column) for name, column in table.items()}
        # The stages work along the last axis, tasks; here that is the first, beside the loops.
        pole = self._tensor(table["beta"] ** table["interval"])[:, None]
        floor = s["floor"][:, None]
        logs = self._tensor(log_norms)
        gone = torch.tensor(np.ascontiguousarray(lost), device=self.device)
        any_lost = [bool(row.any()) for row in lost]
        feedback = bool(table["rho"].any())
        noisy = bool(table["noise"].any())
        numbers = self.first_loop + torch.arange(loops, dtype=torch.int64, device=self.device)

        def full(value: float, *shape: int) -> torch.Tensor:
            return torch.full((*shape, loops), value, dtype=dtype, device=self.device)

        ema, lag = full(1.0 / k, k), full(0.0, k)
        queue = [full(0.0, k) for _ in range(self.delay)]
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
                draw = normals(self.seed, numbers, t, k).to(dtype)
                reading = (level + s["noise"] * draw).exp()
            if any_lost[t]:
                reading = reading.masked_fill(gone[t][:, None], math.nan)
            raw = raw_weights(reading.T, law, guard)
            due = wait <= 0
            wait = torch.where(due, s["interval"], wait) - 1
            moving = due
            if guard == "hold":
                moving = due & usable(reading.T, law)
            new = follow(ema.T, raw, pole, 1, floor, floor_mode).T
            ema = torch.where(moving, new, ema)
            started = s["warmup"] <= t
            values = saturate(ema.T, floor, floor_mode).T
            below = (ema < s["floor"]).any(dim=0)
            before, weights = weights, torch.where(started, values, 1.0 / k)
            contributions = weights * norms
            spread = contributions.amax(dim=0).log() - contributions.amin(dim=0).log()
            if goals is None:
                total += spread
                worst_spread = torch.fmax(worst_spread, spread)
                saturated += (started & below).to(dtype)
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
                tiny = torch.finfo(dtype).tiny
                logits = weights.clamp_min(tiny).log()
                told = logits - logits.mean(dim=0)
                if queue:
                    queue.append(told)
                    told = queue.pop(0)
                lag = s["a"] * lag + (1 - s["a"]) * told

        def back(values: torch.Tensor) -> NDArray[np.float64]:
            return values.to("cpu", torch.float64).numpy()

        if goals is not None:
            outside = (back(outside_weights), back(outside_spread))
            return Figures(dict(zip(SETTLING_FIGURES, outside, strict=True)), np.empty((k, 0)))
        measured = {
            "smallest_weight": worst,
            "largest_weight": largest,
            "saturated_steps": saturated,
            "integrated_error": total,
            "worst_log_spread": worst_spread,
            "final_log_spread": spread,
            "early_peak": early_peak,
            "late_peak": late_peak,
            "start": start,
            "sum": sums,
            "square": squares,
        }
        found = {name: back(values) for name, values in measured.items()}
        return Figures(figures(found, steps, table["warmup"]), back(weights))

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(
            np.ascontiguousarray(values), dtype=getattr(torch, self.dtype), device=self.device
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
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for n in range(PHILOX_ROUNDS):
        words = philox_round(*words, (k0 + n * WEYL[0]) & _MASK, (k1 + n * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = words
    pairs = []
    for radius_word, angle_word in ((c0, c1), (c2, c3)):
        uniform = (radius_word.to(torch.float64) + 0.5) * 2.0**-32
        radius = (-2 * uniform.log()).sqrt()
        # Less than half a turn either way, where the angle is held most closely.
        turn = torch.where(angle_word >= 2**31, angle_word - 2**32, angle_word)
        angle = turn.to(torch.float64) * (2 * math.pi / 2**32)
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs, dim=1).reshape(4 * groups, -1)[:n_tasks]
