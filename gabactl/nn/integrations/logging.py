"""What a balancer has to say, for TensorBoard, Weights & Biases or any other logger."""

from __future__ import annotations

from typing import Any

from gabactl.base.errors import InputError, packages_for

with packages_for(__name__):
    from torch import Tensor

from gabactl.nn.losses.base import BalancedLoss

__all__ = ["log_to_tensorboard", "log_to_wandb"]


def scalars(loss_fn: BalancedLoss, prefix: str = "balance") -> dict[str, float]:
    """Applied weights, stored average and the last gradient norms as floats.

    Reads the device: call it every so many steps, not at each.

    Parameters
    ----------
    loss_fn : BalancedLoss
        After a step.
    prefix : str
        Put before every name.

    Returns
    -------
    dict of str to float
        ``<prefix>/weight_<task>``, and ``ema_<task>``, ``grad_norm_<task>``, ``raw_<task>`` and
        ``log_ratio`` (two tasks, natural log of the first norm over the second) where there are.

    Examples
    --------
    >>> from gabactl.nn import GABALoss
    >>> scalars(GABALoss())
    {'balance/weight_rul': 0.5, 'balance/weight_health': 0.5, 'balance/ema_rul': 0.5, 'balance/ema_health': 0.5}
    """
    groups: dict[str, Tensor | None] = {
        "weight": loss_fn.applied_weights,
        "ema": getattr(loss_fn, "ema_weights", None),
        "grad_norm": loss_fn._last_grad_norms,
        "raw": loss_fn._last_raw_weights,
    }
    found = {
        f"{prefix}/{group}_{task}": float(value)
        for group, tensor in groups.items()
        if tensor is not None
        for task, value in zip(loss_fn.task_names, tensor.detach().tolist(), strict=True)
    }
    norms = loss_fn._last_grad_norms
    if norms is not None and len(norms) == 2:
        found[f"{prefix}/log_ratio"] = float((norms[0].log() - norms[1].log()).item())
    return found


def log_to_tensorboard(
    writer: Any, loss_fn: BalancedLoss, step: int | None = None, prefix: str = "balance"
) -> None:
    """Write :func:`scalars` to a ``SummaryWriter``.

    Parameters
    ----------
    writer : torch.utils.tensorboard.SummaryWriter
        Or anything with its ``add_scalar``.
    loss_fn : BalancedLoss
        After a step.
    step : int, optional
        Default: the loss's ``step_count``.
    prefix : str
        As in :func:`scalars`.

    Raises
    ------
    InputError
        ``writer`` has no ``add_scalar``.

    Examples
    --------
    >>> from gabactl.nn import GABALoss
    >>> class Writer:
    ...     def add_scalar(self, name, value, step):
    ...         print(name, value, step)
    >>> log_to_tensorboard(Writer(), GABALoss(task_names=("a", "b")))
    balance/weight_a 0.5 0
    balance/weight_b 0.5 0
    balance/ema_a 0.5 0
    balance/ema_b 0.5 0
    """
    if not hasattr(writer, "add_scalar"):
        raise InputError(f"a {type(writer).__name__} has no add_scalar: pass a SummaryWriter")
    at = loss_fn._steps() if step is None else step
    for name, value in scalars(loss_fn, prefix).items():
        writer.add_scalar(name, value, at)


def log_to_wandb(
    run: Any, loss_fn: BalancedLoss, step: int | None = None, prefix: str = "balance"
) -> None:
    """Log :func:`scalars` to a run of Weights & Biases.

    Parameters
    ----------
    run : wandb.Run
        From ``wandb.init()``.
    loss_fn : BalancedLoss
        After a step.
    step : int, optional
        Default: none, so that W&B counts; give it where you give it elsewhere.
    prefix : str
        As in :func:`scalars`.

    Raises
    ------
    InputError
        ``run`` has no ``log``.

    Examples
    --------
    >>> from gabactl.nn import GABALoss
    >>> class Run:
    ...     def log(self, values, step=None):
    ...         print(len(values), step)
    >>> log_to_wandb(Run(), GABALoss(), step=7)
    4 7
    """
    if not hasattr(run, "log"):
        raise InputError(f"a {type(run).__name__} has no log: pass what wandb.init() returned")
    run.log(scalars(loss_fn, prefix), step=step)
