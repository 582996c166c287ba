"""Frequency and stability: Bode, Nyquist, root locus, stability map and margins of the loop."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import panel as pn
from numpy.typing import NDArray

from gabactl.app.figures import COLOURS, MUTED
from gabactl.app.tab import Tab
from gabactl.app.text import paragraph, table
from gabactl.control.frequency import frequency_response
from gabactl.control.linear import floor_slope, open_loop
from gabactl.control.margins import margins
from gabactl.law.filter import filter_facts
from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio

#: Poles of the map, by their nines.
_MAP_BETAS = tuple(float(1.0 - gain) for gain in np.geomspace(1.0, 1e-4, 25))
#: Values of rho of the locus: fine near 0, where the poles leave fast.
_NEAR = np.geomspace(1e-3, 1.0, 48)
_LOCUS_RHO = np.unique(np.concatenate([-30.0 * _NEAR, [0.0], 1.5 * _NEAR]))
#: More poles than this: every sixth value.
_MANY_POLES = 12
#: Frequencies between which a crossing is looked for, and the steps that find it exactly.
_SWEEP = np.unique(
    np.concatenate([[0.0], np.geomspace(1e-6, 1.0, 600), np.linspace(0, math.pi, 900)])
)
_SECANTS = 4
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


@lru_cache(maxsize=64)
def stable_rho(
    spec: GabaSpec, betas: tuple[float, ...], a: float, delay: int, ratio: float = 1.0
) -> NDArray[np.float64]:
    """Range of rho about 0 in which the loop is stable, for each of some betas.

    The loop is linear in rho and stable at rho = 0, so that the range ends where rho L, L that of
    rho = 1, first is -1 somewhere on the unit circle: where L is real, rho = -1/L.
    :func:`gabactl.control.margins.stabilising_gains` finds the same for any loop, one at a time.

    Parameters
    ----------
    spec : GabaSpec
        Settings of two tasks; beta is taken from ``betas``.
    betas : tuple of float
        Poles of the filter.
    a, delay : float, int
        Lag pole and extra delay of the log-ratio plant.
    ratio : float
        Operating imbalance.

    Returns
    -------
    array, shape (betas, 2)
        Lower and upper limits; infinite where no value ends it.

    Examples
    --------
    >>> stable_rho(GabaSpec(), (0.99,), 0.0, 1).round(6).tolist()
    [[-100.0, 1.0]]
    """
    unit = open_loop(spec.replace(beta=0.0), LogRatio(1.0, a, delay), ratio)
    limits = np.full((len(betas), 2), [-math.inf, math.inf])
    if unit.slope == 0.0:
        return limits
    poles = np.array(betas)[:, None] ** unit.interval

    def loop(w: NDArray[np.float64], plant: NDArray[np.complex128], pole: Any) -> Any:
        return plant * (1.0 - pole) / (1.0 - pole * np.exp(-1j * w))

    plant = unit.rational.at(_SWEEP)
    values = loop(_SWEEP, plant, poles)
    # At both ends the loop is real, whatever rounding says.
    values[:, [0, -1]] = values[:, [0, -1]].real
    for i, (row, pole) in enumerate(zip(values, poles[:, 0], strict=True)):
        at = np.flatnonzero(row.imag[:-1] * row.imag[1:] < 0)
        low, high = _SWEEP[at], _SWEEP[at + 1]
        below, above = row.imag[at], row.imag[at + 1]
        for _ in range(_SECANTS if at.size else 0):
            w = low - below * (high - low) / (above - below)
            found = loop(w, unit.rational.at(w), pole).imag
            left = found * below > 0
            low, below = np.where(left, w, low), np.where(left, found, below)
            high, above = np.where(left, high, w), np.where(left, above, found)
        if at.size:
            w = low - below * (high - low) / (above - below)
            crossed = loop(w, unit.rational.at(w), pole).real
        else:
            crossed = np.zeros(0)
        real = np.concatenate([crossed, row[[0, -1]].real])
        gains = -1.0 / real[real != 0.0]
        limits[i] = gains[gains < 0].max(initial=-math.inf), gains[gains > 0].min(initial=math.inf)
    limits.setflags(write=False)
    return limits


@lru_cache(maxsize=256)
def locus_points(
    spec: GabaSpec, a: float, delay: int, ratio: float
) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """rho and closed-loop pole, pair by pair, for the root locus.

    Parameters
    ----------
    spec, a, delay, ratio
        As for :func:`stable_rho`; beta that of ``spec``.

    Returns
    -------
    rho : array, shape (n,)
        Feedback of the plant.
    poles : array of complex, shape (n,)
        One closed-loop pole each, per reading; every rho is there once for each of its poles.

    Examples
    --------
    >>> rho, poles = locus_points(GabaSpec(), 0.0, 0, 1.0)
    >>> rho.shape == poles.shape
    True
    """
    unit = open_loop(spec, LogRatio(1.0, a, delay), ratio).rational
    # Roots of a polynomial are the eigenvalues of its companion; all of them in one call. Many
    # poles need fewer values of rho to fill the picture.
    order = unit.poles.size
    rho = _LOCUS_RHO if order <= _MANY_POLES else _LOCUS_RHO[::6]
    numerator = unit.gain * np.atleast_1d(np.poly(unit.zeros))
    padded = np.concatenate([np.zeros(order + 1 - numerator.size), numerator])
    characteristic = np.poly(unit.poles) + rho[:, None] * padded
    companions = np.zeros((rho.size, order, order))
    companions[:, 0, :] = -characteristic[:, 1:].real
    companions[:, range(1, order), range(order - 1)] = 1.0
    poles = np.linalg.eigvals(companions)
    return np.repeat(rho, order), poles.ravel().astype(np.complex128)


class FrequencyTab(Tab):
    """The linear loop around a log-ratio plant."""

    controls = ("rho", "lag", "delay", "ratio")

    def build(self) -> tuple[Any, ...]:
        """Bode, Nyquist, root locus and map."""
        self.gain = self.board("Bode: gain", "", "|L| in dB", height=250, log="x")
        self.phase = self.board(
            "Bode: phase", "frequency, rad/step", "degrees", height=250, x_range=self.gain, log="x"
        )
        square = {"height": 320, "match_aspect": True}
        self.nyquist = self.board("Nyquist", "Re L", "Im L", **square)
        self.locus = self.board("Root locus over ρ", "Re z", "Im z", **square)
        self.map = self.board(
            "Stable between the lines",
            "1 − β",
            "ρ",
            height=320,
            x_range=(1.0, 1e-4),
            y_range=(-3.0, 1.6),
            log="x",
        )
        self._gain = self.gain.line("loop L", COLOURS[0])
        self._filter_gain = self.gain.line("filter F", COLOURS[1], "dashed")
        self.gain.level("dotted", MUTED)
        self._phase = self.phase.line("loop L", COLOURS[0])
        self._crossings = [
            self.gain.upright("dotted", COLOURS[3]),
            self.phase.upright("dotted", COLOURS[3]),
        ]
        self._nyquist = self.nyquist.line("0 < ω < π", COLOURS[0])
        self._mirror = self.nyquist.line("mirror image", COLOURS[0], "dashed", line_width=1.2)
        self.nyquist.dots("−1", COLOURS[1], "x", 12).set([-1.0], [0.0])
        circle = self.locus.line("unit circle", MUTED, line_width=1.2)
        circle.set(_CIRCLE.real, _CIRCLE.imag)
        self._locus = self.locus.dots("ρ from −30 to 1.5", COLOURS[5], size=4)
        self._poles = self.locus.dots("poles now", COLOURS[1], "x", 12)
        self._low = self.map.line("lower limit", COLOURS[0])
        self._high = self.map.line("upper limit", COLOURS[1])
        self._now = self.map.dots("now", COLOURS[3], "diamond", 14)
        grid = pn.Column(*self.figures(), sizing_mode="stretch_width", stylesheets=[_GRID])
        return self.note, grid, self.readout

    def update(self) -> None:
        """Analyse the loop and draw it."""
        view, spec = self.session.view, self.session.pair_spec
        a, ratio = pole_of(view.lag), view.ratio or 1.0
        loop = open_loop(spec, LogRatio(view.rho, a, view.delay), ratio)
        response = frequency_response(loop)
        w = response.frequencies_rad_per_step
        show = w > 0
        self._gain.set(w[show], _decibels(response.response[show]))
        self._phase.set(w[show], response.phase_deg[show])
        filtered = loop.filter.at(w[show] * spec.interval)
        self._filter_gain.set(w[show], _decibels(filtered))
        self.gain.frame("x", float(w[show].min()), float(w[show].max()))
        self.gain.frame_data("y", self._gain.source.data["y"], self._filter_gain.source.data["y"])
        self.phase.frame_data("y", response.phase_deg[show])
        crossings = response.rational.gain_crossings() / spec.interval
        for line in self._crossings:
            line.visible = crossings.size > 0
            line.location = float(crossings[0]) if crossings.size else 1.0
        curve = np.where(np.abs(response.response) < 50.0, response.response, np.nan)
        self._nyquist.set(curve.real, curve.imag)
        self._mirror.set(curve.real, -curve.imag)
        self._poles.set(loop.closed.poles.real, loop.closed.poles.imag)
        self._now.set([1.0 - spec.beta], [view.rho])
        self._draw_families(a, ratio)
        verdict = loop.closed.verdict
        self.note.object = paragraph(
            f"Loop around a log-ratio plant with ρ = {view.rho:g}, a lag of {_steps(view.lag)} and "
            f"{_steps(view.delay)} of extra delay, about an imbalance of {ratio:g}"
            + (" (the slider's left end is 1)" if view.ratio == 0.0 else "")
            + f": the closed loop is {verdict.upper()}. ρ < 0 is negative feedback of the training "
            "(more weight, larger gradients); ρ ≥ 1 is unstable until the floor stops it.",
            "" if verdict == "stable" else "bad",
        )
        self.readout.object = table(margins(loop).rows(), caption="Margins") + table(
            filter_facts(spec).rows(), caption="Smoothing filter"
        )

    def _draw_families(self, a: float, ratio: float) -> None:
        """The root locus and the map: many loops, kept where rho alone changes."""
        view = self.session.view
        spec, ratio = _same_loop(self.session.pair_spec, ratio)
        _, points = locus_points(spec, a, view.delay, ratio)
        near = points[np.abs(points) < 2.5]
        self._locus.set(near.real, near.imag)
        every = stable_rho(spec, (spec.beta, *_MAP_BETAS), a, view.delay, ratio)
        here, limits = every[0], every[1:].clip(-_MAP_REACH, _MAP_REACH)
        gains = 1.0 - np.array(_MAP_BETAS)
        self._low.set(gains, limits[:, 0])
        self._high.set(gains, limits[:, 1])
        # Room for both, whatever the limits at the far end of beta are.
        low = min(-3.0, 1.3 * view.rho, max(1.3 * float(here[0]), _MAP_LOW))
        high = max(1.6, 1.3 * view.rho, min(1.3 * float(here[1]), -_MAP_LOW))
        self.map.frame("y", low, high)


def _steps(number: float) -> str:
    return f"{number:g} step" + ("" if number == 1 else "s")


def _same_loop(spec: GabaSpec, ratio: float) -> tuple[GabaSpec, float]:
    """Settings and imbalance with the same linear loop, so that it is analysed once for all."""
    if floor_slope(spec, math.log(ratio)) == 1.0:
        return GabaSpec(beta=spec.beta, interval=spec.interval), 1.0
    return spec.replace(warmup=0, guard=GabaSpec.guard, law=GabaSpec.law), ratio


def _decibels(values: NDArray[np.complex128]) -> NDArray[np.float64]:
    size = np.abs(values)
    return np.asarray(20.0 * np.log10(np.where(size > 0, size, np.nan)))
