"""Uncertainty weighting: one learnt log-variance per task."""

from __future__ import annotations

import numpy as np

from gabactl.balancers.base import Array, Balancer, Reading, number


class Uncertainty(Balancer):
    """w_i = exp(-s_i)/2, with s_i descending the loss sum_i (exp(-s_i) L_i + s_i)/2.

    The equilibrium is s_i = ln L_i, that is w_i = 1/(2 L_i): it equalises the weighted losses
    and never looks at a gradient.

    Parameters
    ----------
    lr : float, positive
        Step size of the log-variances (plain gradient descent).
    n_tasks : int, at least 2
        Number of tasks K.

    Notes
    -----
    Source: Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses for
    scene geometry and semantics", CVPR 2018, in the log-variance form. The weights start at 1/2
    and are not on the simplex.

    Examples
    --------
    >>> balancer = Uncertainty(lr=0.1)
    >>> for _ in range(500):
    ...     weights = balancer.step(None, losses=[4.0, 0.5])
    >>> weights.round(6).tolist()
    [0.125, 1.0]
    """

    name = "uncertainty"
    needs_losses = True

    def __init__(self, lr: float = 0.025, n_tasks: int = 2) -> None:
        self.lr = number("uncertainty", "lr", lr, zero=False)
        super().__init__(n_tasks)

    def reset(self) -> None:
        """Back to log-variances 0."""
        self.log_variances = np.zeros(self.n_tasks)

    def _step(self, grad_norms: Reading, losses: Reading) -> Array:
        assert losses is not None
        with np.errstate(over="ignore"):
            applied = 0.5 * np.exp(-self.log_variances)
            self.log_variances = self.log_variances - self.lr * (0.5 - applied * losses)
        return applied
