"""``subset``: the gradient on part of the batch, corrected for the noise that a small batch adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from gabactl.base.checks import check_choice
from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.nn.sensors.base import Sensor
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.gradients import each_task
from gabactl.nn.sensors.norms import Tensors, inner_product

__all__ = ["SubsetSensor"]


class SubsetSensor(Sensor):
    """Norms from two halves of a part of the batch, without the bias of small batches.

    A batch of b samples has E|g_b|^2 = |G|^2 + tr(S)/b, with G the gradient of the expected loss
    and S the covariance of one sample's gradient. From the batch sizes b and 2 b,
    |G|^2 is estimated by 2 |g_2b|^2 - |g_b|^2, which for the two halves g, h of the same samples
    is g . h. ``of="batch"`` adds tr(S)/B back: what the ``full`` sensor measures on all B samples.

    The estimate is unbiased and can be negative; the reading is then unusable, and ``guard="hold"``
    keeps the average (where that happens often, what remains is biased upwards: raise the fraction).
    Costs a forward pass of ``fraction`` of the batch and K backward passes of
    it: about ``fraction * (1 + 2 K) / 3`` plain steps. Its noise grows as the fraction shrinks.
    Batch norm sees the extra forward pass.

    Parameters
    ----------
    losses_of : callable
        ``losses_of(*tensors) -> K losses``, means over the samples given.
    fraction : float in (0, 1]
        Part of the batch to use, split into two halves.
    of : {"signal", "batch"}
        |G|, without noise, or the norm on the whole batch. They differ where noise dominates.

    Raises
    ------
    InputError
        A fraction not in (0, 1], or an unknown ``of``.

    Notes
    -----
    Source: McCandlish, Kaplan, Amodei et al., "An empirical model of large-batch training" (2018),
    appendix A.1. Call :meth:`feed` with the batch before the loss. ``losses_of`` runs the model by
    itself: under mixed precision, put ``torch.autocast`` into it. Ranks average the squared norms'
    roots.

    Examples
    --------
    >>> w = torch.ones((), requires_grad=True)
    >>> sensor = SubsetSensor(lambda x: [(w * x).mean(), (2 * w * x).mean()], fraction=0.5)
    >>> sensor.feed(torch.ones(8))
    >>> sensor.read([], [w], Context())
    tensor([1., 2.])
    """

    name = "subset"

    def __init__(
        self,
        losses_of: Callable[..., Tensors],
        fraction: float = 0.25,
        of: Literal["signal", "batch"] = "batch",
    ) -> None:
        super().__init__()
        if not 0.0 < fraction <= 1.0:
            raise InputError(f"fraction = {fraction} is not in (0, 1]: choose for example 0.25")
        check_choice("of", of, ("signal", "batch"))
        self.losses_of = losses_of
        self.fraction = fraction
        self.of = of
        self._batch: tuple[Tensor, ...] | None = None

    def feed(self, *tensors: Tensor) -> None:
        """The batch of the step to come, tensors with samples along the first axis.

        Parameters
        ----------
        *tensors : Tensor, shape (B, ...)
            What ``losses_of`` takes; the batch has to be shuffled, since the first samples are
            used.

        Raises
        ------
        InputError
            Fewer than two samples in the fraction.
        """
        half = int(len(tensors[0]) * self.fraction) // 2
        if half < 1:
            raise InputError(
                f"a fraction {self.fraction} of {len(tensors[0])} samples has no two halves: "
                "raise the fraction"
            )
        self._batch = tensors

    def reads_every_step(self, spec: GabaSpec) -> bool:
        """Without an interval."""
        return spec.interval == 1

    def squares(self, parameters: Tensors, context: Context | None = None) -> Tensor:
        """Unbiased estimates of the squared norms, shape (K,), for the batch fed last.

        Parameters
        ----------
        parameters : sequence of Tensor
            Shared parameters.
        context : Context, optional
            With a gradient scaler, gradients are taken of the scaled losses; the estimates are not
            scaled.

        Returns
        -------
        Tensor, shape (K,)
            Negative where chance has it so.

        Raises
        ------
        InputError
            No batch since the last reading.
        """
        if self._batch is None:
            raise InputError(
                "the subset sensor has no batch: call sensor.feed(...) before the loss"
            )
        batch, self._batch = self._batch, None
        size = len(batch[0])
        half = int(size * self.fraction) // 2
        within = Context() if context is None else context
        halves = [t[:half] for t in batch], [t[half : 2 * half] for t in batch]
        first, second = (
            list(each_task(list(self.losses_of(*part)), parameters, within, retain_last=False))
            for part in halves
        )
        squares = []
        for g, h in zip(first, second, strict=True):
            signal = inner_product(g, h)
            if self.of == "batch":
                noise = (inner_product(g, g) + inner_product(h, h)) / 2 - signal  # tr(S) / half
                signal = signal + noise * (half / size)
            squares.append(signal)
        return within.unscale(within.unscale(torch.stack(squares)))

    def read(self, losses: Tensors, parameters: Tensors, context: Context) -> Tensor:
        """Estimated norms, shape (K,); NaN where an estimate of a square is negative."""
        squares = self.squares(parameters, context)
        return context.agree(torch.where(squares >= 0, squares, torch.nan).sqrt())

    def describe(self) -> dict[str, Any]:
        """Name, fraction, and which norm is estimated."""
        return {**super().describe(), "fraction": self.fraction, "of": self.of}
