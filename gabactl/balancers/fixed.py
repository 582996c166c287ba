"""Fixed weights: the balancer that does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gabactl.balancers.base import Array, Balancer, Reading
from gabactl.base.errors import InputError


class Fixed(Balancer):
    """The same weights at every step.

    Parameters
    ----------
    weights : sequence of K numbers, optional
        Weights, used as they are; default 1/K each.
    n_tasks : int, optional
        Number of tasks K; default the number of weights, or 2.

    Raises
    ------
    InputError
        Not one finite number >= 0 per task.

    Examples
    --------
    >>> Fixed([0.3, 0.7]).step([250.0, 0.5]).tolist()
    [0.3, 0.7]
    """

    name = "fixed"

    def __init__(self, weights: Sequence[float] | None = None, n_tasks: int | None = None) -> None:
        k = n_tasks if n_tasks is not None else 2 if weights is None else len(weights)
        values = np.full(k, 1.0 / k) if weights is None else np.asarray(weights, dtype=float)
        if values.shape != (k,) or not np.isfinite(values).all() or (values < 0).any():
            raise InputError(
                f"fixed: weights = {weights!r} are not {k} finite numbers >= 0: give one per task"
            )
        self.weights = values
        super().__init__(k)

    def reset(self) -> None:
        """Nothing to forget."""

    def run(self, grad_norms: ArrayLike, losses: ArrayLike | None = None) -> Array:
        """Weights of a whole record: as :meth:`step` row by row.

        Parameters
        ----------
        grad_norms : array, shape (steps, K)
            Gradient norms, of which only the number of rows counts.
        losses : array, shape (steps, K), optional
            Not used.

        Returns
        -------
        array, shape (steps, K)
            The same weights in every row; not to be written into.

        Examples
        --------
        >>> Fixed([0.3, 0.7]).run([[250.0, 0.5]] * 2).tolist()
        [[0.3, 0.7], [0.3, 0.7]]
        """
        return np.broadcast_to(self.weights, (len(np.asarray(grad_norms)), self.n_tasks))

    def settings(self) -> Mapping[str, Any]:
        """The weights."""
        return {"weights": self.weights.tolist()}

    def _step(self, grad_norms: Reading, losses: Reading) -> Array:
        return self.weights.copy()
