"""AMNL's sample weights, and GRACE: their losses under GABA's task weights."""

from __future__ import annotations

from torch import Tensor, nn

from gabactl.base.errors import InputError

__all__ = ["amnl_loss", "grace_losses"]


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
    >>> import torch
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
    >>> import torch
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
    >>> import torch
    >>> rul, logits = torch.tensor([0.0, 125.0]), torch.zeros(2, 3)
    >>> [round(x.item(), 4) for x in grace_losses(rul + 1, rul, logits, torch.tensor([0, 2]))]
    [1.5, 1.0986]
    """
    return [
        amnl_loss(rul_predicted, rul, limit),
        nn.functional.cross_entropy(health_logits, health),
    ]
