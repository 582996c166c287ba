"""What the floor guarantees and what it costs: weight ranges, the knee, residuals, dead time.

All of it is about settled or worst-case weights and needs no plant, except the closed-loop
authority, which scales with the plant's feedback.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base import plots
from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.floors import FLOORS, FloorMode
from gabactl.law.laws import LAWS, Law
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import saturate

__all__ = [
    "Authority",
    "WeightBounds",
    "authority",
    "closed_loop_authority",
    "dead_time",
    "required_floor",
    "saturation_ratio",
    "settled_weights",
    "weight_bounds",
]

#: Imbalances of the published regime (start, middle, peak), as ratios.
PUBLISHED_RATIOS = (50.0, 500.0, 2400.0)


def weight_range(floor: Any, n_tasks: int, law: Law, floor_mode: FloorMode) -> tuple[Any, Any]:
    """Infimum and supremum of an applied weight, in the arithmetic of ``floor``.

    Parameters
    ----------
    floor : float or fractions.Fraction in [0, 1/K)
        The floor m; a fraction gives exact fractions.
    n_tasks : int, at least 2
        Number of tasks K.
    law : {"complement", "inverse"}
        For K = 2 they agree. For K >= 3 the complement law keeps every ema at or below 1/(K-1).
    floor_mode : {"renormalise", "affine", "project", "clamp_state"}
        The saturation.

    Returns
    -------
    (lower, upper) : pair
        Over every ema the controller can reach.

    Notes
    -----
    The ema is on the simplex (and below 1/(K-1) with the complement law); what the floor makes of
    its extremes stands in :mod:`gabactl.law.floors`.

    Examples
    --------
    >>> from fractions import Fraction
    >>> weight_range(Fraction(1, 20), 2, "complement", "renormalise")
    (Fraction(1, 21), Fraction(20, 21))
    >>> weight_range(Fraction(1, 20), 3, "complement", "project")
    (Fraction(1, 20), Fraction(1, 2))
    """
    return FLOORS[floor_mode].range(floor, n_tasks, LAWS[law].sharers(n_tasks))


@dataclass(frozen=True)
class WeightBounds(Result):
    """True range of the applied weights beside the stated one.

    Attributes
    ----------
    spec : GabaSpec
        The settings.
    lower, upper : float
        Infimum and supremum over every sequence of finite readings.
    stated_lower, stated_upper : float
        [m, 1 - m], as the literature states it.
    promised_upper : float
        1 - (K-1) m: what a lower bound of m on every weight leaves for one of them.
    lower_attained, upper_attained : bool
        Whether some sequence of readings gives the bound itself (else it is only approached).
    lower_holds, upper_holds : bool
        Whether the stated bound is true.
    """

    spec: GabaSpec
    lower: float
    upper: float
    stated_lower: float
    stated_upper: float
    promised_upper: float
    lower_attained: bool
    upper_attained: bool

    title = "Range of the applied weights"

    @property
    def lower_holds(self) -> bool:
        """Whether every weight stays at or above the stated lower bound m."""
        return self.lower >= self.stated_lower

    @property
    def upper_holds(self) -> bool:
        """Whether every weight stays at or below the stated upper bound 1 - m."""
        return self.upper <= self.stated_upper + 1e-15

    def _draw(self, ax: Any) -> None:
        """The true range of a weight beside the stated one."""
        stated, true = (self.stated_lower, self.stated_upper), (self.lower, self.upper)
        for i, (low, high) in enumerate((stated, true)):
            ax.plot([low, high], [i, i], lw=8, solid_capstyle="butt", color=plots.PALETTE[i])
            ax.annotate(f"{low:.6g}  to  {high:.6g}", (0.5, i - 0.18), ha="center")
        ax.set_yticks([0, 1], ["stated", "true"])
        ax.set(xlim=(0, 1), ylim=(1.6, -0.6), xlabel="applied weight", title=self.title)

    def facts(self) -> dict[str, Any]:
        """Keys: bounds, stated_bounds, promised_upper, lower_attained, upper_attained, ..."""
        return {
            **{
                name: getattr(self.spec, name) for name in ("n_tasks", "floor", "floor_mode", "law")
            },
            "bounds": [self.lower, self.upper],
            "stated_bounds": [self.stated_lower, self.stated_upper],
            "promised_upper": self.promised_upper,
            "lower_attained": self.lower_attained,
            "upper_attained": self.upper_attained,
            "stated_lower_holds": self.lower_holds,
            "stated_upper_holds": self.upper_holds,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The two bounds, true and stated."""
        return [
            ("", "true", "stated", "", ""),
            *(
                (
                    end,
                    f"{getattr(self, end):.6f}",
                    f"{getattr(self, 'stated_' + end):.6f}",
                    "holds" if getattr(self, end + "_holds") else "does not hold",
                    "attained" if getattr(self, end + "_attained") else "approached",
                )
                for end in ("lower", "upper")
            ),
        ]


