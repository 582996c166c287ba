"""What the settings of a run name, built: the balancer and the optimizer."""

from __future__ import annotations

from typing import Any

from gabactl.base.errors import packages_for

with packages_for(__name__):
    import torch
    from torch import nn

from gabactl.nn.losses.base import BalancedLoss
from gabactl.nn.losses.excited import ExcitedLoss
from gabactl.nn.losses.fixed import FixedLoss
from gabactl.nn.losses.gaba import GABALoss
from gabactl.nn.losses.gradnorm import GradNormLoss
from gabactl.nn.losses.peers import ScalarizedLoss, peer_loss
from gabactl.nn.training.settings import TrainingSettings


def build_loss(settings: TrainingSettings, device: torch.device) -> BalancedLoss:
    """The balancer of a run, excited if the settings say so.

    Parameters
    ----------
    settings : TrainingSettings
        Which balancer, and its own settings.
    device : torch.device
        Where it lives; on CUDA GradNorm uses its closed form.

    Returns
    -------
    BalancedLoss

    Examples
    --------
    >>> build_loss(TrainingSettings(balancer="fixed"), torch.device("cpu"))
    FixedLoss()
    """
    loss: BalancedLoss
    if settings.balancer == "gaba":
        normalise_to: Any = settings.normalise_to
        loss = GABALoss.from_spec(settings.spec, normalise_to=normalise_to)
    elif settings.balancer == "fixed":
        loss = FixedLoss(settings.weights, measure_every=settings.measure_every)
    elif settings.balancer in ("uncertainty", "dwa"):
        loss = peer_loss(settings.balancer, measure_every=settings.measure_every)
    elif settings.balancer in ("pcgrad", "cagrad"):
        options: dict[str, Any] = {"c": settings.cagrad_c} if settings.balancer == "cagrad" else {}
        loss = peer_loss(settings.balancer, **options)
    else:
        loss = GradNormLoss(
            settings.gradnorm_variant,
            alpha=settings.gradnorm_alpha,
            lr=settings.gradnorm_lr,
            # cuDNN's recurrent layers have no second derivative; the closed form gives the same.
            create_graph=device.type != "cuda",
        )
    if settings.excite is not None:
        loss = ExcitedLoss(loss, settings.excite)
    return loss.to(device)


def build_optimizer(
    model: nn.Module, loss_fn: BalancedLoss, settings: TrainingSettings
) -> torch.optim.Optimizer:
    """The optimizer of a run, with what the balancer itself learns in a group of its own.

    Parameters
    ----------
    model : torch.nn.Module
        Whose parameters are trained.
    loss_fn : BalancedLoss
        From :func:`build_loss`; uncertainty weighting learns its log-variances.
    settings : TrainingSettings
        AdamW or SGD, learning rate, decay and momentum.

    Returns
    -------
    torch.optim.Optimizer

    Examples
    --------
    >>> settings = TrainingSettings(optimizer="sgd", lr=0.1)
    >>> loss = build_loss(settings, torch.device("cpu"))
    >>> build_optimizer(nn.Linear(3, 2), loss, settings).defaults["lr"]
    0.1
    """
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    inner = loss_fn.balancer
    if isinstance(inner, ScalarizedLoss) and (learned := list(inner.parameters())):
        # Decay would pull the log-variances of uncertainty weighting towards equal weights.
        groups.append({"params": learned, "weight_decay": 0.0})
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
