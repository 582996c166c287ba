"""GABA: every law, floor mode and guard of :class:`gabactl.GabaSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.balancers.base import Balancer
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec


class Gaba(Balancer):
    """Weights from the shares of the gradient norms, smoothed and floored.

    Parameters
    ----------
    spec : GabaSpec, optional
        The settings; or give single ones as keywords.
    **settings
        Fields of :class:`gabactl.GabaSpec`, applied on top of ``spec``.

    Notes
    -----
    Source: "Gradient-Aware Multi-Task Learning for Predictive Maintenance", section 17.2. The
    state is that of :class:`gabactl.Controller`, in :attr:`controller`.

    Examples
    --------
    >>> Gaba(warmup=0, beta=0.0).step([3.0, 1.0]).tolist()
    [0.25, 0.75]
    """

    name = "gaba"

    def __init__(self, spec: GabaSpec | None = None, **settings: Any) -> None:
        base = GabaSpec() if spec is None else spec
        self.spec = base.replace(**settings) if settings else base
        self.controller = Controller(self.spec)
        super().__init__(self.spec.n_tasks)

    def reset(self) -> None:
        """Back to step 0 and weights 1/K."""
        self.controller.reset()

    def settings(self) -> Mapping[str, Any]:
        """The fields of the spec."""
        return self.spec.to_dict()

    def _step(
        self, grad_norms: NDArray[np.float64] | None, losses: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        return self.controller.observe(grad_norms)