def weight_bounds(spec: GabaSpec) -> WeightBounds:
    """True range of every applied weight, for any sequence of finite readings.

    Computed floats may exceed the exact range: by less than 4 ulp for two tasks, by up to
    (K + 2)(2/(1-beta) + K + 1) eps for more (theorems ROUND-range and ROUND-weights). With
    ``guard="none"`` one non-finite reading makes the weights NaN, and then nothing holds.

    Parameters
    ----------
    spec : GabaSpec
        Settings; n_tasks, floor, floor_mode, law and (for attainment) beta matter.

    Returns
    -------
    WeightBounds
        See :func:`weight_range` for the formulas.

    Examples
    --------
    >>> print(weight_bounds(GabaSpec()))
    Range of the applied weights
             true      stated
      lower  0.047619  0.050000  does not hold  approached
      upper  0.952381  0.950000  does not hold  approached
    """
    lower, upper = weight_range(spec.floor, spec.n_tasks, spec.law, spec.floor_mode)
    lower_attained, upper_attained = _attained(spec)
    return WeightBounds(
        spec=spec,
        lower=lower,
        upper=upper,
        stated_lower=spec.floor,
        stated_upper=1.0 - spec.floor,
        promised_upper=1.0 - (spec.n_tasks - 1) * spec.floor,
        lower_attained=lower_attained,
        upper_attained=upper_attained,
    )


def _attained(spec: GabaSpec) -> tuple[bool, bool]:
    """Whether the lower and the upper bound are values, not only limits (published 1e-12 aside).

    A bound that needs an ema at the edge of its range (0, or 1/(K-1)) is a value only without
    smoothing (beta = 0), and only where the raw weight itself gets there: the complement law does
    so at a zero norm, the inverse law refuses zero norms. A projected weight reaches a bound set
    by the floor at emas inside their range.
    """
    law = LAWS[spec.law]
    edge = spec.beta == 0.0 and not law.needs_positive
    sharers = law.sharers(spec.n_tasks)
    return FLOORS[spec.floor_mode].attained(spec.floor, spec.n_tasks, sharers, edge)


def saturation_ratio(spec: GabaSpec) -> float:
    """Imbalance at which the settled ema of the loud task reaches the floor: the knee.

    (1 - m)/m for two tasks. For K > 2: one task that many times louder than each of the others,
    which are equal: 1/m - (K - 1) with the complement law, (1 - m)/((K - 1) m) with the inverse.

    Parameters
    ----------
    spec : GabaSpec
        Settings; n_tasks, floor and law matter.

    Returns
    -------
    float
        A ratio above 1; infinite without a floor.

    Examples
    --------
    >>> round(saturation_ratio(GabaSpec()), 12)
    19.0
    """
    if spec.floor == 0.0:
        return math.inf
    return LAWS[spec.law].knee(spec.floor, spec.n_tasks)


