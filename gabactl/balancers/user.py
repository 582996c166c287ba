"""A user's own rule as a balancer."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gabactl.balancers.base import Array, Balancer, Reading
from gabactl.base.errors import InputError


class UserBalancer(Balancer):
    """Wraps a function or an object so that it can be simulated and compared.

    Parameters
    ----------
    rule : callable or object with ``step``
        ``rule(grad_norms)`` or ``rule(grad_norms, losses)`` gives K weights; an object's ``step``
        is called the same way, and its ``reset()``, where it has one, starts it again.
    n_tasks : int, at least 2
        Number of tasks K.
    title : str, optional
        Name for tables; default the rule's own.

    Raises
    ------
    InputError
        Neither callable nor with a ``step`` method, or fewer than two tasks.

    Examples
    --------
    >>> UserBalancer(lambda g: g[::-1] / g.sum()).step([3.0, 1.0]).tolist()
    [0.25, 0.75]
    """

    name = "user"

    def __init__(
        self, rule: Callable[..., Any] | Any, n_tasks: int = 2, title: str | None = None
    ) -> None:
        call = rule.step if hasattr(rule, "step") else rule
        if not callable(call):
            raise InputError(
                f"{rule!r} is neither callable nor has a step method: give one that is"
            )
        self._rule, self._call = rule, call
        self._takes_losses = _accepts_two(call)
        self.title = title or str(getattr(rule, "__name__", type(rule).__name__))
        super().__init__(n_tasks)

    def reset(self) -> None:
        """Calls the rule's own ``reset``, where it has one."""
        if hasattr(self._rule, "reset"):
            self._rule.reset()

    def settings(self) -> Mapping[str, Any]:
        """Name and tasks."""
        return {"rule": self.title, "n_tasks": self.n_tasks}

    def _step(self, grad_norms: Reading, losses: Reading) -> Array:
        given = (grad_norms, losses) if self._takes_losses else (grad_norms,)
        weights = np.array(self._call(*given), dtype=np.float64)
        if weights.shape != (self.n_tasks,):
            raise InputError(
                f"{self.title} returned weights of shape {weights.shape} for n_tasks = "
                f"{self.n_tasks}: return one number per task"
            )
        return weights


def load_user(target: str, n_tasks: int = 2) -> Balancer:
    """The balancer that ``package.module:factory`` makes. Importing it runs that code.

    Parameters
    ----------
    target : str
        Module and name; the name is a factory called with ``n_tasks`` (or without arguments), or a
        step function of ``(grad_norms)`` or ``(grad_norms, losses)``.
    n_tasks : int
        Number of tasks K.

    Raises
    ------
    InputError
        There is no such module or factory, or it fails.

    Examples
    --------
    >>> load_user("gabactl.balancers.fixed:Fixed", 3).n_tasks
    3
    """
    module_name, _, attribute = target.partition(":")
    try:
        made = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(
            f"balancer {target!r} cannot be loaded ({error}): give package.module:factory"
        ) from None
    parameters = _parameters(made)
    if inspect.isclass(made) or not parameters or "n_tasks" in parameters:
        made = made(n_tasks=n_tasks) if "n_tasks" in parameters else made()
    return made if isinstance(made, Balancer) else UserBalancer(made, n_tasks, attribute)


def _parameters(call: Any) -> list[str]:
    try:
        return list(inspect.signature(call).parameters)
    except (TypeError, ValueError):
        return []


def _accepts_two(call: Any) -> bool:
    try:
        inspect.signature(call).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
