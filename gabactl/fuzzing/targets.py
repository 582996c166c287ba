"""What can be fuzzed: one small interface, and adapters to it.

A *target* starts fresh runs of a weighting rule; a *run* turns readings into applied weights, one
step at a time. Everything else (searching, shrinking, the properties) sees nothing but this, so a
user's own rule is fuzzed like ours. See :class:`Target` for writing an adapter by hand, and
:func:`resolve` for the ones made automatically.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError
from gabactl.fuzzing.target import RuleRun, Target
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec

__all__ = ["step_function"]

Array = NDArray[np.float64]


#: What a controller keeps from step to step.
_STATE = ("ema_weights", "step_count")


class _ControllerRun(RuleRun):
    """Our NumPy controller, or a subclass of it."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def step(self, grad_norms: Array, losses: Array) -> Array:
        return self._controller.step(losses, grad_norms)[1]

    def average(self) -> Array:
        return self._controller.ema_weights

    def save(self) -> Any:
        return {name: copy.copy(getattr(self._controller, name)) for name in _STATE}

    def load(self, state: Any) -> None:
        for name in _STATE:
            setattr(self._controller, name, state[name])


class _CompiledController(Controller):
    """The compiled step of the simulations."""

    def observe(self, grad_norms: ArrayLike | None) -> Array:
        from gabactl.loops.kernels.controller import codes, observe

        self.step_count += 1
        weights, scratch = np.empty_like(self.ema_weights), np.empty(2 * self.spec.n_tasks)
        step, settings = self.step_count, codes(self.spec)
        observe(np.asarray(grad_norms), step, self.ema_weights, weights, scratch, *settings)
        return weights


class _CallableRun(RuleRun):
    """A user's step function g -> w, with or without state."""

    def __init__(self, rule: Callable[[Array], Any], n_tasks: int) -> None:
        self._rule, self._k = rule, n_tasks

    def step(self, grad_norms: Array, losses: Array) -> Array:
        weights = np.asarray(self._rule(grad_norms.copy()), dtype=np.float64)
        if weights.shape != (self._k,):
            raise InputError(
                f"the step function returned weights of shape {weights.shape} for {self._k} tasks: "
                "return one weight per task"
            )
        return weights

    def save(self) -> Any:
        if not hasattr(self._rule, "state_dict") or not hasattr(self._rule, "load_state_dict"):
            raise NotImplementedError
        return copy.deepcopy(self._rule.state_dict())

    def load(self, state: Any) -> None:
        self._rule.load_state_dict(state)  # type: ignore[attr-defined]


class _BalancerRun(RuleRun):
    """One of ``gabactl.balancers``: a state machine ``step(grad_norms, losses) -> weights``."""

    def __init__(self, balancer: Any) -> None:
        self._balancer = balancer

    def step(self, grad_norms: Array, losses: Array) -> Array:
        # Methods that act on directions see orthogonal gradients of these norms.
        reading = np.diag(grad_norms) if self._balancer.needs_gradients else grad_norms
        with np.errstate(all="ignore"):
            return self._balancer.step(reading, losses)

    def save(self) -> Any:
        return copy.deepcopy(self._balancer)

    def load(self, state: Any) -> None:
        self._balancer = state


def step_function(
    factory: Callable[[], Callable[[Array], Any]],
    n_tasks: int = 2,
    name: str = "step function",
    **claims: Any,
) -> Target:
    """A target from a factory of step functions g -> w.

    Parameters
    ----------
    factory : callable
        Called with no arguments for every fresh run; returns the step function. Where the step
        function has ``state_dict`` and ``load_state_dict``, checkpoints are tested too.
    n_tasks : int
        Number of tasks K.
    name : str
        Shown in results.
    **claims
        Further attributes of :class:`Target`: ``total=None`` for weights that need not sum to 1,
        ``spec=`` for a rule that claims to be GABA with these settings.

    Examples
    --------
    >>> from gabactl.fuzzing.cases import Case
    >>> from gabactl.fuzzing.target import run_case
    >>> target = step_function(lambda: lambda g: g / g.sum())
    >>> run_case(target, Case.from_readings([[3.0, 1.0]])).weights
    array([[0.75, 0.25]])
    """
    claims = {"fixed_tasks": True, **claims}
    return Target(name, n_tasks, lambda k: _CallableRun(factory(), k), **claims)


def controller_target(
    make: Callable[[GabaSpec], Controller], spec: GabaSpec, name: str, **claims: Any
) -> Target:
    """A target from a class with :class:`gabactl.Controller`'s interface.

    Examples
    --------
    >>> controller_target(Controller, GabaSpec(), "mine").exact
    True
    """
    return Target(
        name,
        spec.n_tasks,
        lambda k: _ControllerRun(make(spec.replace(n_tasks=k))),
        spec=spec,
        **{"exact": True, **claims},
    )