def settled_weights(spec: GabaSpec, ratio: ArrayLike) -> NDArray[np.float64]:
    """Applied weights after a constant imbalance has been held for long.

    Parameters
    ----------
    spec : GabaSpec
        Settings.
    ratio : float or array, shape (...), positive
        Norm of the first task over that of each other task (the others are equal).

    Returns
    -------
    array, shape (..., K)
        They sum to 1.

    Notes
    -----
    A constant imbalance settles the average at the raw weights of the norms (R, 1, ..., 1), and the
    floor acts on that. For ``renormalise`` and K = 2, past the knee: ema_1 = 1/(1 + R) < m, so
    w_1 = m/(m + R/(1+R)).

    Examples
    --------
    >>> settled_weights(GabaSpec(), [50.0, 500.0, 2400.0])[:, 0].round(5).tolist()
    [0.04853, 0.04771, 0.04764]
    """
    return np.asarray(
        saturate(_settled_raw(spec.n_tasks, spec.law, ratio), spec.floor, spec.floor_mode),
        dtype=np.float64,
    )


def residual_ratio(spec: GabaSpec, ratio: ArrayLike) -> NDArray[np.float64]:
    """Ratio of effective contributions w_1 g_1/(w_2 g_2) that a settled imbalance leaves.

    1 is perfect balance. Past the knee ``renormalise`` leaves m (1 + R); ``affine`` leaves a
    residual everywhere; with K > 2 the complement law leaves one even without a floor.

    Parameters
    ----------
    spec : GabaSpec
        Settings.
    ratio : float or array, shape (...), positive
        As in :func:`settled_weights`.

    Returns
    -------
    array, shape (...)
        Residual ratio.

    Notes
    -----
    For K = 2 and inside the knee w_1/w_2 = 1/R. Past it ``renormalise`` gives
    w_1/w_2 = m/(R/(1+R)), and R times that is m (1 + R).

    Examples
    --------
    >>> residual_ratio(GabaSpec(), [10.0, 50.0, 500.0, 2400.0]).round(2).tolist()
    [1.0, 2.55, 25.05, 120.05]
    """
    weights = settled_weights(spec, ratio)
    # In this order nothing overflows: the quieter task's weight may be as small as 1/ratio.
    return np.asarray(weights[..., 0] * np.asarray(ratio, dtype=np.float64) / weights[..., 1])


def required_floor(
    ratio: ArrayLike, n_tasks: int = 2, law: Law = "complement"
) -> NDArray[np.float64]:
    """Largest floor that leaves the loop its authority over an imbalance.

    Parameters
    ----------
    ratio : float or array, shape (...), positive
        As in :func:`settled_weights`; for two tasks R and 1/R are alike.
    n_tasks : int, at least 2
        Number of tasks.
    law : {"complement", "inverse"}
        Matters for K > 2.

    Returns
    -------
    array, shape (...)
        The smallest settled raw weight: 1/(1+R) for two tasks.

    Notes
    -----
    Past that floor the average of the loudest task settles below it, and the weight no longer
    follows. For R >= 1 and K tasks it is 1/(R + K - 1) with the complement law, and
    1/(1 + (K - 1) R) with the inverse.

    Examples
    --------
    >>> float(required_floor(2400.0).round(6))
    0.000416
    """
    return np.asarray(_settled_raw(n_tasks, law, ratio).min(axis=-1), dtype=np.float64)


def _settled_raw(n_tasks: int, law: Law, ratio: ArrayLike) -> NDArray[np.float64]:
    r = np.asarray(ratio, dtype=np.float64)
    if not (np.isfinite(r) & (r > 0)).all():
        raise InputError(f"ratio = {ratio!r} is not positive and finite: give g_1/g_2, such as 500")
    return np.asarray(LAWS[law].settled(r, n_tasks), dtype=np.float64)


