"""Plants from their one-line descriptions, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from gabactl.base.errors import InputError
from gabactl.plants.bowls import QuadraticBowls
from gabactl.plants.log_ratio import LogRatio

__all__ = ["parse_plant"]

_KINDS: dict[str, tuple[str, ...]] = {
    "log-ratio": ("rho", "a", "delay", "n_tasks"),
    "bowls": ("curvatures", "minimisers", "noise", "step_size", "start_at"),
}
_INTEGERS = {"delay", "n_tasks"}
_LISTS = {"curvatures", "minimisers", "start_at"}


def parse_plant(text: str) -> LogRatio | QuadraticBowls:
    """A plant from its one-line description, as the command line takes it.

    Parameters
    ----------
    text : str
        ``log-ratio:rho=0.5,a=0.9,delay=1``, ``bowls:curvatures=500/1,minimisers=0/1,noise=0.1``
        (lists with slashes).

    Raises
    ------
    InputError
        Unknown kind or key, a value that is no number, or one out of range.

    Examples
    --------
    >>> parse_plant("log-ratio:rho=0.5,a=0.9,delay=1")
    LogRatio(rho=0.5, a=0.9, delay=1, n_tasks=2)
    >>> parse_plant("log-ratio:gain=2")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: plant log-ratio: unknown setting 'gain': choose from rho, a, delay, n_tasks
    """
    kind, _, rest = text.partition(":")
    kind = kind.strip()
    if kind not in _KINDS:
        raise InputError(
            f"plant {kind!r} is unknown: choose from {', '.join(_KINDS)}, "
            "such as log-ratio:rho=0.5,a=0.9,delay=1"
        )
    settings: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise InputError(f"plant {kind}: {item!r} is not of the form key=value")
        if key not in _KINDS[kind]:
            raise InputError(
                f"plant {kind}: unknown setting {key!r}: choose from {', '.join(_KINDS[kind])}"
            )
        if key in settings:
            raise InputError(f"plant {kind}: {key} is given twice: give it once")
        settings[key] = _parse_value(kind, key, value)
    required = ("rho",) if kind == "log-ratio" else ("curvatures", "minimisers")
    missing = [key for key in required if key not in settings]
    if missing:
        raise InputError(f"plant {kind}: {missing[0]} is missing: add {missing[0]}=...")
    return LogRatio(**settings) if kind == "log-ratio" else QuadraticBowls(**settings)


def describe_plant(plant: Any) -> str:
    """The one-line description of a plant, which :func:`parse_plant` reads back where it can.

    Parameters
    ----------
    plant : LogRatio, QuadraticBowls, or any other plant
        Bowls of several parameters a task, and plants of other kinds, are named and no more.

    Examples
    --------
    >>> describe_plant(LogRatio(0.5, 0.9, 1))
    'log-ratio:rho=0.5,a=0.9,delay=1'
    >>> describe_plant(QuadraticBowls((500, 1), (0, 1), noise=0.1))
    'bowls:curvatures=500/1,minimisers=0/1,noise=0.1,step_size=0.001'
    """
    kind = {LogRatio: "log-ratio", QuadraticBowls: "bowls"}.get(type(plant))
    if kind is None:
        return type(plant).__name__
    words = []
    for key in _KINDS[kind]:
        value = getattr(plant, key)
        if value is None or (key == "n_tasks" and value == 2):
            continue
        if np.ndim(value) > 1:
            return f"{kind} of {plant.n_tasks} tasks"
        items = value if np.ndim(value) else [value]
        words.append(f"{key}=" + "/".join(str(item) for item in items))
    return f"{kind}:{','.join(words)}"


def _parse_value(kind: str, key: str, text: str) -> Any:
    try:
        if key in _INTEGERS:
            return int(text)
        if key in _LISTS:
            return tuple(float(part) for part in text.split("/"))
        if key == "noise" and "/" in text:
            return tuple(float(part) for part in text.split("/"))
        return float(text)
    except ValueError:
        wanted = "a whole number" if key in _INTEGERS else "a number"
        raise InputError(f"plant {kind}: {key} = {text!r} is not {wanted}") from None
