"""Dynamic weight average: the slower a loss falls, the more weight."""

from __future__ import annotations

import numpy as np

from gabactl.balancers.base import Array, Balancer, Reading, number
from gabactl.base.errors import InputError


class Dwa(Balancer):
    """w_i = K softmax(r_i / T), with r_i the ratio of the mean losses of the last two epochs.

    Parameters
    ----------
    temperature : float, positive
        T; a large one makes the weights uniform.
    epoch_steps : int, at least 1
        Optimisation steps per epoch.
    n_tasks : int, at least 2
        Number of tasks K.

    Raises
    ------
    InputError
        A value out of its range.

    Notes
    -----
    Source: Liu, Johns and Davison, "End-to-end multi-task learning with attention", CVPR 2019,
    equation 7. The weights sum to K; they are 1 during the first two epochs.

    Examples
    --------
    >>> balancer = Dwa(epoch_steps=1)
    >>> for losses in ([4.0, 1.0], [2.0, 1.0], [1.0, 1.0]):
    ...     weights = balancer.step(None, losses)
    >>> weights.round(4).tolist()
    [0.8756, 1.1244]
    """

    name = "dwa"
    needs_losses = True

    def __init__(self, temperature: float = 2.0, epoch_steps: int = 100, n_tasks: int = 2) -> None:
        self.temperature = number("dwa", "temperature", temperature, zero=False)
        if isinstance(epoch_steps, bool) or not isinstance(epoch_steps, int) or epoch_steps < 1:
            raise InputError(f"dwa: epoch_steps = {epoch_steps!r} is not a whole number >= 1")
        self.epoch_steps = epoch_steps
        super().__init__(n_tasks)

    def reset(self) -> None:
        """Back to the first step of the first epoch."""
        self._sum = np.zeros(self.n_tasks)
        self._count = 0
        self._means: list[Array] = []

    def _step(self, grad_norms: Reading, losses: Reading) -> Array:
        assert losses is not None
        weights = np.ones(self.n_tasks)
        if len(self._means) == 2:
            logits = self._means[1] / self._means[0] / self.temperature
            exponentials = np.exp(logits - logits.max())
            weights = self.n_tasks * exponentials / exponentials.sum()
        self._sum = self._sum + losses
        self._count += 1
        if self._count == self.epoch_steps:
            self._means = [*self._means, self._sum / self._count][-2:]
            self._sum, self._count = np.zeros(self.n_tasks), 0
        return weights