def dead_time(spec: GabaSpec, stored_ema: float, raw: float) -> float:
    """Steps a saturated task waits before its weight can answer a new raw value.

    Parameters
    ----------
    spec : GabaSpec
        Settings; beta, interval, floor and floor_mode matter.
    stored_ema : float in [0, 1]
        Stored average when the raw value jumps.
    raw : float in [0, 1]
        The new raw value, held from then on.

    Returns
    -------
    float
        Whole steps until the stored average is back at the floor: ln((c - eps)/(c - m))/-ln beta,
        rounded up to whole readings. 0 where the average is not below the floor, with
        ``clamp_state`` (the state stops at the floor) and with ``affine`` (no knee); infinite
        where the new raw value does not exceed the floor.

    Raises
    ------
    InputError
        A weight outside [0, 1].

    Notes
    -----
    Toward a raw value c held from now on the average goes as c - (c - eps) beta^t, which reaches m
    after t = ln((c - eps)/(c - m))/-ln beta steps.

    Examples
    --------
    >>> [dead_time(GabaSpec(), 0.002, c) for c in (0.5, 0.1, 0.06)]
    [11.0, 67.0, 175.0]
    >>> dead_time(GabaSpec(floor_mode="clamp_state"), 0.05, 0.5)
    0.0
    """
    for name, value in (("stored_ema", stored_ema), ("raw", raw)):
        if not 0.0 <= value <= 1.0:
            raise InputError(f"{name} = {value!r} is not in [0, 1]: give a weight")
    m = spec.floor
    row = FLOORS[spec.floor_mode]
    if stored_ema >= m or row.replaces_state or not row.has_knee:
        return 0.0
    if raw <= m:
        return math.inf
    if spec.beta == 0.0:
        return 0.0
    readings = math.log((raw - stored_ema) / (raw - m)) / -(spec.interval * math.log(spec.beta))
    return float(spec.interval * math.ceil(readings - 1e-9))


def closed_loop_authority(spec: GabaSpec, rho: float) -> float:
    """Largest lasting log-ratio disturbance that a stable closed loop cancels entirely (K = 2).

    The log-ratio plant y = d - rho u settles at u = -d/(1 - rho), which must stay within the
    knee: |d| < (1 - rho) ln((1 - m)/m). Negative feedback (rho < 0) extends the reach, because
    the plant helps; positive feedback shrinks it.

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2.
    rho : float below 1
        DC feedback of the plant, from the log weight ratio to minus the log norm ratio.

    Returns
    -------
    float
        Natural logarithm of a ratio. 0 for ``affine`` with a floor; infinite without a floor.

    Raises
    ------
    InputError
        Not two tasks, or ``rho`` of 1 or more.

    Examples
    --------
    >>> round(closed_loop_authority(GabaSpec(), 0.0), 3), round(closed_loop_authority(GabaSpec(), 0.5), 3)
    (2.944, 1.472)
    """
    if spec.n_tasks != 2:
        raise InputError(
            f"n_tasks = {spec.n_tasks}: the log ratio needs two tasks; use n_tasks = 2"
        )
    if not rho < 1.0:
        raise InputError(f"rho = {rho!r} is not below 1: the loop has no stable balance there")
    if spec.floor == 0.0:
        return math.inf
    if not FLOORS[spec.floor_mode].has_knee:
        return 0.0
    return (1.0 - rho) * math.log(saturation_ratio(spec))


