"""GABA against a log-ratio plant as a compiled loop, with every signal kept."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio

Array = NDArray[np.float64]


class Signals(NamedTuple):
    """Signals of some steps.

    Attributes
    ----------
    grad_norms : array, shape (steps, K)
        Gradient norms, before noise.
    readings : array, shape (steps, K)
        What the controller reads: the norms with noise; NaN where the sensor fails.
    raw, ema, weights : array, shape (steps, K)
        The three stages.
    """

    grad_norms: Array
    readings: Array
    raw: Array
    ema: Array
    weights: Array


class CompiledLoop:
    """GABA against a log-ratio plant, compiled, in pieces as long as one likes.

    Parameters
    ----------
    spec : GabaSpec
        The controller.
    plant : LogRatio, optional
        What answers; default nothing does.
    noise : float
        Standard deviation of the noise on each log reading.
    seed, loop : int
        Of the noise; ``loop`` is the number the loop has in a batch.

    Examples
    --------
    >>> loop = CompiledLoop(GabaSpec(warmup=0, beta=0))
    >>> signals = loop.advance(np.log([[3.0, 1.0]]), np.zeros((1, 2), bool))
    >>> signals.weights.round(6).tolist()
    [[0.25, 0.75]]
    """

    def __init__(
        self,
        spec: GabaSpec,
        plant: LogRatio | None = None,
        noise: float = 0.0,
        seed: int = 0,
        loop: int = 0,
    ) -> None:
        from gabactl.loops.kernels.controller import codes

        k = spec.n_tasks
        self._feedback = (
            (0.0, 0.0, 0) if plant is None else (float(plant.rho), float(plant.a), int(plant.delay))
        )
        self._noise = (float(noise), int(seed), int(loop))
        self._codes = codes(spec)
        # Lists: filling an array of a few numbers takes NumPy several times as long.
        self._state = np.array([1.0 / k] * k)
        self._lag = np.zeros(k)
        self._past = np.array([math.nan] * 6)
        self._queue = np.zeros((max(self._feedback[2], 1), k))
        self.steps = 0

    def advance(self, log_norms: Array, lost: NDArray[np.bool_]) -> Signals:
        """The next steps.

        Parameters
        ----------
        log_norms, lost : arrays, shape (steps, K)
            Disturbance and sensor failures of these steps.
        """
        from gabactl.loops.kernels.controller import COMPLEMENT, HOLD, RENORMALISE
        from gabactl.loops.kernels.loop import run_loop, run_pair

        rho, a, delay = self._feedback
        code = self._codes
        if (
            log_norms.shape[1] == 2
            and (code.law, code.floor_mode, code.guard) == (COMPLEMENT, RENORMALISE, HOLD)
            and code.floor >= 1e-300
            and self._noise[0] == 0
            and delay == 0
            and not lost.any()
        ):
            # In one piece: the allocator keeps its memory, where it gives four parts back each time
            # and has them cleared anew.
            grad_norms, raw, ema, weights = np.empty((4, *log_norms.shape))
            run_pair(
                np.ascontiguousarray(log_norms),
                *code[:4],
                rho,
                a,
                self.steps,
                self._state,
                self._lag,
                self._past,
                grad_norms,
                raw,
                ema,
                weights,
            )
            self.steps += len(log_norms)
            return Signals(grad_norms, grad_norms, raw, ema, weights)
        self._past[:] = np.nan  # The other loop foresees nothing.
        outputs = tuple(np.empty(log_norms.shape) for _ in range(5))
        run_loop(
            np.ascontiguousarray(log_norms),
            np.ascontiguousarray(lost),
            *self._noise,
            *self._codes,
            *self._feedback,
            self.steps,
            self._state,
            self._lag,
            self._queue,
            *outputs,
        )
        self.steps += len(log_norms)
        return Signals(*outputs)
