"""Balancers as state machines: ``step(grad_norms, losses) -> weights``.

GABA and its peers behind one interface, so that a simulation, a comparison or a fuzzer can drive
any of them. :func:`make_balancer` builds one from its name and settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from gabactl.balancers.base import Balancer
from gabactl.balancers.direction import DIRECTION_METHODS, Direction
from gabactl.balancers.dwa import Dwa
from gabactl.balancers.fixed import Fixed
from gabactl.balancers.gaba import Gaba
from gabactl.balancers.gradnorm import GradNorm
from gabactl.balancers.sqrt_inverse import SqrtInverse
from gabactl.balancers.uncertainty import Uncertainty
from gabactl.balancers.user import UserBalancer, load_user
from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec

__all__ = [
    "DIRECTION_METHODS",
    "Balancer",
    "Direction",
    "Dwa",
    "Fixed",
    "Gaba",
    "GradNorm",
    "SqrtInverse",
    "Uncertainty",
    "UserBalancer",
    "balancer_names",
    "load_user",
    "make_balancer",
]

_CLASSES: dict[str, type[Balancer]] = {
    cls.name: cls for cls in (Gaba, Fixed, SqrtInverse, GradNorm, Uncertainty, Dwa)
}


def balancer_names() -> tuple[str, ...]:
    """Names :func:`make_balancer` knows; those acting on directions need ``gabactl[peers]``.

    Returns
    -------
    tuple of str
        Those that act on norms first.

    Examples
    --------
    >>> balancer_names()[:3]
    ('gaba', 'fixed', 'sqrt_inverse')
    """
    return (*_CLASSES, *DIRECTION_METHODS)


def make_balancer(
    name: str, n_tasks: int = 2, settings: Mapping[str, Any] | None = None
) -> Balancer:
    """A balancer from its name, or from ``package.module:factory`` (which runs that code).

    Parameters
    ----------
    name : str
        One of :func:`balancer_names`, or a user's own.
    n_tasks : int
        Number of tasks K.
    settings : mapping, optional
        Its arguments.

    Raises
    ------
    InputError
        Unknown name or setting, or a value out of range.

    Examples
    --------
    >>> make_balancer("gaba", 3, {"beta": 0.9}).spec.beta
    0.9
    """
    given = dict(settings or {})
    if ":" in name:
        if given:
            raise InputError(f"{name}: takes no settings here: set them in the factory")
        return load_user(name, n_tasks)
    if name == "gaba":
        return Gaba(GabaSpec.from_dict({**given, "n_tasks": n_tasks}, source="gaba"))
    if name in DIRECTION_METHODS:
        return Direction(name, n_tasks, **given)
    if name not in _CLASSES:
        raise InputError(
            f"balancer {name!r} is unknown: choose from {', '.join(balancer_names())}, "
            "or give package.module:factory"
        )
    allowed = [p for p in inspect.signature(_CLASSES[name]).parameters if p != "n_tasks"]
    for key in given:
        if key not in allowed:
            raise InputError(
                f"{name}: unknown setting {key!r}: choose from {', '.join(allowed) or 'none'}"
            )
    return _CLASSES[name](n_tasks=n_tasks, **given)
