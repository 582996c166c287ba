"""Transformers: a mixin for ``Trainer`` whose models give several losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError, packages_for

with packages_for(__name__):
    import torch
    from torch import Tensor, nn

from gabactl.nn.checkpoint import has_strange, load_tensors
from gabactl.nn.integrations.logging import scalars
from gabactl.nn.losses.base import BalancedLoss
from gabactl.nn.losses.gaba import GABALoss
from gabactl.nn.sensors.norms import Tensors

__all__ = ["BalancedTrainerMixin"]


class BalancedTrainerMixin:
    """Put it before ``Trainer``: ``class MyTrainer(BalancedTrainerMixin, Trainer)``.

    Override :meth:`task_losses` and :meth:`shared_parameters`. The state of the balancer is saved
    as ``balancer.pt`` in every checkpoint and read back by ``train(resume_from_checkpoint=...)``.

    Parameters
    ----------
    *args, **kwargs
        For ``Trainer``.
    balancer : BalancedLoss
        What combines the losses.
    reuse : bool
        Use :meth:`gabactl.nn.GABALoss.backward` (needs a ``GABALoss``, no gradient scaler of
        Accelerate, no DeepSpeed).

    Raises
    ------
    InputError
        ``reuse`` with another balancer than a ``GABALoss``.

    Notes
    -----
    With ``gradient_accumulation_steps`` above 1, ``reuse`` takes one reading per optimiser step,
    on the accumulated gradient; without it every micro-batch is a step of the balancer.
    """

    _FILE = "balancer.pt"

    def __init__(
        self, *args: Any, balancer: BalancedLoss, reuse: bool = False, **kwargs: Any
    ) -> None:
        if reuse and not isinstance(balancer, GABALoss):
            raise InputError(f"reuse = True needs a GABALoss, not a {type(balancer).__name__}")
        super().__init__(*args, **kwargs)
        self.balancer = balancer.to(self.args.device)  # type: ignore[attr-defined]
        self.reuse = reuse
        # What compute_loss returns is a mean over this micro-batch; dividing is Trainer's work.
        self.model_accepts_loss_kwargs = False

    def task_losses(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensors, Any]:
        """The losses of one batch; to be overridden.

        Parameters
        ----------
        model : torch.nn.Module
            The model, perhaps wrapped.
        inputs : dict of str to Tensor
            The batch, on the model's device.

        Returns
        -------
        losses : sequence of K scalar tensors
            In the order of the balancer's tasks.
        outputs
            The model's outputs, for evaluation.
        """
        raise NotImplementedError("override task_losses(model, inputs) -> (losses, outputs)")

    def shared_parameters(self, model: nn.Module) -> Tensors:
        """The parameters all tasks share; to be overridden.

        Parameters
        ----------
        model : torch.nn.Module
            The model, perhaps wrapped.

        Returns
        -------
        sequence of Tensor
            Leaves that require a gradient.
        """
        raise NotImplementedError("override shared_parameters(model) -> list of parameters")

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The balanced loss, as ``Trainer`` asks for it.

        Parameters
        ----------
        model : torch.nn.Module
            The model; in eval mode the balancer takes no reading.
        inputs : dict of str to Tensor
            The batch.
        return_outputs : bool
            Whether the model's outputs are wanted too.
        **kwargs
            What ``Trainer`` passes besides; ignored.

        Returns
        -------
        Tensor, or a tuple of Tensor and outputs
            The weighted sum, 0-dimensional.
        """
        losses, outputs = self.task_losses(model, inputs)
        # Trainer evaluates with the model in eval mode, and without gradients.
        self.balancer.train(model.training)
        total = self.balancer.forward_k(losses, self.shared_parameters(model))
        return (total, outputs) if return_outputs else total

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any) -> Tensor:
        """As ``Trainer``'s, or through ``GABALoss.backward`` where ``reuse`` is set.

        Parameters
        ----------
        model : torch.nn.Module
            The model.
        inputs : dict of str to Tensor
            The batch.
        *args
            For ``Trainer.training_step``.

        Returns
        -------
        Tensor, 0-dimensional
            The weighted sum over the number of micro-batches, detached.

        Raises
        ------
        InputError
            ``reuse`` with a gradient scaler of Accelerate.
        """
        if not self.reuse:
            return super().training_step(model, inputs, *args)  # type: ignore[misc]
        trainer: Any = self
        if getattr(trainer.accelerator, "scaler", None) is not None:
            raise InputError("reuse does not work with fp16 scaling by Accelerate: use bf16")
        model.train()
        self.balancer.train()
        inputs = trainer._prepare_inputs(inputs)
        with trainer.compute_loss_context_manager():
            losses, _ = self.task_losses(model, inputs)
        micro = trainer.current_gradient_accumulation_steps
        assert isinstance(self.balancer, GABALoss)
        total = self.balancer.backward(
            losses, self.shared_parameters(model), micro_batches=int(micro)
        )
        return total / micro

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the balancer's weights and norms to every training log.

        Parameters
        ----------
        logs : dict of str to float
            What ``Trainer`` logs; those with a "loss" are of training.
        *args, **kwargs
            For ``Trainer.log``.
        """
        if "loss" in logs:
            logs = {**logs, **scalars(self.balancer)}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, model: nn.Module, trial: Any, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(model, trial, *args, **kwargs)  # type: ignore[misc]
        trainer: Any = self
        if trainer.args.should_save:
            place, step = trainer._get_output_dir(trial=trial), trainer.state.global_step
            torch.save(self.balancer.state_dict(), f"{place}/checkpoint-{step}/{self._FILE}")

    def _load_from_checkpoint(self, folder: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(folder, *args, **kwargs)  # type: ignore[misc]
        file = Path(folder) / self._FILE
        if not file.is_file():
            raise InputError(
                f"{folder} has no {self._FILE}: resume from a checkpoint this trainer has written"
            )
        state = load_tensors(file)
        if not isinstance(state, dict) or has_strange(state):
            raise InputError(f"{file}: not the state of a balancer: resume from another checkpoint")
        self.balancer.load_state_dict(state)
