"""Frequency and stability: Bode, Nyquist, root locus, stability map and margins of the loop."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import panel as pn
from numpy.typing import NDArray

from gabactl.app.figures import COLOURS, MUTED, Board, plain_powers
from gabactl.app.session import Session
from gabactl.app.text import pane, paragraph, table
from gabactl.filter import filter_facts
from gabactl.frequency import frequency_response
from gabactl.linear import floor_slope, open_loop
from gabactl.margins import margins, stabilising_gains
from gabactl.plants import LogRatio
from gabactl.spec import GabaSpec

__all__ = ["FrequencyTab", "locus_points", "stable_rho"]

#: Poles of the map, by their nines.
_MAP_BETAS = tuple(float(1.0 - gain) for gain in np.geomspace(1.0, 1e-4, 9))
#: Values of rho of the locus: fine near 0, where the poles leave fast.
_NEAR = np.geomspace(1e-3, 1.0, 16)
_LOCUS_RHO = tuple(float(r) for r in np.unique(np.concatenate([-30.0 * _NEAR, [0.0], 1.5 * _NEAR])))
_CIRCLE = np.exp(1j * np.linspace(0.0, 2.0 * math.pi, 240))
#: Two pictures abreast where there is room.
_GRID = (
    ":host { display: grid !important; "
    "grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); }"
)
#: Lowest rho shown in the map, unless the plant's own is lower.
_MAP_LOW = -12.0
#: Largest |rho| drawn in the map; limits beyond are at its edge.
_MAP_REACH = 300.0


def pole_of(lag: float) -> float:
    """Pole a of a lag given by its time constant in steps, as the plants take it."""
    return math.exp(-1.0 / lag) if lag > 0 else 0.0


@lru_cache(maxsize=4096)
def stable_rho(spec: GabaSpec, a: float, delay: int, ratio: float = 1.0) -> tuple[float, float]:
    """Range of rho about 0 in which the loop is stable.

    Parameters
    ----------
    spec : GabaSpec
        Settings of two tasks.
    a, delay : float, int
        Lag pole and extra delay of the log-ratio plant.
    ratio : float
        Operating imbalance.

    Returns
    -------
    tuple of two floats
        Infinite where no value ends it.

    Examples
    --------
    >>> [round(edge, 6) for edge in stable_rho(GabaSpec(), 0.0, 1)]
    [-100.0, 1.0]
    """
    # The loop is linear in rho, so that the gains that a loop with rho = -1 bears are the range.
    low, high = 0.0, 0.0
    for rho in (-1.0, 1.0):
        loop = open_loop(spec, LogRatio(rho, a, delay), ratio)
        reach = max((hi for lo, hi in stabilising_gains(loop) if lo <= 0.0), default=math.inf)
        low, high = (-reach, high) if rho < 0 else (low, reach)
    return low, high


@lru_cache(maxsize=256)
def locus_points(
    spec: GabaSpec, a: float, delay: int, ratio: float
) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """rho and closed-loop pole, pair by pair, for the root locus.

    Parameters
    ----------
    spec, a, delay, ratio
        As for :func:`stable_rho`.

    Examples
    --------
    >>> rho, poles = locus_points(GabaSpec(), 0.0, 0, 1.0)
    >>> rho.shape == poles.shape
    True
    """
    values, poles = [], []
    for rho in _LOCUS_RHO:
        found = open_loop(spec, LogRatio(rho, a, delay), ratio).closed.poles
        values.extend([rho] * found.size)
        poles.extend(found.tolist())
    return np.array(values), np.array(poles, dtype=np.complex128)


class FrequencyTab:
    """The linear loop around a log-ratio plant.

    Parameters
    ----------
    session : Session
    """

    controls = ("rho", "lag", "delay", "ratio")

    def __init__(self, session: Session) -> None:
        self.session = session
        wide: dict[str, Any] = {"height": 250}
        self.gain = Board("Bode: gain", "", "|L| in dB", x_axis_type="log", **wide)
        self.phase = Board(
            "Bode: phase",
            "frequency, rad/step",
            "degrees",
            x_range=self.gain.figure.x_range,
            x_axis_type="log",
            **wide,
        )
        self.nyquist = Board("Nyquist", "Re L", "Im L", height=320, match_aspect=True)
        self.locus = Board("Root locus over ρ", "Re z", "Im z", height=320, match_aspect=True)
        self.map = Board(
            "Stable between the lines",
            "1 − β",
            "ρ",
            height=320,
            x_axis_type="log",
            x_range=(1.0, 1e-4),
            y_range=(-3.0, 1.6),
        )
        self.boards = [self.gain, self.phase, self.nyquist, self.locus, self.map]
        for axis in (self.gain.figure.xaxis, self.phase.figure.xaxis, self.map.figure.xaxis):
            axis.formatter = plain_powers()
        self._gain = self.gain.line("loop L", COLOURS[0])
        self._filter_gain = self.gain.line("filter F", COLOURS[1], "dashed")
        self._unit = self.gain.level("dotted", MUTED)
        self._phase = self.phase.line("loop L", COLOURS[0])
        self._crossings = [
            self.gain.upright("dotted", COLOURS[3]),
            self.phase.upright("dotted", COLOURS[3]),
        ]
        self._nyquist = self.nyquist.line("0 < ω < π", COLOURS[0])
        self._mirror = self.nyquist.line("mirror image", COLOURS[0], "dashed", line_width=1.2)
        self._critical = self.nyquist.dots("−1", COLOURS[1], "x", 12)
        self._critical.set([-1.0], [0.0])
        self._circle = self.locus.line("unit circle", MUTED, line_width=1.2)
        self._circle.set(_CIRCLE.real, _CIRCLE.imag)
        self._locus = self.locus.dots("ρ from −30 to 1.5", COLOURS[5], size=4)
        self._poles = self.locus.dots("poles now", COLOURS[1], "x", 12)
        self._low = self.map.line("lower limit", COLOURS[0])
        self._high = self.map.line("upper limit", COLOURS[1])
        self._now = self.map.dots("now", COLOURS[3], "diamond", 14)
        self.note = pane()
        self.table = pane()
        grid = pn.Column(
            *(pn.pane.Bokeh(b.figure, sizing_mode="stretch_width") for b in self.boards),
            sizing_mode="stretch_width",
            stylesheets=[_GRID],
        )
        self.view = pn.Column(self.note, grid, self.table, sizing_mode="stretch_width")

    def update(self) -> None:
        """Analyse the loop and draw it."""
        view, spec = self.session.view, self.session.pair_spec
        a, ratio = pole_of(view.lag), view.ratio or 1.0
        loop = open_loop(spec, LogRatio(view.rho, a, view.delay), ratio)
        response = frequency_response(loop)
        w = response.frequencies
        show = w > 0
        self._gain.set(w[show], _decibels(response.response[show]))
        self._phase.set(w[show], response.phase_deg[show])
        filtered = loop.filter.at(w[show] * spec.interval)
        self._filter_gain.set(w[show], _decibels(filtered))
        crossings = response.rational.gain_crossings() / spec.interval
        for line in self._crossings:
            line.visible = crossings.size > 0
            line.location = float(crossings[0]) if crossings.size else 1.0
        curve = np.where(np.abs(response.response) < 50.0, response.response, np.nan)
        self._nyquist.set(curve.real, curve.imag)
        self._mirror.set(curve.real, -curve.imag)
        self._poles.set(loop.closed.poles.real, loop.closed.poles.imag)
        self._now.set([1.0 - spec.beta], [view.rho])
        verdict = loop.closed.verdict
        self.note.object = paragraph(
            f"Loop around a log-ratio plant with ρ = {view.rho:g}, a lag of {view.lag:g} steps and "
            f"{view.delay} steps of extra delay, about an imbalance of {ratio:g}"
            + (" (the slider's left end is 1)" if view.ratio == 0.0 else "")
            + f": the closed loop is {verdict.upper()}. ρ < 0 is negative feedback of the training "
            "(more weight, larger gradients); ρ ≥ 1 is unstable until the floor stops it.",
            "" if verdict == "stable" else "bad",
        )
        self.table.object = table(margins(loop).rows(), caption="Margins") + table(
            filter_facts(spec).rows(), caption="Smoothing filter"
        )

    def later(self) -> None:
        """The root locus and the map: they take many loops, and follow when the hand rests."""
        view = self.session.view
        a, ratio = pole_of(view.lag), view.ratio or 1.0
        spec, ratio = _same_loop(self.session.pair_spec, ratio)
        _, points = locus_points(spec, a, view.delay, ratio)
        near = points[np.abs(points) < 2.5]
        self._locus.set(near.real, near.imag)
        limits = np.array(
            [stable_rho(spec.replace(beta=beta), a, view.delay, ratio) for beta in _MAP_BETAS]
        )
        limits = limits.clip(-_MAP_REACH, _MAP_REACH)
        gains = 1.0 - np.array(_MAP_BETAS)
        self._low.set(gains, limits[:, 0])
        self._high.set(gains, limits[:, 1])
        # Room for both, whatever the limits at the far end of beta are.
        here = stable_rho(spec, a, view.delay, ratio)
        low = min(-3.0, 1.3 * view.rho, max(1.3 * here[0], _MAP_LOW))
        high = max(1.6, 1.3 * view.rho, min(1.3 * here[1], -_MAP_LOW))
        self.map.figure.y_range.update(start=low, end=high)


def _same_loop(spec: GabaSpec, ratio: float) -> tuple[GabaSpec, float]:
    """Settings and imbalance with the same linear loop, so that it is analysed once for all."""
    if floor_slope(spec, math.log(ratio)) == 1.0:
        return GabaSpec(beta=spec.beta, interval=spec.interval), 1.0
    return spec.replace(warmup=0, guard="hold", law="complement"), ratio


def _decibels(values: NDArray[np.complex128]) -> NDArray[np.float64]:
    size = np.abs(values)
    return np.asarray(20.0 * np.log10(np.where(size > 0, size, np.nan)))
