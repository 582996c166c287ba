"""GradNorm, in its original and its textbook variant: a relay on the weights."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from gabactl.balancers.base import Array, Balancer, Reading, number
from gabactl.base.errors import InputError

__all__ = ["GradNorm"]

#: Added to the initial losses, as in the published comparison.
_TINY = 1e-8
#: Rows turned into Python's numbers at once.
_PIECE = 1 << 14


class GradNorm(Balancer):
    """Weights learnt by gradient steps on a sum_i |G_i - T_i|, with G_i = |w_i| g_i.

    The target T_i = mean(G) r_i^alpha is held constant, so that w_i moves by
    ``-lr * auxiliary_weight * g_i * sign(w_i) * sign(G_i - T_i)``: a relay whose step grows with
    the gradient norm. It ends in a limit cycle about that step wide, and a step larger than the
    weight makes the weight negative; the norm of the weighted loss cannot tell the sign, so from
    there the relay works on |w_i|.

    Parameters
    ----------
    variant : {"chen2018", "textbook"}
        ``chen2018``: r_i = (L_i/L_i(0)) / mean_j (L_j/L_j(0)), auxiliary weight 1, weights
        renormalised to sum K after each step. ``textbook``: r_i = L_i/L_i(0), auxiliary weight
        0.1, no renormalisation.
    alpha : float, at least 0
        Restoring force: a positive value gives the lagging task MORE weight.
    lr : float, positive
        Step size.
    auxiliary_weight : float, optional
        Factor a of the auxiliary loss; default the variant's.
    renormalise : bool, optional
        Rescale to sum K after each step; default the variant's.
    n_tasks : int, at least 2
        Number of tasks K.

    Raises
    ------
    InputError
        An unknown variant, or a value out of its range.

    Notes
    -----
    Source: Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: gradient normalization for
    adaptive loss balancing in deep multitask networks", ICML 2018. The weights start at 1 and are
    not on the simplex. Without losses every r_i is 1. A step without a reading changes nothing; a
    reading that is not finite makes the weights NaN, as in the original.

    Examples
    --------
    One step on the 480-parameter toy takes a weight from 1 to -2.8267:

    >>> balancer = GradNorm("textbook", lr=0.05, auxiliary_weight=1.0)
    >>> [balancer.step([76.5335, 0.36654]).round(4).tolist() for _ in range(2)]
    [[1.0, 1.0], [-2.8267, 1.0183]]
    """

    name = "gradnorm"

    def __init__(
        self,
        variant: Literal["chen2018", "textbook"] = "chen2018",
        alpha: float = 1.5,
        lr: float = 0.025,
        auxiliary_weight: float | None = None,
        renormalise: bool | None = None,
        n_tasks: int = 2,
    ) -> None:
        if variant not in ("chen2018", "textbook"):
            raise InputError(f"gradnorm: variant = {variant!r}: choose chen2018 or textbook")
        original = variant == "chen2018"
        if auxiliary_weight is None:
            auxiliary_weight = 1.0 if original else 0.1
        self.variant = variant
        self.alpha = number("gradnorm", "alpha", alpha, zero=True)
        self.lr = number("gradnorm", "lr", lr, zero=False)
        self.auxiliary_weight = number("gradnorm", "auxiliary_weight", auxiliary_weight, zero=False)
        self.renormalise = original if renormalise is None else bool(renormalise)
        super().__init__(n_tasks)

    def reset(self) -> None:
        """Back to weights 1 and no memory of the initial losses."""
        self.weights = np.ones(self.n_tasks)
        self.initial_losses: Array | None = None

    def relay_step(self, grad_norms: ArrayLike) -> Array:
        """How far one step moves each weight: lr a g_i, also the width of the limit cycle.

        Parameters
        ----------
        grad_norms : array_like, shape (..., K)
            Gradient norms.

        Returns
        -------
        array, of the same shape
            In units of weight per step.

        Examples
        --------
        >>> GradNorm(lr=0.05).relay_step([76.5335, 0.36654]).round(4).tolist()
        [3.8267, 0.0183]
        """
        return self.lr * self.auxiliary_weight * np.asarray(grad_norms, dtype=np.float64)

    def run(self, grad_norms: ArrayLike, losses: ArrayLike | None = None) -> Array:
        """Weights of a whole record, from the start: as :meth:`step` row by row, but much faster.

        To the last bit for fewer than eight tasks (beyond, sums may be rounded differently).

        Parameters
        ----------
        grad_norms : array, shape (steps, K)
            Gradient norms; rows that are all NaN took no reading.
        losses : array, shape (steps, K), optional
            Task losses.

        Returns
        -------
        array, shape (steps, K)
            Applied weights. The balancer itself is left alone.

        Raises
        ------
        InputError
            Shapes that do not fit, or a negative norm.

        Examples
        --------
        >>> GradNorm("textbook", lr=0.05, auxiliary_weight=1.0).run(
        ...     [[76.5335, 0.36654]] * 2)[:, 0].round(4).tolist()
        [1.0, -2.8267]
        """
        k = self.n_tasks
        norms = np.asarray(grad_norms, dtype=np.float64)
        if norms.ndim != 2 or norms.shape[1] != k or (norms < 0).any():
            raise InputError(
                f"gradnorm got norms of shape {norms.shape}: give (steps, {k}), each norm >= 0"
            )
        pulls = np.ones_like(norms)
        if losses is not None:
            values = np.asarray(losses, dtype=np.float64)
            if values.shape != norms.shape:
                raise InputError(
                    f"gradnorm got losses of shape {values.shape} for norms {norms.shape}: give "
                    "one loss per norm"
                )
            seen = ~np.isnan(norms).all(axis=1)
            if seen.any():
                pulls = self._pulls(values, values[int(np.argmax(seen))])
        if k == 2:
            return self._run_two(norms, pulls)
        steps = self.relay_step(norms)
        weights = [1.0] * k
        found = array("d")
        for row in _rows(norms, pulls, steps):
            g, pull, reach = row[:k], row[k : 2 * k], row[2 * k :]
            found.extend(weights)
            if all(x != x for x in g):
                continue
            weighted = [abs(w) * x for w, x in zip(weights, g, strict=True)]
            mean = _sum(weighted) / k
            weights = [
                w - r * _sign(w) * _sign(c - mean * p)
                for w, r, c, p in zip(weights, reach, weighted, pull, strict=True)
            ]
            if self.renormalise:
                total = _sum(weights)
                scale = k / total if total else float("inf")
                weights = [w * scale for w in weights]
        return np.asarray(found).reshape(norms.shape)

    def _run_two(self, norms: Array, pulls: Array) -> Array:
        """The same for two tasks, written out: a dashboard's slider waits for it."""
        steps = self.relay_step(norms)
        w1 = w2 = 1.0
        first, second = array("d"), array("d")
        for g1, g2, p1, p2, r1, r2 in _rows(norms, pulls, steps):
            first.append(w1)
            second.append(w2)
            c1, c2 = abs(w1) * g1, abs(w2) * g2
            mean = (c1 + c2) / 2
            over1, over2 = c1 - mean * p1, c2 - mean * p2
            if over1 == over1 and over2 == over2:
                # Less where it is over its target, for a positive weight; none at either zero.
                if w1 and over1:
                    w1 -= r1 if (over1 > 0) == (w1 > 0) else -r1
                if w2 and over2:
                    w2 -= r2 if (over2 > 0) == (w2 > 0) else -r2
            elif g1 == g1 or g2 == g2:
                w1 -= r1 * _sign(w1) * _sign(over1)
                w2 -= r2 * _sign(w2) * _sign(over2)
            else:
                continue
            if self.renormalise:
                total = w1 + w2
                scale = 2 / total if total else float("inf")
                w1, w2 = w1 * scale, w2 * scale
        return np.stack([np.asarray(first), np.asarray(second)], axis=1)

    def _pulls(self, losses: Array, initial: Array) -> Array:
        """What each target is times the mean: r_i^alpha, along the last axis."""
        rates = losses / (initial + _TINY)
        if self.variant == "chen2018":
            rates = rates / rates.mean(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return np.asarray(rates**self.alpha)

    def _step(self, grad_norms: Reading, losses: Reading) -> Array:
        applied = self.weights
        if grad_norms is None:
            return applied.copy()
        if losses is not None and self.initial_losses is None:
            self.initial_losses = losses.copy()
        weighted = np.abs(applied) * grad_norms
        above = np.sign(weighted - self._targets(weighted, losses))
        moved = applied - self.relay_step(grad_norms) * np.sign(applied) * above
        if self.renormalise:
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = moved * (self.n_tasks / moved.sum())
        self.weights = moved
        return applied.copy()

    def _targets(self, weighted: Array, losses: Array | None) -> Array:
        if losses is None or self.initial_losses is None:
            return np.full_like(weighted, weighted.mean())
        return np.asarray(weighted.mean() * self._pulls(losses, self.initial_losses))


def _sign(x: float) -> float:
    """As ``numpy.sign`` of one float: NaN stays NaN."""
    return x if x != x else float((x > 0) - (x < 0))


def _rows(*arrays: Array) -> Iterator[tuple[float, ...]]:
    """Row by row the numbers of all, as Python's own, a piece at a time."""
    for start in range(0, len(arrays[0]), _PIECE):
        piece = [a[start : start + _PIECE] for a in arrays]
        yield from zip(*(column.tolist() for a in piece for column in a.T), strict=True)


def _sum(values: list[float]) -> float:
    """From left to right, as NumPy adds fewer than eight; ``sum`` compensates from Python 3.12 on."""
    total = 0.0
    for value in values:
        total += value
    return total


def target_weights(
    grad_norms: ArrayLike, losses: ArrayLike, initial_losses: ArrayLike, alpha: float = 1.5
) -> Array:
    """Where the textbook compares GradNorm with GABA: w_i proportional to T_i / g_i.

    Parameters
    ----------
    grad_norms, losses, initial_losses : arrays, shape (K,)
        Present norms and losses, and the losses at the start.
    alpha : float
        Restoring force.

    Returns
    -------
    array, shape (K,)
        T_i / g_i on the simplex, with T_i = mean(g) (L_i / (L_i(0) + 1e-8))^alpha.

    Notes
    -----
    Source: "Gradient-Aware Multi-Task Learning for Predictive Maintenance", chapter 19.

    Examples
    --------
    >>> target_weights([5.0, 0.01], [10.0, 1.0], [20.0, 2.0]).round(6).tolist()
    [0.001996, 0.998004]
    """
    g = np.asarray(grad_norms, dtype=float)
    rates = np.asarray(losses, dtype=float) / (np.asarray(initial_losses, dtype=float) + _TINY)
    weights = g.mean() * rates**alpha / g
    return weights / weights.sum()
