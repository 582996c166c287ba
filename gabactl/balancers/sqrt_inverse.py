"""Inverse square root of the norms: half of the balancing, without a memory."""

from __future__ import annotations

import numpy as np

from gabactl.balancers.base import Array, Balancer, Reading


class SqrtInverse(Balancer):
    """w_i proportional to g_i^(-1/2), on the simplex.

    Leaves the square root of the imbalance: at g = (5, 0.01) contributions 22.36 : 1. A reading
    that is missing, not finite or 0 keeps the last weights.

    Parameters
    ----------
    n_tasks : int, at least 2
        Number of tasks K.

    Notes
    -----
    Source: "Gradient-Aware Multi-Task Learning for Predictive Maintenance", section 18.1, where
    it is the scheme between uniform weights and GABA.

    Examples
    --------
    >>> SqrtInverse().step([5.0, 0.01]).round(4).tolist()
    [0.0428, 0.9572]
    """

    name = "sqrt_inverse"

    def reset(self) -> None:
        """Back to weights 1/K."""
        self._weights = np.full(self.n_tasks, 1.0 / self.n_tasks)

    def _step(self, grad_norms: Reading, losses: Reading) -> Array:
        if grad_norms is not None and (np.isfinite(grad_norms) & (grad_norms > 0)).all():
            inverse = np.sqrt(grad_norms.min() / grad_norms)
            self._weights = inverse / inverse.sum()
        return self._weights.copy()
