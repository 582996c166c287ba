"""The controller: one pure function per stage, and the stateful NumPy reference.

The stages are sensor (:func:`share`), comparator (:func:`error`), proportional law
(:func:`raw_weights`), low-pass (:func:`smooth`) and floor (:func:`saturate`). All work along the
last axis (tasks) and are vectorised over the leading ones, in float64; arrays of
:class:`fractions.Fraction` (dtype object) stay exact, which is how counterexamples are replayed.

Source of the law: GABA, as stated in "Gradient-Aware Multi-Task Learning for Predictive
Maintenance", sections 17.2 and 17.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError
from gabactl.law.spec import FloorMode, GabaSpec, Guard, Law

__all__ = [
    "PUBLISHED_EPSILON",
    "Controller",
    "GabaSpec",
    "error",
    "project",
    "raw_weights",
    "saturate",
    "share",
    "smooth",
    "usable",
]

#: What the published law adds to the sum of the norms.
PUBLISHED_EPSILON = 1e-12

Array = NDArray[Any]


def usable(grad_norms: ArrayLike, law: Law = "complement") -> NDArray[np.bool_]:
    """Whether a reading can be acted on: the condition of ``guard="hold"``.

    Parameters
    ----------
    grad_norms : array, shape (..., K)
        Gradient norms.
    law : {"complement", "inverse"}
        The inverse law also needs every norm to be positive.

    Returns
    -------
    array of bool, shape (...)
        False where a norm is NaN or infinite, or their sum is 0 or overflows.

    Examples
    --------
    >>> usable([[250.0, 0.5], [0.0, 0.0], [1.0, float("nan")]]).tolist()
    [True, False, False]
    """
    g = _as_array(grad_norms)
    with np.errstate(over="ignore", invalid="ignore"):
        total = g.sum(axis=-1)
        ok = (total > 0) & _isfinite(total) & _isfinite(g).all(axis=-1)
        if law == "inverse":
            ok = ok & (g > 0).all(axis=-1)
    return np.asarray(ok, dtype=bool)


def share(grad_norms: ArrayLike, guard: Guard = "hold") -> Array:
    """Sensor: each task's share of the summed gradient norms, s_i = g_i / S.

    Parameters
    ----------
    grad_norms : array, shape (..., K)
        Gradient norms, each >= 0.
    guard : {"hold", "none"}
        ``none`` adds the published 1e-12 to S; ``hold`` does not, and gives NaN where the reading
        is not :func:`usable`.

    Returns
    -------
    array, shape (..., K)
        Shares in [0, 1]; with ``hold`` they sum to 1.

    Examples
    --------
    >>> share([250.0, 0.5]).round(6).tolist()
    [0.998004, 0.001996]
    """
    g = _as_array(grad_norms)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if guard == "none":
            return g / _published_total(g)
        return _where_usable(g, "complement", lambda x: x / x.sum(axis=-1, keepdims=True))


def error(shares: ArrayLike) -> Array:
    """Comparator: e_i = 1/K - s_i, positive for a task that is too quiet.

    Parameters
    ----------
    shares : array, shape (..., K)
        Shares from :func:`share`.

    Returns
    -------
    array, shape (..., K)
        Errors in [1/K - 1, 1/K]; they sum to 0 when the shares sum to 1.

    Examples
    --------
    >>> error(share([250.0, 0.5])).round(6).tolist()
    [-0.498004, 0.498004]
    """
    s = _as_array(shares)
    return _one_over(s.shape[-1], s) - s


def raw_weights(grad_norms: ArrayLike, law: Law = "complement", guard: Guard = "hold") -> Array:
    """Proportional law: raw weights from gradient norms.

    ``complement`` (published): raw_i = (S - g_i) / ((K - 1) S) = 1/K + e_i / (K - 1).
    ``inverse``: raw_i = (1/g_i) / sum_j (1/g_j), which equals it for K = 2.

    Parameters
    ----------
    grad_norms : array, shape (..., K)
        Gradient norms, each >= 0.
    law : {"complement", "inverse"}
        Which law.
    guard : {"hold", "none"}
        ``none`` puts the published 1e-12 into the denominator; ``hold`` leaves it out and gives
        NaN where the reading is not :func:`usable`, for the caller to hold its state.

    Returns
    -------
    array, shape (..., K)
        Raw weights on the simplex; ``complement`` stays below 1/(K-1). With ``guard="none"`` a
        sum of norms of the order of 1e-12 leaves the simplex (all zero: 1/(K-1) each).

    Examples
    --------
    >>> raw_weights([250.0, 0.5]).round(6).tolist()
    [0.001996, 0.998004]
    >>> raw_weights([1.0, 2.0, 7.0]).round(2).tolist()
    [0.45, 0.4, 0.15]
    """
    g = _as_array(grad_norms)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        if law == "inverse":
            if guard == "none":
                return _normalised(1 / (g + _published_epsilon(g)))
            # Scaled by the smallest norm, so that 1/g cannot overflow.
            return _where_usable(g, law, lambda x: _normalised(x.min(axis=-1, keepdims=True) / x))
        k = g.shape[-1]
        if guard == "none":
            total = _published_total(g)
            return (total - g) / ((k - 1) * total)
        return _where_usable(g, law, _complement)


def smooth(ema: ArrayLike, raw: ArrayLike, beta: Any, interval: int = 1) -> Array:
    """Low-pass: beta^N ema + (1 - beta^N) raw, with N the sampling interval.

    Parameters
    ----------
    ema, raw : arrays, shape (..., K)
        Stored average and the new raw weights.
    beta : float in [0, 1]
        Pole per optimisation step. Unlike :class:`GabaSpec` this pure stage takes 1, which never
        moves.
    interval : int, at least 1
        Steps between readings.

    Returns
    -------
    array, shape (..., K)
        The new average; on the simplex when both inputs are.

    Examples
    --------
    >>> smooth([0.5, 0.5], [0.0, 1.0], 0.99).round(6).tolist()
    [0.495, 0.505]
    """
    pole = beta**interval
    return pole * _as_array(ema) + (1 - pole) * _as_array(raw)


def saturate(ema: ArrayLike, floor: Any, floor_mode: FloorMode = "renormalise") -> Array:
    """Floor: applied weights from the average.

    Parameters
    ----------
    ema : array, shape (..., K)
        Averaged weights.
    floor : float in [0, 1/K)
        The floor m.
    floor_mode : {"renormalise", "affine", "project", "clamp_state"}
        ``renormalise``: max(ema, m) divided by its sum (published). ``affine``: m + (1 - K m) ema.
        ``project`` and ``clamp_state``: :func:`project` (the latter also replaces the state,
        which is the caller's to do).

    Returns
    -------
    array, shape (..., K)
        Weights that sum to 1.

    Examples
    --------
    >>> saturate([0.0, 1.0], 0.05).round(6).tolist()
    [0.047619, 0.952381]
    >>> saturate([0.0, 1.0], 0.05, "project").round(6).tolist()
    [0.05, 0.95]
    """
    e = _as_array(ema)
    if floor_mode == "renormalise":
        return _normalised(np.maximum(e, floor))
    if floor_mode == "affine":
        return floor + (1 - e.shape[-1] * floor) * _normalised(e)
    return project(e, floor)


def project(ema: ArrayLike, floor: Any) -> Array:
    """Euclidean projection onto {w : w_i >= floor, sum w = 1}.

    Parameters
    ----------
    ema : array, shape (..., K)
        Any point.
    floor : float in [0, 1/K)
        Lower bound of every component.

    Returns
    -------
    array, shape (..., K)
        The nearest point of the set; NaN where the input has one.

    Notes
    -----
    Sort and threshold: Held, Wolfe and Crowder, "Validation of subgradient optimization",
    Mathematical Programming 6 (1974).

    Examples
    --------
    >>> project([0.02, 0.38, 0.6], 0.1).round(6).tolist()
    [0.1, 0.34, 0.56]
    """
    e = _as_array(ema)
    k = e.shape[-1]
    excess = e - floor
    ranks = np.arange(1, k + 1)
    if e.dtype == object:
        ranks = np.array([Fraction(int(r)) for r in ranks], dtype=object)
    # The mean excess over the budget of the j largest grows with j while they stay above it and
    # falls afterwards, so the largest of these means is the threshold (and NaN stays NaN).
    largest_first = np.cumsum(-np.sort(-excess, axis=-1), axis=-1)
    threshold = ((largest_first - (1 - k * floor)) / ranks).max(axis=-1, keepdims=True)
    return floor + np.maximum(excess - threshold, 0)


class Controller:
    """GABA in NumPy: the stateful reference the other implementations are tested against.

    Parameters
    ----------
    spec : GabaSpec, optional
        Settings; the default is the published setting with ``guard="hold"``.

    Attributes
    ----------
    ema_weights : array, shape (K,)
        Stored average, 1/K at first.
    step_count : int
        Steps taken, warm-up included.
    last_grad_norms, last_raw_weights : array, shape (K,), or None
        The last reading, and its raw weights (NaN where the guard held).

    Examples
    --------
    The five steps of the published check (section 17.4):

    >>> controller = Controller(GabaSpec(warmup=2))
    >>> for losses, norms in [((5000, 1.10), None), ((4900, 1.08), None),
    ...                       ((4800, 1.06), (250, 0.20)), ((4700, 1.04), (300, 0.22)),
    ...                       ((4600, 1.02), (350, 0.24))]:
    ...     total, weights = controller.step(losses, norms)
    >>> controller.ema_weights.round(6).tolist()
    [0.485171, 0.514829]
    """

    def __init__(self, spec: GabaSpec | None = None) -> None:
        self.spec = GabaSpec() if spec is None else spec
        self.reset()

    def reset(self) -> None:
        """Back to step 0 and weights 1/K.

        Examples
        --------
        >>> controller = Controller(GabaSpec(warmup=0))
        >>> _ = controller.step([1.0, 1.0], [9.0, 1.0])
        >>> controller.reset()
        >>> controller.ema_weights.tolist()
        [0.5, 0.5]
        """
        k = self.spec.n_tasks
        self.ema_weights: Array = np.full(k, 1.0 / k)
        self.step_count: int = 0
        self.last_grad_norms: Array | None = None
        self.last_raw_weights: Array | None = None

    @property
    def will_measure(self) -> bool:
        """Whether the next step takes a reading (past the warm-up, and on the interval)."""
        return self.spec.measures_at(self.step_count + 1)

    @property
    def weights(self) -> Array:
        """Weights after the last step that had a reading to act on, shape (K,)."""
        if self.step_count <= self.spec.warmup:
            return np.full(self.spec.n_tasks, 1.0 / self.spec.n_tasks)
        return saturate(self.ema_weights, self.spec.floor, self.spec.floor_mode)

    def step(
        self, losses: Sequence[float] | Array, grad_norms: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """One optimisation step.

        Parameters
        ----------
        losses : sequence of K floats
            Task losses.
        grad_norms : array, shape (K,), optional
            Gradient norms. Ignored during warm-up and between readings. At a reading, None gives
            uniform weights and leaves the state alone, as published without shared parameters.

        Returns
        -------
        total : float
            Sum of w_i * loss_i, accumulated from 0.0 in task order.
        weights : array, shape (K,)
            Applied weights; they sum to 1.

        Raises
        ------
        InputError
            Wrong number of losses or norms, or a negative norm. The state has not moved then.

        Examples
        --------
        >>> total, weights = Controller(GabaSpec(warmup=0, beta=0)).step([2.0, 2.0], [3.0, 1.0])
        >>> total, weights.tolist()
        (2.0, [0.25, 0.75])
        """
        k = self.spec.n_tasks
        if len(losses) != k:
            raise InputError(f"got {len(losses)} losses for n_tasks = {k}: pass one loss per task")
        weights = self.observe(grad_norms)
        total = 0.0
        for weight, loss in zip(weights, losses, strict=True):
            total += float(weight) * float(loss)
        return total, weights

    def observe(self, grad_norms: ArrayLike | None) -> Array:
        """Advance one step on a reading alone, and return the applied weights, shape (K,).

        As :meth:`step`, for callers that have no losses (replays, simulations).

        Parameters
        ----------
        grad_norms : array_like, shape (K,), or None
            As for :meth:`step`.

        Returns
        -------
        array, shape (K,)
            Applied weights; they sum to 1.

        Raises
        ------
        InputError
            Wrong number of norms, or a negative norm. The state has not moved then.

        Examples
        --------
        >>> Controller(GabaSpec(warmup=0, beta=0)).observe([3.0, 1.0]).tolist()
        [0.25, 0.75]
        """
        spec = self.spec
        reading = None if grad_norms is None else self._checked(grad_norms)
        self.step_count += 1
        if self.step_count <= spec.warmup:
            return np.full(spec.n_tasks, 1.0 / spec.n_tasks)
        if spec.measures_at(self.step_count):
            if reading is None:
                return np.full(spec.n_tasks, 1.0 / spec.n_tasks)
            self._take(reading)
        return saturate(self.ema_weights, spec.floor, spec.floor_mode)

    def _checked(self, grad_norms: ArrayLike) -> Array:
        reading = np.asarray(grad_norms, dtype=np.float64)
        if reading.shape != (self.spec.n_tasks,):
            raise InputError(
                f"got grad_norms of shape {reading.shape} for n_tasks = {self.spec.n_tasks}: "
                "pass one gradient norm per task"
            )
        if (reading < 0).any():
            raise InputError(f"grad_norms = {reading.tolist()} has a negative norm: norms are >= 0")
        return reading

    def _take(self, reading: Array) -> None:
        spec = self.spec
        raw = raw_weights(reading, spec.law, spec.guard)
        self.last_grad_norms, self.last_raw_weights = reading, raw
        if spec.guard == "hold" and not usable(reading, spec.law):
            return
        self.ema_weights = smooth(self.ema_weights, raw, spec.beta, spec.interval)
        if spec.floor_mode == "clamp_state":
            self.ema_weights = project(self.ema_weights, spec.floor)


def _as_array(values: ArrayLike) -> Array:
    array = np.asarray(values)
    return array if array.dtype == object else array.astype(np.float64, copy=False)


def _isfinite(values: Array) -> Array:
    if np.asarray(values).dtype == object:
        return np.ones(np.shape(values), dtype=bool)
    return np.isfinite(values)


def _one_over(k: int, like: Array) -> Any:
    return Fraction(1, k) if like.dtype == object else 1.0 / k


def _published_epsilon(like: Array) -> Any:
    return Fraction(1, 10**12) if like.dtype == object else PUBLISHED_EPSILON


def _published_total(g: Array) -> Array:
    return g.sum(axis=-1, keepdims=True) + _published_epsilon(g)


def _normalised(values: Array) -> Array:
    return values / values.sum(axis=-1, keepdims=True)


def _complement(g: Array) -> Array:
    # Divided twice, because (K - 1) S can overflow where S does not.
    total = g.sum(axis=-1, keepdims=True)
    return (total - g) / total / (g.shape[-1] - 1)


def _where_usable(g: Array, law: Law, rule: Any) -> Array:
    """``rule(g)`` with NaN in the rows that cannot be used."""
    ok = usable(g, law)[..., None]
    if g.dtype == object:
        if not ok.all():
            raise InputError("an exact reading has no positive sum (or a zero norm, inverse law)")
        return rule(g)
    return np.where(ok, rule(np.where(ok, g, 1.0)), np.nan)
