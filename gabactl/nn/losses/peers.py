"""Other balancers behind our call signature: those of torchjd, and the AMNL sample weights.

Needs the extra ``peers`` for the former. GradNorm is :class:`gabactl.nn.GradNormLoss`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gabactl.base.errors import InputError
from gabactl.nn.checkpoint import check_optimizer, has_strange
from gabactl.nn.losses.base import BalancedLoss
from gabactl.nn.sensors import reuse
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.norms import inner_product, is_sharded

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
#: Where torchjd's scalarizers keep what they remember, beside their parameters.
_MEMORY = {"dwa": ("_loss_sum", "_n_batches", "_previous_averages"), "famo": ("_prev_losses",)}
_ABSENT = object()


class _TorchjdLoss(BalancedLoss):
    """What both kinds of torchjd's methods share: a part of it, built by name, and uniform weights."""

    _part: str
    _names: Mapping[str, str]

    def __init__(
        self, method: str, n_tasks: int, task_names: Sequence[str] | None, **options: Any
    ) -> None:
        super().__init__(n_tasks, task_names)
        self.method = method
        shape = (n_tasks,) if method in _SHAPED else ()
        self._built(_build(self._part, self._names, method, *shape, **options))

    def _built(self, engine: nn.Module) -> None:
        """Keep the part of torchjd that was built, under its name."""
        raise NotImplementedError

    def _weights_of_state(self) -> Tensor:
        k = len(self.task_names)
        return torch.full((k,), 1.0 / k)


