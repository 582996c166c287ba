"""gabactl: loss balancing as feedback control.

GABA weighs the losses of a multi-task training from per-task gradient norms. This package treats
it as what it is, a feedback controller: it analyses the loop, proves what the weights guarantee,
fuzzes the guarantees, compares it with its peers and checks every model on recorded training.

Examples
--------
>>> import gabactl
>>> controller = gabactl.Controller(gabactl.GabaSpec(warmup=0))
>>> total, weights = controller.step(losses=[5000.0, 1.1], grad_norms=[250.0, 0.5])
>>> weights.round(6).tolist()
[0.49502, 0.50498]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gabactl.base.version import __version__

#: Public names and the module each is loaded from, on first use.
_LAZY = {
    "Controller": "gabactl.law.controller",
    "GabaSpec": "gabactl.law.spec",
    "InputError": "gabactl.base.errors",
}

__all__ = ["Controller", "GabaSpec", "InputError", "__version__"]

if TYPE_CHECKING:
    from gabactl.base.errors import InputError
    from gabactl.law.controller import Controller
    from gabactl.law.spec import GabaSpec


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gabactl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
