"""Replay of counterexamples through the code that is shipped.

Three implementations: the stage functions in exact rationals, :class:`gabactl.Controller` in
float64, and, where torch is installed, the loss module. A counterexample counts when all that are
there show it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.law.controller import Controller
from gabactl.law.floors import FloorMode
from gabactl.law.laws import Guard, Law
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, raw_weights, saturate

Reading = Sequence[Fraction | int]


@dataclass(frozen=True)
class Step:
    """The three stages after one reading, in exact rationals.

    Attributes
    ----------
    raw, ema, weights : array of Fraction, shape (K,)
        Raw weights, stored average and applied weights.
    """

    raw: NDArray[Any]
    ema: NDArray[Any]
    weights: NDArray[Any]


def exact(
    readings: Sequence[Reading],
    *,
    beta: Fraction,
    floor: Fraction,
    law: Law = GabaSpec.law,
    floor_mode: FloorMode = GabaSpec.floor_mode,
    guard: Guard = GabaSpec.guard,
    start: Sequence[Fraction] | None = None,
) -> list[Step]:
    """Run the stage functions on rationals; nothing rounds.

    Parameters
    ----------
    readings : sequence of readings of K rationals
        Gradient norms, one reading an active step.
    beta, floor : Fraction
        Settings.
    law, floor_mode, guard : str
        As in :class:`gabactl.GabaSpec`.
    start : sequence of K Fractions, optional
        The stored average before the first reading; default 1/K.

    Returns
    -------
    list of Step

    Examples
    --------
    >>> step = exact([[1, 0]], beta=Fraction(0), floor=Fraction(1, 20))[-1]
    >>> [str(w) for w in step.weights]
    ['1/21', '20/21']
    """
    k = len(readings[0])
    ema = np.array([Fraction(1, k)] * k if start is None else list(start), dtype=object)
    steps = []
    for reading in readings:
        g = np.array([Fraction(x) for x in reading], dtype=object)
        raw = raw_weights(g, law, guard)
        ema = follow(ema, raw, beta, 1, floor, floor_mode)
        steps.append(Step(raw, ema, saturate(ema, floor, floor_mode)))
    return steps


def through_controller(spec: GabaSpec, readings: Sequence[Reading]) -> NDArray[Any]:
    """Weights of the float64 controller after the last reading.

    Parameters
    ----------
    spec : GabaSpec
        The settings; the warm-up steps come first.
    readings : sequence of K numbers each
        Gradient norms, rounded to float64.

    Returns
    -------
    array, shape (K,)

    Examples
    --------
    >>> through_controller(GabaSpec(beta=0), [[1, 0]]).round(6).tolist()
    [0.047619, 0.952381]
    """
    controller = Controller(spec)
    for _ in range(spec.warmup):
        controller.observe(None)
    for reading in readings:
        controller.observe([float(x) for x in reading])
    return controller.weights


def through_loss(spec: GabaSpec, readings: Sequence[Reading]) -> NDArray[Any] | None:
    """Weights of the torch module after the last reading.

    The losses are g_i theta_i + b_i with shared theta, so that the gradient norms are the
    readings and the applied weights are the gradients of b.

    Parameters
    ----------
    spec : GabaSpec
        The settings; the warm-up steps come first.
    readings : sequence of K numbers each
        Gradient norms, rounded to float32.

    Returns
    -------
    array, shape (K,), or None
        None where torch is not installed.

    Examples
    --------
    >>> weights = through_loss(GabaSpec(beta=0), [[1, 0]])
    >>> weights is None or weights.round(6).tolist() == [0.047619, 0.952381]
    True
    """
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    from gabactl.nn import GABALoss

    torch.set_num_threads(1)
    loss = GABALoss.from_spec(spec)
    theta = torch.zeros(spec.n_tasks, requires_grad=True)
    bias = torch.zeros(spec.n_tasks, requires_grad=True)
    zero = [Fraction(0)] * spec.n_tasks
    for reading in [zero] * spec.warmup + list(readings):
        losses = [float(g) * theta[i] + bias[i] for i, g in enumerate(reading)]
        total = loss.forward_k(losses, shared_params=[theta])
    (weights,) = torch.autograd.grad(total, [bias])
    return np.asarray(weights.detach().numpy(), dtype=np.float64)


def confirm(
    spec: GabaSpec,
    readings: Sequence[Reading],
    shown: Callable[[NDArray[Any]], bool],
    *,
    beta: Fraction,
    floor: Fraction,
    module: bool = False,
) -> tuple[str, ...]:
    """Run readings through the implementations and see that each shows the violation.

    Parameters
    ----------
    spec : GabaSpec
        For the float implementations.
    readings : sequence of readings
        Gradient norms.
    shown : callable
        Whether given weights (K,) violate the statement.
    beta, floor : Fraction
        The same settings, exact.
    module : bool
        Run the torch module too, where torch is installed (its import takes seconds).

    Returns
    -------
    tuple of str
        One line an implementation.

    Raises
    ------
    ArithmeticError
        An implementation does not show it: the counterexample is no good.

    Examples
    --------
    >>> lines = confirm(GabaSpec(beta=0), [[1, 0]], lambda w: w[0] < 0.05,
    ...                 beta=Fraction(0), floor=Fraction(1, 20))
    >>> lines[0]
    'stage functions, exact: weights 1/21, 20/21'
    """
    last = exact(
        readings,
        beta=beta,
        floor=floor,
        law=spec.law,
        floor_mode=spec.floor_mode,
        guard=spec.guard,
    )[-1]
    runs: list[tuple[str, NDArray[Any]]] = [
        ("stage functions, exact", last.weights),
        ("Controller, float64", through_controller(spec, readings)),
    ]
    in_torch = through_loss(spec, readings) if module else None
    if in_torch is not None:
        runs.append(("GABALoss, float32", in_torch))
    lines = []
    for name, weights in runs:
        if not shown(weights):
            raise ArithmeticError(f"{name} does not show the violation: {_text(weights)}")
        lines.append(f"{name}: weights {_text(weights)}")
    if module and in_torch is None:
        lines.append("GABALoss: not run (torch is not installed)")
    return tuple(lines)


def _text(weights: NDArray[Any]) -> str:
    parts = []
    for w in weights:
        exact = str(w) if isinstance(w, Fraction) else ""
        parts.append(exact if 0 < len(exact) <= 24 else f"{float(w):.9g}")
    return ", ".join(parts)
