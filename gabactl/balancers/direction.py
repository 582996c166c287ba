"""Methods that act on gradient directions (PCGrad, CAGrad, ...), through torchjd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gabactl.balancers.base import Array, Balancer, Reading
from gabactl.base.errors import InputError, packages_for

#: Name here, weighting in torchjd, and the arguments it cannot do without.
DIRECTION_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "aligned_mtl": ("AlignedMTLWeighting", {}),
    "cagrad": ("CAGradWeighting", {"c": 0.5}),
    "dualproj": ("DualProjWeighting", {}),
    "imtl_g": ("IMTLGWeighting", {}),
    "mgda": ("MGDAWeighting", {}),
    "pcgrad": ("PCGradWeighting", {}),
    "upgrad": ("UPGradWeighting", {}),
}


class Direction(Balancer):
    """A torchjd weighting of the Gramian of the task gradients.

    Its reading is the gradients themselves, shape (K, n): it runs on plants that have vectors
    (:class:`gabactl.plants.QuadraticBowls`), not on recorded norms.

    Parameters
    ----------
    method : str
        One of ``DIRECTION_METHODS``.
    n_tasks : int, at least 2
        Number of tasks K.
    seed : int
        Of the methods that draw random orders (PCGrad).
    **arguments
        Of the torchjd weighting.

    Raises
    ------
    InputError
        An unknown method, or an argument that it does not take.
    MissingPackage
        torchjd is not installed.

    Notes
    -----
    The methods are torchjd's (``pip install 'gabactl[peers]'``); its documentation names the
    papers. The weights are those of the task gradients, not on the simplex in general.

    Examples
    --------
    >>> import pytest; _ = pytest.importorskip("torchjd")
    >>> Direction("pcgrad").step([[1.0, 0.0], [-1.0, 1.0]]).tolist()
    [2.0, 1.5]
    """

    name = "direction"
    needs_gradients = True

    def __init__(self, method: str, n_tasks: int = 2, seed: int = 0, **arguments: Any) -> None:
        if method not in DIRECTION_METHODS:
            raise InputError(
                f"direction method {method!r} is unknown: choose from {', '.join(DIRECTION_METHODS)}"
            )
        self.method, self.seed = method, seed
        self.arguments = {**DIRECTION_METHODS[method][1], **arguments}
        super().__init__(n_tasks)

    def reset(self) -> None:
        """A new weighting and the seed again.

        Raises
        ------
        InputError
            The method does not take the arguments, or needs a package that is not installed.
        """
        with packages_for(self.method):
            from torchjd import aggregation  # first: its extra brings torch too
        import torch

        try:
            self._weighting = getattr(aggregation, DIRECTION_METHODS[self.method][0])(
                **self.arguments
            )
        except ImportError as error:
            raise InputError(f"{self.method}: {error}") from None
        except TypeError as error:
            raise InputError(f"{self.method}: {error}: leave the argument out") from None
        self._generator_state = torch.Generator().manual_seed(self.seed).get_state()

    def settings(self) -> Mapping[str, Any]:
        """Method, tasks, seed, arguments."""
        return {
            "method": self.method,
            "n_tasks": self.n_tasks,
            "seed": self.seed,
            **self.arguments,
        }

    def _step(self, grad_norms: Reading, losses: Reading) -> Array:
        import torch

        if grad_norms is None:
            return np.full(self.n_tasks, 1.0 / self.n_tasks)
        gradients = torch.from_numpy(np.ascontiguousarray(grad_norms))
        # torchjd draws from the global generator: ours is put in its place for the call.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.random.set_rng_state(self._generator_state)
            weights = self._weighting(gradients @ gradients.T)
            self._generator_state = torch.random.get_rng_state()
        return np.asarray(weights.numpy(), dtype=np.float64)