def _balancer(name: str, spec: GabaSpec) -> Target:
    from gabactl import balancers

    if name not in balancers.balancer_names():
        known = dict.fromkeys((*TARGETS, *balancers.balancer_names()))
        raise InputError(
            f"target {name!r} is unknown: choose from {', '.join(known)}, "
            "or give package.module:factory"
        )
    # What the weights of the other methods sum to is their own affair.
    total = {"gaba": 1.0, "fixed": 1.0, "sqrt_inverse": 1.0, "gradnorm": float(spec.n_tasks)}
    return Target(
        name,
        spec.n_tasks,
        lambda k: _BalancerRun(balancers.make_balancer(name, k)),
        uses_losses=balancers.make_balancer(name, spec.n_tasks).needs_losses or name == "gradnorm",
        total=total.get(name),
        largest=1e150,
        smallest=1e-150,
    )


#: Names of the targets that come with the package, besides those of ``gabactl.balancers``.
TARGETS = ("gaba", "gaba-compiled", "gaba-torch", "gradnorm", "gradnorm-torch")


def resolve(name: str, spec: GabaSpec | None = None) -> Target:
    """The target of a name.

    Parameters
    ----------
    name : str
        One of :data:`TARGETS`, a name of ``gabactl.balancers``, or ``package.module:factory``.
        The factory is called with no arguments and returns a ``torch.nn.Module`` with the loss
        signature ``(loss_0, ..., shared_params=...)`` or ``forward_k(losses, shared_params)``,
        or a step function from gradient norms to weights. This runs the factory's code.
    spec : GabaSpec, optional
        Settings of our own targets; of a step function only the number of tasks is used. A module
        with the published attributes (beta, warmup_steps, min_weight, n_tasks) states its own.

    Raises
    ------
    InputError
        Unknown, or not importable.

    Examples
    --------
    >>> resolve("gaba").spec.floor
    0.05
    """
    spec = GabaSpec() if spec is None else spec
    if ":" in name:
        return _user_target(name, spec)
    if name in ("gaba", "gaba-compiled"):
        make = Controller if name == "gaba" else _CompiledController
        return controller_target(make, spec, name, lanes=True)
    if name in ("gaba-torch", "gradnorm-torch"):
        from gabactl.fuzzing import _torch_targets

        is_gaba = name == "gaba-torch"
        return _torch_targets.gaba(spec) if is_gaba else _torch_targets.gradnorm(spec.n_tasks)
    return _balancer(name, spec)


def as_target(target: str | Target | Callable[..., Any], spec: GabaSpec | None = None) -> Target:
    """A target from a name (:func:`resolve`), from a factory, or as it is.

    Parameters
    ----------
    target : str, Target or callable
        What to fuzz.
    spec : GabaSpec, optional
        Settings of our own targets; the number of tasks for others.

    Examples
    --------
    >>> as_target("gaba").name, as_target(lambda: lambda g: g / g.sum()).n_tasks
    ('gaba', 2)
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        return resolve(target, spec)
    name = str(getattr(target, "__name__", type(target).__name__))
    expression = name if name.isidentifier() else "make_loss"
    return replace(from_factory(target, spec or GabaSpec(), name), expression=expression)


def _user_target(path: str, spec: GabaSpec) -> Target:
    module_name, _, attribute = path.partition(":")
    try:
        factory: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            factory = getattr(factory, part)
    except ImportError as error:
        raise InputError(f"{path}: cannot be imported ({error}): check PYTHONPATH") from None
    except AttributeError:
        raise InputError(f"{path}: {module_name} has no {attribute!r}: check the name") from None
    if isinstance(factory, Target):
        return factory
    if not callable(factory):
        raise InputError(
            f"{path}: not callable: name a factory that returns a loss or step function"
        )
    return from_factory(factory, spec, name=path)


def from_factory(factory: Callable[..., Any], spec: GabaSpec, name: str) -> Target:
    """A target from a factory of losses, controllers or step functions, told apart by its product.

    Parameters
    ----------
    factory : callable
        Called without arguments, or with ``n_tasks`` where it takes that.
    spec : GabaSpec
        Gives the number of tasks of products that do not state it.
    name : str
        Shown in results.

    Examples
    --------
    >>> from_factory(lambda n_tasks: lambda g: g / g.sum(), GabaSpec(), "mine").fixed_tasks
    False
    """
    any_tasks = "n_tasks" in _parameters(factory)

    def make(n_tasks: int) -> Any:
        return factory(n_tasks=n_tasks) if any_tasks else factory()

    first = make(spec.n_tasks)
    claims: dict[str, Any] = {"fixed_tasks": not any_tasks}
    if isinstance(first, Target):
        return first
    if isinstance(first, Controller):
        claims["exact"] = False
        return controller_target(lambda own: make(own.n_tasks), first.spec, name, **claims)
    if any(cls.__module__.startswith("torch.nn") for cls in type(first).__mro__):
        from gabactl.fuzzing import _torch_targets

        return _torch_targets.module(make, spec.n_tasks, name, **claims)
    if not callable(first):
        raise InputError(
            f"{name}: the factory returned a {type(first).__name__}: return a torch module with "
            "the loss signature, or a function from gradient norms to weights"
        )
    return Target(name, spec.n_tasks, lambda k: _CallableRun(make(k), k), **claims)


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def finite_domain(target: Target) -> tuple[float, float]:
    """Smallest and largest positive norm with which sums and squares stay in range.

    Examples
    --------
    >>> finite_domain(resolve("gaba"))[1] > 1e280
    True
    """
    return target.smallest, min(target.largest, 1e290) / math.sqrt(target.n_tasks)
