"""The whole battery on a user's own loss, inside pytest."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from gabactl.base.errors import InputError
from gabactl.fuzzing.engine import fuzz
from gabactl.fuzzing.properties import PROPERTIES, Bound
from gabactl.fuzzing.target import Target
from gabactl.fuzzing.targets import from_factory
from gabactl.law.spec import GabaSpec

__all__ = ["guarantees"]

_LIFE = "life"


def guarantees(
    make_loss: Callable[..., Any],
    *,
    properties: Sequence[str] | None = None,
    bound: Bound = "tight",
    n_tasks: int = 2,
    steps: int = 3000,
    lives: int = 20,
    seed: int = 0,
    corpus: str | None = None,
) -> Callable[[Any], Any]:
    """Give a test the whole battery: one pytest case per property.

    Parameters
    ----------
    make_loss : callable
        Makes a fresh loss: a ``torch.nn.Module`` with the loss signature, or a step function from
        gradient norms to weights (see :func:`gabactl.fuzzing.resolve`).
    properties : sequence of str, optional
        Which of :data:`gabactl.fuzzing.PROPERTIES`, and ``"life"`` (the state machine, torch only);
        default all. Those that do not apply are skipped, with the reason.
    bound : "tight", "published" or (low, high)
        Range of the weights.
    n_tasks : int
        Number of tasks, where the loss does not state it.
    steps : int
        Controller steps per property.
    lives : int
        Lives the state machine draws.
    seed : int
        Of the search.
    corpus : str, optional
        Folder of failing cases.

    Returns
    -------
    callable
        A decorator. A function is called after each property that holds (it may take an argument
        ``guarantee``, the property's name); a class gets a method ``test_guarantee``.

    Raises
    ------
    InputError
        An unknown property.

    Examples
    --------
    In a test file::

        @gabactl.fuzzing.guarantees(lambda: MyLoss(n_tasks=2), bound=(0.0, 1.0))
        def test_my_loss(): ...

    >>> @guarantees(lambda: (lambda g: 0.0 * g + 0.5), properties=["bounds"], steps=200)
    ... def test_rule(): ...
    >>> test_rule(guarantee="bounds")
    """
    chosen = [*PROPERTIES, _LIFE] if properties is None else list(properties)
    for name in chosen:
        if name not in PROPERTIES and name != _LIFE:
            raise InputError(
                f"property {name!r} is unknown: choose from {', '.join([*PROPERTIES, _LIFE])}"
            )

    def ask(name: str) -> None:
        label = getattr(make_loss, "__qualname__", "loss")
        target = from_factory(make_loss, GabaSpec(n_tasks=n_tasks), label)
        if name == _LIFE:
            _live(target, make_loss, n_tasks, bound, lives)
            return
        result = fuzz(
            target, name, bound=bound, steps=steps, seed=seed, corpus=corpus, shrink_seconds=10.0
        ).results[0]
        if result.verdict == "skipped":
            _skip(f"{name}: {result.message}")
        assert not result.violated, f"\n{result}"

    def decorate(test: Any) -> Any:
        import pytest

        each = pytest.mark.parametrize("guarantee", chosen)
        if inspect.isclass(test):

            def test_guarantee(self: Any, guarantee: str) -> None:
                ask(guarantee)

            setattr(test, "test_guarantee", each(test_guarantee))  # noqa: B010
            return test

        signature = inspect.signature(test)
        wants = "guarantee" in signature.parameters

        @functools.wraps(test)
        def run(*arguments: Any, guarantee: str, **others: Any) -> Any:
            ask(guarantee)
            if wants:
                others["guarantee"] = guarantee
            return test(*arguments, **others)

        added = inspect.Parameter("guarantee", inspect.Parameter.KEYWORD_ONLY)
        kept = [p for p in signature.parameters.values() if p.name != "guarantee"]
        run.__signature__ = signature.replace(parameters=[*kept, added])  # type: ignore[attr-defined]
        return each(run)

    return decorate


def _live(
    target: Target, make_loss: Callable[..., Any], n_tasks: int, bound: Bound, lives: int
) -> None:
    if "n_tasks" in inspect.signature(make_loss).parameters:
        make_loss = functools.partial(make_loss, n_tasks=n_tasks)
    if not any(c.__module__.startswith("torch.nn") for c in type(make_loss()).__mro__):
        _skip("life: only torch losses have one")
    from hypothesis import HealthCheck, settings
    from hypothesis.stateful import run_state_machine_as_test

    from gabactl.fuzzing.machine import loss_life

    options = settings(
        max_examples=lives,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(loss_life(make_loss, target.n_tasks, bound), settings=options)


def _skip(reason: str) -> None:
    import pytest

    pytest.skip(reason)
