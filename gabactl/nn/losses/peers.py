"""Other balancers behind our call signature: those of torchjd. Needs the extra ``peers``.

GradNorm is :class:`gabactl.nn.GradNormLoss`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gabactl.base.checks import check_choice
from gabactl.base.errors import InputError
from gabactl.nn.checkpoint import check_optimizer, has_strange
from gabactl.nn.losses.base import BalancedLoss, ObservedLoss
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.gradients import (
    combine_gradients,
    each_task,
    leaves_of,
    shared_first,
    total_with_gradients,
)
from gabactl.nn.sensors.norms import Tensors, inner_product, is_sharded

__all__ = ["peer_loss"]

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


class GramianLoss(BalancedLoss):
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

    measure_every = 1
    _options = ("grad_scaler",)

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
        self.weighting: nn.Module = _build("aggregation", _GRAMIAN, method, n_tasks, options)

    def forward_k(
        self,
        losses: Tensors,
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
        leaves = [p for p in leaves_of(losses) if p.requires_grad]
        _refuse_sharded([*parameters, *leaves])
        reusing = all(p.is_leaf for p in parameters)
        every = shared_first(parameters, leaves) if reusing else parameters
        context = Context(grad_scaler)
        keep = self.keep_graph or not reusing
        gradients = list(each_task(losses, every, context, retain_last=keep))
        one = context.unscale(torch.ones((), device=parameters[0].device))
        gramian = _gramian([task[: len(parameters)] for task in gradients]) * one * one
        weights = self.weighting(gramian).detach()
        self._last_grad_norms = gramian.diagonal().sqrt()
        self.measured_this_step = True
        self._advance(self._steps() + 1)
        total = self._combine(losses, weights)
        if not reusing:
            return total
        update = combine_gradients(gradients, weights * one)
        return total_with_gradients(total.detach(), every, update)


class ScalarizedLoss(ObservedLoss):
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

    def __init__(
        self,
        method: str,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        measure_every: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(n_tasks, task_names, measure_every)
        self.method = method
        self.scalarizer: nn.Module = _build("scalarization", _SCALAR, method, n_tasks, options)

    def forward_k(self, losses: Tensors, shared_params: Iterable[Tensor] | None = None) -> Tensor:
        """The combined loss.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Task losses; famo needs positive ones.
        shared_params : iterable of Tensor, optional
            Used for the record only.
        """
        step = self._observe(losses, shared_params)
        device = losses[0].device
        if not step:
            return self._combine(losses, self.applied_weights.to(device))
        values = torch.stack([loss.reshape(()).to(device) for loss in losses])
        total: Tensor = self.scalarizer(values)
        (weights,) = torch.autograd.grad(total, [values], retain_graph=True)
        self._last_applied = weights.detach()
        self._advance(step)
        return total

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
    check_choice("method", method, sorted([*_GRAMIAN, *_SCALAR]))
    kind = GramianLoss if method in _GRAMIAN else ScalarizedLoss
    return kind(method, n_tasks, **options)


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


def _refuse_sharded(parameters: Tensors) -> None:
    if any(is_sharded(p) for p in parameters):
        raise InputError(
            "the parameters are sharded, and torchjd's methods need whole gradients: use "
            "DistributedDataParallel, or GABALoss(reduce='norm_of_mean', sharded=model)"
        )


def _build(
    part: str, names: Mapping[str, str], method: str, n_tasks: int, options: Mapping[str, Any]
) -> Any:
    """A part of torchjd by name."""
    check_choice("method", method, sorted(names))
    shape = (n_tasks,) if method in _SHAPED else ()
    try:
        module = importlib.import_module(f"torchjd.{part}")
        return getattr(module, names[method])(*shape, **options)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{method} needs torchjd 0.18 or later with its solvers ({str(error)[:80]}): "
            "pip install 'gabactl[peers]'"
        ) from error