@dataclass(frozen=True)
class Authority(Result):
    """How far the weights can follow an imbalance.

    Attributes
    ----------
    spec : GabaSpec
        The settings.
    bounds : WeightBounds
        Range of the applied weights.
    saturation_ratio : float
        The knee, as a ratio.
    fully_compensated_ratio : float
        Largest lasting imbalance that leaves contributions equal (1 where none does).
    ratios, weights, residuals : arrays, shape (n,)
        Imbalances, the settled weight of the loud task, and the residual ratio of contributions.
    floors : array, shape (n,)
        Largest floor with authority over each imbalance.
    """

    spec: GabaSpec
    bounds: WeightBounds
    saturation_ratio: float
    fully_compensated_ratio: float
    ratios: NDArray[np.float64]
    weights: NDArray[np.float64]
    residuals: NDArray[np.float64]
    floors: NDArray[np.float64]

    title = "Authority of the weights"

    def facts(self) -> dict[str, Any]:
        """Keys: bounds, saturation_ratio(_reason), fully_compensated_ratio, ratios, ..."""
        result: dict[str, Any] = {
            **self.bounds.to_dict(),
            "saturation_ratio": self.saturation_ratio,
            "fully_compensated_ratio": self.fully_compensated_ratio,
            "ratios": self.ratios,
            "settled_weights": self.weights,
            "residual_ratios": self.residuals,
            "required_floors": self.floors,
        }
        if math.isinf(self.saturation_ratio):
            result["saturation_ratio_reason"] = "no floor: the weights never saturate"
        return result

    def rows(self) -> list[tuple[str, ...]]:
        """The knee, then one row per imbalance."""
        knee = self.saturation_ratio
        rows: list[tuple[str, ...]] = [
            ("weights in", f"[{self.bounds.lower:.6f}, {self.bounds.upper:.6f}]"),
            ("knee at a ratio of", "none (no floor)" if math.isinf(knee) else f"{knee:.4g}"),
            ("fully compensated up to", f"{self.fully_compensated_ratio:.4g}x"),
        ]
        rows += [
            (
                f"at {ratio:.5g}x",
                f"weight {weight:.5f}",
                f"leaves {residual:.4g}x",
                f"would need a floor <= {floor:.3g}" if residual > 1.0 + 1e-9 else "",
            )
            for ratio, weight, residual, floor in zip(
                self.ratios, self.weights, self.residuals, self.floors, strict=True
            )
        ]
        return rows

    def _draw(self, ax: Any) -> None:
        """Residual ratio of contributions over the imbalance, log-log."""
        ratios = np.geomspace(1.0, max(1e4, 2.0 * float(self.ratios.max(initial=1.0))), 400)
        ax.loglog(ratios, ratios, color="0.6", linestyle="--", label="equal weights")
        ax.loglog(ratios, residual_ratio(self.spec, ratios), label=f"{self.spec.floor_mode} floor")
        ax.plot(self.ratios, self.residuals, "o", color=plots.PALETTE[1])
        if 1.0 < self.saturation_ratio < math.inf:
            knee = self.saturation_ratio
            ax.axvline(knee, color="0.5", linewidth=0.8)
            ax.annotate(f" knee at {knee:.3g}x", (knee, ax.get_ylim()[1]), va="top")
        ax.set(xlabel="imbalance g₁/g₂", ylabel="residual w₁g₁ / w₂g₂")
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.85))


def authority(spec: GabaSpec, ratios: ArrayLike = PUBLISHED_RATIOS) -> Authority:
    """Everything about the reach of the weights, at the given imbalances.

    Parameters
    ----------
    spec : GabaSpec
        Settings.
    ratios : array of positive floats, shape (n,)
        Imbalances to report; default those of the published regime, 50, 500 and 2,400.

    Returns
    -------
    Authority

    Examples
    --------
    >>> print(authority(GabaSpec(), [50.0]))
    Authority of the weights
      weights in               [0.047619, 0.952381]
      knee at a ratio of       19
      fully compensated up to  19x
      at 50x                   weight 0.04853        leaves 2.55x  would need a floor <= 0.0196
    """
    r = np.atleast_1d(np.asarray(ratios, dtype=np.float64))
    knee = saturation_ratio(spec)
    # A law balances the contributions where a single task can hold the whole average.
    imperfect = (not FLOORS[spec.floor_mode].has_knee and spec.floor > 0.0) or (
        LAWS[spec.law].sharers(spec.n_tasks) > 1
    )
    return Authority(
        spec=spec,
        bounds=weight_bounds(spec),
        saturation_ratio=knee,
        fully_compensated_ratio=1.0 if imperfect else knee,
        ratios=r,
        weights=settled_weights(spec, r)[..., 0],
        residuals=residual_ratio(spec, r),
        floors=required_floor(r, spec.n_tasks, spec.law),
    )
