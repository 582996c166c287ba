"""ARX orders by information criterion: the quick look before the output-error fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gabactl.identification.noise import NoiseModel
from gabactl.identification.signals import ExcitedRun

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ArxOrders:
    """The ARX model that the criterion prefers.

    y_t = c + sum_i a_i y_(t-i) + sum_j b_j u_(t-j), i = 1..n_ar, j = 1..n_inputs, over readings.

    Parameters
    ----------
    n_ar, n_inputs : int
        Orders; 0 inputs means that the criterion sees no feedback.
    criterion : str
        "aic" or "bic".
    value : float
        The criterion, smaller is better.
    value_without_input : float
        Its least value among models without input.
    dc_gain : float
        sum b / (1 - sum a), an estimate of -rho. Its noise model is the plant's own pole, so it is
        a starting point and no more.

    Examples
    --------
    >>> ArxOrders(2, 1, "bic", 100.0, 120.0, 0.2).prefers_input
    True
    """

    n_ar: int
    n_inputs: int
    criterion: str
    value: float
    value_without_input: float
    dc_gain: float

    @property
    def prefers_input(self) -> bool:
        """Whether the weights help to predict the imbalance, by the criterion."""
        return self.n_inputs > 0


def select_arx(
    signals: ExcitedRun,
    *,
    drift: float = 0.0,
    max_ar: int = 8,
    max_inputs: int = 4,
    criterion: str = "bic",
) -> ArxOrders:
    """Choose ARX orders with statsmodels' ``ardl_select_order``.

    Parameters
    ----------
    signals : ExcitedRun
        One run; between sparse readings, u is averaged.
    drift : float in [0, 1)
        ``drift_pole_gap`` of a noise model. Drift is no part of an ARX model: in closed loop the
        weights follow it and seem to act. So both signals are high-passed to remove it.
    max_ar, max_inputs : int, at least 1
        Largest orders tried.
    criterion : {"aic", "bic"}
        Akaike's or the Bayesian information criterion.

    Returns
    -------
    ArxOrders

    Examples
    --------
    >>> from gabactl.identification.synthetic import simulate_excited
    >>> run = simulate_excited(rho=-2.0, a=0.5, steps=2000, seed=1).run(0)
    >>> select_arx(run).prefers_input
    True
    """
    from statsmodels.tsa.ardl import ardl_select_order

    rows = np.flatnonzero(signals.measured)
    high_pass = NoiseModel(np.zeros(0), drift, 1.0)
    y = high_pass.whiten(signals.log_ratio[rows] - signals.log_ratio[rows[:20]].mean())
    u = high_pass.whiten(_input_per_reading(signals, rows))
    chosen = ardl_select_order(
        y, max_ar, u[:, None], max_inputs, causal=True, trend="c", ic=criterion
    )
    table = chosen.aic if criterion == "aic" else chosen.bic
    lags, inputs = table.iloc[0]
    n_ar, n_inputs = int(lags or 0), int(inputs.get(0) or 0)  # None where it has none
    parameters = np.asarray(chosen.model.fit().params)
    ar, b = parameters[1 : 1 + n_ar], parameters[1 + n_ar :]
    without = [value for value, (_, orders) in table.items() if not orders.get(0)]
    return ArxOrders(
        n_ar=n_ar,
        n_inputs=n_inputs,
        criterion=criterion,
        value=float(table.index[0]),
        value_without_input=float(min(without)),
        dc_gain=float(b.sum() / (1.0 - ar.sum())),
    )


def _input_per_reading(signals: ExcitedRun, rows: NDArray[np.intp]) -> Array:
    """Mean of u from one reading to just before the next, shape (readings,)."""
    total = np.concatenate(([0.0], np.cumsum(signals.actuation)))
    ends = np.append(rows[1:], rows[-1] + 1)
    return np.asarray((total[ends] - total[rows]) / (ends - rows))
