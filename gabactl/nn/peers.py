"""Other balancers behind our call signature: those of torchjd, and the AMNL sample weights.

Needs the extra ``peers`` for the former. GradNorm is :class:`gabactl.nn.GradNormLoss`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gabactl.errors import InputError
from gabactl.nn.base import BalancedLoss
from gabactl.nn.sensors.norms import task_gradients

__all__ = [
    "GramianLoss",
    "ScalarizedLoss",
    "amnl_loss",
    "amnl_weights",
    "grace_losses",
    "peer_loss",
]

_GRAMIAN = {
    "cagrad": "CAGradWeighting",
    "imtl_g": "IMTLGWeighting",
    "mgda": "MGDAWeighting",
    "pcgrad": "PCGradWeighting",
    "upgrad": "UPGradWeighting",
}
_SCALAR = {"dwa": "DWA", "famo": "FAMO", "imtl_l": "IMTLL", "uncertainty": "UW"}
#: Scalarizers that are built for a number of values.
_SHAPED = ("famo", "imtl_l", "uncertainty")
#: Where torchjd's DWA keeps its epochs.
_DWA_MEMORY = ("_loss_sum", "_n_batches", "_previous_averages")


class GramianLoss(BalancedLoss):
    """Weights from the inner products of the tasks' gradients, by a torchjd weighting.

    Weighs the losses, so the heads' gradients are scaled too, as they are by GABA. torchjd's own
    ``mtl_backward`` leaves the heads alone; on the shared parameters the two agree.

    Parameters
    ----------
    method : {"cagrad", "imtl_g", "mgda", "pcgrad", "upgrad"}
        The weighting.
    n_tasks, task_names
        As in :class:`gabactl.nn.GABALoss`.
    **options
        For the weighting; cagrad needs ``c`` in [0, 1).

    Notes
    -----
    Sources: the papers that the documentation of torchjd.aggregation names. cagrad needs cvxpy,
    solved on the host; upgrad qpsolvers and quadprog.

    Examples
    --------
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> loss_fn = GramianLoss("imtl_g")
    >>> _ = loss_fn.forward_k([3.0 * w[0], 1.0 * w[1]], [w])
    >>> loss_fn.applied_weights
    tensor([0.2500, 0.7500])
    """

    def __init__(
        self,
        method: str,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(n_tasks, task_names)
        self.method = method
        self.weighting: nn.Module = _build("aggregation", _GRAMIAN, method, **options)

    def forward_k(
        self, losses: Sequence[Tensor], shared_params: Iterable[Tensor] | None = None
    ) -> Tensor:
        """The weighted sum; uniform weights without ``shared_params`` and in evaluation.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Task losses.
        shared_params : iterable of Tensor, optional
            What the inner products are taken on.
        """
        parameters = self._check(losses, shared_params)
        self.measured_this_step = False
        if self._frozen or parameters is None:
            return self._combine(losses, self._weights_of_state().to(losses[0].device))
        gramian = _gramian(losses, parameters)
        weights = self.weighting(gramian).detach()
        self._last_grad_norms = gramian.diagonal().sqrt()
        self.measured_this_step = True
        self._advance(self._steps() + 1)
        return self._combine(losses, weights)

    def _weights_of_state(self) -> Tensor:
        k = len(self.task_names)
        return torch.full((k,), 1.0 / k)


class ScalarizedLoss(BalancedLoss):
    """Weights from the losses alone, by a torchjd scalarizer.

    ``applied_weights`` are the derivatives of the combined loss by the losses.

    Parameters
    ----------
    method : {"dwa", "famo", "imtl_l", "uncertainty"}
        The scalarizer, then in ``scalarizer``. ``uncertainty`` and ``imtl_l`` have parameters:
        give ``loss_fn.parameters()`` to the optimiser. ``dwa`` wants ``scalarizer.step()`` after
        each epoch, ``famo`` ``scalarizer.update(losses)`` with the losses after each step.
    n_tasks, task_names
        As in :class:`gabactl.nn.GABALoss`.
    measure_every : int, at least 0
        As in :class:`gabactl.nn.FixedLoss`: gradient norms for the record; 0 never takes them.
    **options
        For the scalarizer.

    Notes
    -----
    Sources: the papers that the documentation of torchjd.scalarization names. The ``state_dict``
    holds what dwa remembers of earlier epochs, but not what famo does of earlier steps.

    Examples
    --------
    >>> loss_fn = ScalarizedLoss("uncertainty")
    >>> _ = loss_fn(torch.tensor(3.0, requires_grad=True), torch.tensor(1.0, requires_grad=True))
    >>> loss_fn.applied_weights
    tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        method: str,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        measure_every: int = 0,
        **options: Any,
    ) -> None:
        if measure_every < 0:
            raise InputError(
                f"measure_every = {measure_every} is negative: 0 measures never, 1 always"
            )
        super().__init__(n_tasks, task_names)
        self.method = method
        self.measure_every = measure_every
        shape = (n_tasks,) if method in _SHAPED else ()
        self.scalarizer: nn.Module = _build("scalarization", _SCALAR, method, *shape, **options)

    def forward_k(
        self, losses: Sequence[Tensor], shared_params: Iterable[Tensor] | None = None
    ) -> Tensor:
        """The combined loss.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Task losses; famo needs positive ones.
        shared_params : iterable of Tensor, optional
            Used for the record only.
        """
        parameters = self._check(losses, shared_params if self.measure_every else None)
        self.measured_this_step = False
        if self._frozen:
            return self._combine(losses, self.applied_weights.to(losses[0].device))
        step = self._steps() + 1
        if parameters is not None and (step - 1) % self.measure_every == 0:
            self._last_grad_norms = self._norms(losses, parameters)
            self.measured_this_step = True
        device = losses[0].device
        values = torch.stack([loss.reshape(()).to(device) for loss in losses])
        total: Tensor = self.scalarizer(values)
        (weights,) = torch.autograd.grad(total, [values], retain_graph=True)
        self._last_applied = weights.detach()
        self._advance(step)
        return total

    def get_extra_state(self) -> dict[str, Any]:
        """What dwa remembers: the sums of this epoch and the averages of the last two."""
        if self.method != "dwa":
            return {}
        memory: Any = self.scalarizer
        return {name: getattr(memory, name) for name in _DWA_MEMORY}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Back to what :meth:`get_extra_state` gave.

        Parameters
        ----------
        state : dict
            Of the same method.
        """
        for name in _DWA_MEMORY if self.method == "dwa" else ():
            setattr(self.scalarizer, name, state[name])

    def _weights_of_state(self) -> Tensor:
        k = len(self.task_names)
        return torch.full((k,), 1.0 / k)


def peer_loss(method: str, n_tasks: int = 2, **options: Any) -> BalancedLoss:
    """A peer by name.

    Parameters
    ----------
    method : str
        pcgrad, cagrad, upgrad, imtl_g, mgda, uncertainty, dwa, famo or imtl_l.
    n_tasks : int
        Number of tasks.
    **options
        For the method.

    Raises
    ------
    InputError
        Unknown method, or torchjd is not installed.

    Examples
    --------
    >>> peer_loss("pcgrad").method
    'pcgrad'
    """
    if method in _GRAMIAN:
        return GramianLoss(method, n_tasks, **options)
    if method in _SCALAR:
        return ScalarizedLoss(method, n_tasks, **options)
    raise InputError(_unknown(method, [*_GRAMIAN, *_SCALAR]))


def amnl_weights(targets: Tensor, limit: float = 125.0) -> Tensor:
    """Sample weights of AMNL: 1 far from failure, 2 at failure.

    Parameters
    ----------
    targets : Tensor
        Remaining useful life.
    limit : float, positive
        RUL from which on the weight is 1, in the units of the targets.

    Returns
    -------
    Tensor
        1 + clip(1 - y / limit, 0, 1), of the targets' shape.

    Notes
    -----
    Source: "Gradient-Aware Multi-Task Learning for Predictive Maintenance", AMNL.

    Examples
    --------
    >>> amnl_weights(torch.tensor([0.0, 62.5, 125.0, 200.0]))
    tensor([2.0000, 1.5000, 1.0000, 1.0000])
    """
    if not limit > 0:
        raise InputError(f"limit = {limit} is not positive: give the RUL limit, such as 125")
    return 1.0 + (1.0 - targets / limit).clamp(0.0, 1.0)


def amnl_loss(predicted: Tensor, targets: Tensor, limit: float = 125.0) -> Tensor:
    """Mean squared error under :func:`amnl_weights`.

    Parameters
    ----------
    predicted, targets : Tensor
        Of one shape.
    limit : float
        As in :func:`amnl_weights`.

    Examples
    --------
    >>> amnl_loss(torch.tensor([1.0, 126.0]), torch.tensor([0.0, 125.0]))
    tensor(1.5000)
    """
    if predicted.shape != targets.shape:
        raise InputError(
            f"predictions of shape {tuple(predicted.shape)}, targets of {tuple(targets.shape)}: "
            "they would broadcast; reshape one"
        )
    return (amnl_weights(targets, limit) * (predicted - targets).square()).mean()


def grace_losses(
    rul_predicted: Tensor, rul: Tensor, health_logits: Tensor, health: Tensor, limit: float = 125.0
) -> list[Tensor]:
    """The two losses of GRACE; weigh them with :class:`gabactl.nn.GABALoss`, and that is GRACE.

    Parameters
    ----------
    rul_predicted, rul : Tensor, shape (batch,)
        Remaining useful life.
    health_logits : Tensor, shape (batch, classes)
        Class scores.
    health : Tensor, shape (batch,)
        Classes.
    limit : float
        As in :func:`amnl_weights`.

    Notes
    -----
    Source: as :func:`amnl_weights`; GRACE combines AMNL's sample weights with GABA's task weights.

    Examples
    --------
    >>> rul, logits = torch.tensor([0.0, 125.0]), torch.zeros(2, 3)
    >>> [round(x.item(), 4) for x in grace_losses(rul + 1, rul, logits, torch.tensor([0, 2]))]
    [1.5, 1.0986]
    """
    return [
        amnl_loss(rul_predicted, rul, limit),
        nn.functional.cross_entropy(health_logits, health),
    ]


def _gramian(losses: Sequence[Tensor], parameters: list[Tensor]) -> Tensor:
    rows = [
        torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).reshape(-1)
                for g, p in zip(task_gradients(loss, parameters), parameters, strict=True)
            ]
        )
        for loss in losses
    ]
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


def _build(part: str, names: dict[str, str], method: str, *args: Any, **options: Any) -> Any:
    if method not in names:
        raise InputError(_unknown(method, list(names)))
    try:
        module = importlib.import_module(f"torchjd.{part}")
        return getattr(module, names[method])(*args, **options)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{method} needs torchjd 0.18 or later with its solvers ({str(error)[:80]}): "
            "pip install 'gabactl[peers]'"
        ) from error


def _unknown(method: str, known: list[str]) -> str:
    return f"method = {method!r} is unknown: choose one of {', '.join(sorted(known))}"
