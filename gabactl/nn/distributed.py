"""Data-parallel training: what the ranks agree on, and in which order gradients are reduced.

Three sensors are possible, and they differ. ``norm_of_mean`` measures the gradient of the joint
batch: K all-reduces of a gradient per reading. ``mean_of_norms`` averages the ranks' own norms: K
numbers per reading, at least as large as the former, and larger the more the ranks' gradients
differ. ``local`` agrees on nothing: the ranks' weights differ, and so do the losses they minimise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from gabactl.base.checks import check_choice, check_int
from gabactl.base.errors import InputError
from gabactl.nn.sensors.norms import Tensors

Reduce = Literal["norm_of_mean", "mean_of_norms", "local"]


class RankLostError(RuntimeError):
    """A collective of the balancer failed: another rank is gone, or waits for something else."""


def check_reduce(reduce: Reduce | None) -> None:
    """Refuse an unknown reduction.

    Parameters
    ----------
    reduce : str or None
        What was asked for.

    Raises
    ------
    InputError
        Unknown.

    Examples
    --------
    >>> check_reduce("mean_of_norms")
    """
    if reduce is not None:
        check_choice("reduce", reduce, get_args(Reduce))


def reducer_for(
    reduce: Reduce | None, group: Any = None, samples: int | None = None
) -> Reducer | None:
    """The reducer for this process; None where it trains alone.

    Parameters
    ----------
    reduce : {"norm_of_mean", "mean_of_norms", "local"} or None
        What the ranks agree on.
    group : torch.distributed.ProcessGroup, optional
        The ranks that train together; default: all.
    samples : int, optional
        Samples in this rank's batch; default: all ranks count alike.

    Raises
    ------
    InputError
        An unknown choice, or none although there are several ranks.

    Examples
    --------
    >>> reducer_for("norm_of_mean") is None  # no process group here
    True
    """
    check_reduce(reduce)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return None
    if reduce is None:
        raise InputError(
            f"{dist.get_world_size(group)} ranks train together and reduce is not set: choose "
            "reduce='norm_of_mean' (the joint batch), 'mean_of_norms' (K numbers per reading) or "
            "'local' (the ranks' weights then differ)"
        )
    return Reducer(reduce, group, samples)


class Reducer:
    """Averages over the ranks of one step; ``weighted`` where they count by their samples.

    Parameters
    ----------
    reduce : {"norm_of_mean", "mean_of_norms", "local"}
        What the ranks agree on.
    group : torch.distributed.ProcessGroup, optional
        Default: all ranks.
    samples : int, optional
        Samples in this rank's batch, as its share in every mean of this step.

    Raises
    ------
    InputError
        A negative number of samples.
    """

    def __init__(self, reduce: Reduce, group: Any = None, samples: int | None = None) -> None:
        if samples is not None:
            check_int("samples", samples, 0, "pass the size of the batch")
        self.reduce = reduce
        self.weighted = samples is not None
        self._group = group
        self._samples = samples
        self._share: Tensor | None = None

    def mean_norms(self, norms: Tensor) -> Tensor:
        """Mean of the ranks' norms.

        Parameters
        ----------
        norms : Tensor, shape (K,)
            Of this rank.

        Returns
        -------
        Tensor, shape (K,)
            The same on all ranks; they count by their samples where these were given.
        """
        mean = norms * self._share_of(norms)
        self._sum(mean)
        return mean

    def mean_gradients(
        self, gradients: Sequence[Tensor | None], parameters: Tensors
    ) -> list[Tensor | None]:
        """Mean over the ranks, in one all-reduce per dtype and device.

        Parameters
        ----------
        gradients : sequence of Tensor or None
            None counts as zero: another rank may have a gradient there.
        parameters : sequence of Tensor
            What they are gradients of; the same on every rank, in the same order.

        Returns
        -------
        list of P Tensors or None
            Of the shapes of the parameters, the same on all ranks.
        """
        filled = [
            torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
            for g, p in zip(gradients, parameters, strict=True)
        ]
        means: list[Tensor | None] = list(filled)
        buckets: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for i, gradient in enumerate(filled):
            buckets.setdefault((gradient.dtype, gradient.device), []).append(i)
        for indices in buckets.values():
            parts = [filled[i] for i in indices]
            flat = torch.cat([part.reshape(-1) for part in parts])
            flat = flat * self._share_of(flat)
            self._sum(flat)
            pieces = torch.split(flat, [part.numel() for part in parts])
            for i, part, piece in zip(indices, parts, pieces, strict=True):
                means[i] = piece.view(part.shape).clone()
        return means

    def refuse_disagreement(self, values: Tensor, step: int) -> None:
        """Raise on every rank where the ranks do not hold the same values, to the last bit.

        Parameters
        ----------
        values : Tensor, any shape
            What must be equal; NaN equals NaN.
        step : int
            For the message.

        Raises
        ------
        RuntimeError
            They differ: the ranks started from different states, or took different steps.
        """
        known = torch.nan_to_num(values.detach(), nan=-1.0)
        both = torch.cat([known, -known])
        self._sum(both, dist.ReduceOp.MAX)
        k = len(known)
        if not torch.equal(both[:k], -both[k:]):
            raise RuntimeError(
                f"the ranks hold different weights at step {step} (this one {values.tolist()}): "
                "load the same checkpoint on every rank, and call the loss on every rank"
            )

    def _share_of(self, like: Tensor) -> Tensor:
        if self._share is None:
            size = dist.get_world_size(self._group)
            if self._samples is None:
                self._share = torch.full((), 1.0 / size, dtype=torch.float64)
            else:
                total = torch.tensor(float(self._samples), dtype=torch.float64, device=like.device)
                self._sum(total)
                self._share = self._samples / total
        return self._share.to(like.device, like.dtype)

    def _sum(self, values: Tensor, operation: Any = dist.ReduceOp.SUM) -> None:
        try:
            dist.all_reduce(values, operation, self._group)
        except RuntimeError as error:
            raise RankLostError(
                f"rank {dist.get_rank()}: the other ranks did not answer ({str(error)[:120]}). One "
                "has stopped, or does not call the balancer at the same steps; the time allowed is "
                "the timeout of init_process_group"
            ) from error