class GramianLoss(_TorchjdLoss):
    """Weights from the inner products of the tasks' gradients, by a torchjd weighting.

    Costs K backbone passes, as torchjd does: the gradients that were compared become the update,
    which the total's ``backward()`` writes without another pass. Weighs the losses, so the heads'
    gradients are scaled too, as they are by GABA. torchjd's own ``mtl_backward`` leaves the heads
    alone; on the shared parameters the two agree.

    Parameters
    ----------
    method : {"cagrad", "imtl_g", "mgda", "pcgrad", "upgrad"}
        The weighting, then in ``weighting``.
    n_tasks, task_names
        As in :class:`gabactl.nn.GABALoss`.
    **options
        For the weighting; cagrad needs ``c`` in [0, 1).

    Notes
    -----
    Sources: the papers that the documentation of torchjd.aggregation names. cagrad needs cvxpy,
    solved on the host; upgrad qpsolvers and quadprog.

    ``forward_k`` frees the losses' graphs, as a backward pass does. Where something else needs them,
    say another loss from the same forward pass, set ``keep_graph``.

    Examples
    --------
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> loss_fn = GramianLoss("imtl_g")
    >>> loss_fn.forward_k([3.0 * w[0], 1.0 * w[1]], [w]).backward()
    >>> loss_fn.applied_weights, w.grad
    (tensor([0.2500, 0.7500]), tensor([0.7500, 0.7500]))
    """

    _part = "aggregation"
    _names = _GRAMIAN
    weighting: nn.Module

    def __init__(
        self,
        method: str,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(method, n_tasks, task_names, **options)

    def _built(self, engine: nn.Module) -> None:
        self.weighting = engine

    def forward_k(
        self,
        losses: Sequence[Tensor],
        shared_params: Iterable[Tensor] | None = None,
        *,
        grad_scaler: Any = None,
    ) -> Tensor:
        """The weighted sum; uniform weights without ``shared_params`` and in evaluation.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Task losses.
        shared_params : iterable of Tensor, optional
            What the inner products are taken on. Features that are no parameters are allowed, and
            cost a pass through the heads per task; the update is then a backward pass of its own.
        grad_scaler : torch.amp.GradScaler, optional
            As for :meth:`gabactl.nn.GABALoss.forward_k`.

        Raises
        ------
        InputError
            Bad losses or parameters; parameters that are sharded.
        """
        parameters = self._check(losses, shared_params)
        self.measured_this_step = False
        if self._frozen or parameters is None:
            return self._combine(losses, self._weights_of_state().to(losses[0].device))
        leaves = [p for p in reuse.leaves_of(losses) if p.requires_grad]
        _refuse_sharded([*parameters, *leaves])
        own = {id(p) for p in parameters}
        reusing = all(p.is_leaf for p in parameters)
        others = [p for p in leaves if id(p) not in own] if reusing else []
        context = Context(grad_scaler)
        gradients = reuse.gradients_of_tasks(
            losses, [*parameters, *others], context, retain_last=self.keep_graph or not reusing
        )
        one = context.unscale(torch.ones((), device=parameters[0].device))
        gramian = _gramian([task[: len(parameters)] for task in gradients]) * one * one
        weights = self.weighting(gramian).detach()
        self._last_grad_norms = gramian.diagonal().sqrt()
        self.measured_this_step = True
        self._advance(self._steps() + 1)
        total = self._combine(losses, weights)
        if not reusing:
            return total
        update = reuse.combine_gradients(gradients, weights * one)
        return reuse.total_with_gradients(total.detach(), [*parameters, *others], update)

    def describe_sensor(self) -> dict[str, Any]:
        """Exact norms at every step."""
        return {"name": "full", "coasts": False, "interval": 1}


class ScalarizedLoss(_TorchjdLoss):
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

    Raises
    ------
    InputError
        A negative ``measure_every``, or not one name per task.

    Notes
    -----
    Sources: the papers that the documentation of torchjd.scalarization names. The ``state_dict``
    holds what dwa remembers of earlier epochs and famo of earlier steps, so a resumed run goes on
    bit for bit.

    Examples
    --------
    >>> loss_fn = ScalarizedLoss("uncertainty")
    >>> _ = loss_fn(torch.tensor(3.0, requires_grad=True), torch.tensor(1.0, requires_grad=True))
    >>> loss_fn.applied_weights
    tensor([0.5000, 0.5000])
    """

    _part = "scalarization"
    _names = _SCALAR
    scalarizer: nn.Module

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
        super().__init__(method, n_tasks, task_names, **options)
        self.measure_every = measure_every

    def _built(self, engine: nn.Module) -> None:
        self.scalarizer = engine

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

    def describe_sensor(self) -> dict[str, Any] | None:
        """Exact norms every ``measure_every`` steps, or none."""
        if not self.measure_every:
            return None
        return {"name": "full", "coasts": False, "interval": self.measure_every}

    def get_extra_state(self) -> dict[str, Any]:
        """What dwa remembers of its epochs, famo of the losses before its last step; else nothing."""
        found = {name: self._remembered(name) for name in _MEMORY.get(self.method, ())}
        if self.method == "famo":
            optimizer = self._remembered("_optimizer")
            found["_optimizer"] = None if optimizer is None else optimizer.state_dict()
        return found

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Back to what :meth:`get_extra_state` gave.

        Parameters
        ----------
        state : mapping
            Of the same method.

        Raises
        ------
        InputError
            Of another method, or of another number of tasks.
        """
        k = len(self.task_names)
        for name in _MEMORY.get(self.method, ()):
            value = state.get(name, _ABSENT) if isinstance(state, Mapping) else _ABSENT
            if not _is_memory(name, value, k):
                raise InputError(
                    f"the saved history is not one of {self.method} with {k} tasks: load the "
                    "checkpoint of the same balancer"
                )
            setattr(self.scalarizer, name, value)
        if self.method == "famo":
            saved = state.get("_optimizer")
            engine: Any = self.scalarizer
            engine._optimizer = None
            if saved is not None:
                # As FAMO builds it, at its first update.
                engine._optimizer = torch.optim.Adam(
                    [engine._w], lr=engine.lr, weight_decay=engine.weight_decay
                )
                try:
                    own = check_optimizer(saved, engine._optimizer)
                except (LookupError, TypeError, ValueError) as error:
                    raise InputError(
                        f"the saved optimizer is none of famo ({error}): load the checkpoint of "
                        "the same balancer"
                    ) from None
                engine._optimizer.load_state_dict(own)

    def _remembered(self, name: str) -> Any:
        value = getattr(self.scalarizer, name, _ABSENT)
        if value is _ABSENT:
            raise InputError(
                f"this torchjd keeps the history of {self.method} elsewhere, so it cannot be saved: "
                "install torchjd 0.18"
            )
        return value


def _is_memory(name: str, value: Any, k: int) -> bool:
    """Whether a scalarizer with K tasks could have remembered this under that name."""
    if name == "_n_batches":
        return type(value) is int and 0 <= value < 1 << 63
    if name == "_previous_averages":
        return isinstance(value, list) and len(value) <= 2 and all(_is_losses(x, k) for x in value)
    return value is None or _is_losses(value, k)


def _is_losses(value: Any, k: int) -> bool:
    plain = isinstance(value, Tensor) and not has_strange(value)
    return plain and value.is_floating_point() and value.shape == (k,)


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
    targets : Tensor, any shape
        Remaining useful life.
    limit : float, positive
        RUL from which on the weight is 1, in the units of the targets.

    Returns
    -------
    Tensor
        1 + clip(1 - y / limit, 0, 1), of the targets' shape.

    Raises
    ------
    InputError
        ``limit`` that is not positive.

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
    predicted, targets : Tensor, any shape
        The same for both; in cycles or any unit of the RUL.
    limit : float
        As in :func:`amnl_weights`.

    Returns
    -------
    Tensor, 0-dimensional
        In squared units of the targets.

    Raises
    ------
    InputError
        Predictions and targets of different shapes.

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

    Returns
    -------
    list of two Tensors, 0-dimensional
        Of the RUL, and of the health class.

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


def _gramian(gradients: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Inner products of the tasks' gradients, shape (K, K)."""
    k = len(gradients)
    table: dict[tuple[int, int], Tensor] = {}
    for i in range(k):
        for j in range(i, k):
            table[i, j] = table[j, i] = inner_product(gradients[i], gradients[j])
    device = table[0, 0].device
    rows = [torch.stack([table[i, j].to(device) for j in range(k)]) for i in range(k)]
    return torch.stack(rows)


def _refuse_sharded(parameters: Sequence[Tensor]) -> None:
    if any(is_sharded(p) for p in parameters):
        raise InputError(
            "the parameters are sharded, and torchjd's methods need whole gradients: use "
            "DistributedDataParallel, or GABALoss(reduce='norm_of_mean', sharded=model)"
        )


def _build(part: str, names: Mapping[str, str], method: str, *args: Any, **options: Any) -> Any:
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
