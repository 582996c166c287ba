"""The dashboard: the loop in the browser, with sliders, on a recorded run or one's own.

Examples
--------
In a notebook, or for ``panel serve``:

>>> from gabactl.app import dashboard  # doctest: +SKIP
>>> dashboard("run.parquet").servable()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

from gabactl.base.errors import packages_for

__all__ = ["dashboard", "serve"]

_HOMES = {"dashboard": "gabactl.app.page", "serve": "gabactl.app.server"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with packages_for(f"{__name__}.{name}"):
            return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
