"""Lightning: a callback that logs; the loss itself needs none.

Make the balancer an attribute of your ``LightningModule`` and return its total from
``training_step``; Lightning then saves its state in the checkpoint. With manual optimisation,
``training_step`` may call :meth:`gabactl.nn.GABALoss.backward` instead.
"""

from __future__ import annotations

from typing import Any

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError, packages_for

with packages_for(__name__):
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback

from gabactl.nn.integrations.logging import scalars
from gabactl.nn.losses.base import BalancedLoss

__all__ = ["BalanceLogger"]


class BalanceLogger(Callback):
    """Logs weights and gradient norms through ``trainer.logger``.

    Parameters
    ----------
    every : int, at least 1
        Training batches between logs; each reads the device.
    prefix : str
        Of the names.

    Raises
    ------
    InputError
        ``every`` is not a whole number >= 1.

    Examples
    --------
    >>> BalanceLogger(every=10).every
    10
    """

    def __init__(self, every: int = 50, prefix: str = "balance") -> None:
        check_int("every", every, 1, "try 50")
        self.every = every
        self.prefix = prefix

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module without a balancer, before the first step.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Who calls.
        pl_module : lightning.pytorch.LightningModule
            One of its attributes is to be the balancer.

        Raises
        ------
        InputError
            It has none.
        """
        _balancer_of(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log weights and norms, every so many batches, on the first rank.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Its ``logger`` takes the values, its ``global_step`` counts.
        pl_module : lightning.pytorch.LightningModule
            It has the balancer.
        *args, **kwargs
            What Lightning passes besides; ignored.
        """
        step = trainer.global_step
        if step % self.every == 0 and trainer.logger is not None and trainer.is_global_zero:
            trainer.logger.log_metrics(scalars(_balancer_of(pl_module), self.prefix), step=step)


def grad_scaler_of(trainer: Trainer) -> Any:
    """The gradient scaler of a trainer with ``precision="16-mixed"``, for ``grad_scaler=``.

    Parameters
    ----------
    trainer : lightning.pytorch.Trainer
        The module's trainer.

    Returns
    -------
    torch.amp.GradScaler or None
        None for any other precision.

    Examples
    --------
    >>> trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    >>> grad_scaler_of(trainer) is None
    True
    """
    return getattr(trainer.precision_plugin, "scaler", None)


def _balancer_of(pl_module: LightningModule) -> BalancedLoss:
    for module in pl_module.modules():
        if isinstance(module, BalancedLoss):
            return module
    raise InputError(
        f"{type(pl_module).__name__} has no balancer: set one in __init__, as in "
        "self.balance = GABALoss()"
    )
