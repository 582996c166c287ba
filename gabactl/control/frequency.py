"""Bode, Nyquist, Nichols and root locus of the discrete loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base import plots
from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.control._rational import Rational, stability_of
from gabactl.control.linear import Loop, as_loop, format_roots

__all__ = ["FrequencyResponse", "RootLocus", "frequency_response", "root_locus"]

_LOCUS_PARAMETERS = ("beta", "rho", "interval")


@dataclass(frozen=True, eq=False)
class FrequencyResponse(Result):
    """The loop on the upper half of the unit circle, and how often it goes round -1.

    Attributes
    ----------
    rational : Rational
        L per reading, in factored form.
    interval : int
        Steps N between readings.
    frequencies_rad_per_step : array, shape (n,)
        From near 0 to pi/N, both ends of the circle included exactly.
    response : array of complex, shape (n,)
        L(e^jw); at a pole on the circle the sample is left out.
    open_loop_poles_outside, closed_loop_poles_outside : int
        Poles of L, and of 1/(1+L), outside the unit circle.
    encirclements : int
        Counter-clockwise turns of L round -1 as z runs once round the circle, indented outwards at
        poles on it. Equal to the difference of the two by the argument principle.
    verdict : {"stable", "neutral", "unstable"}
        Of the closed loop.
    """

    rational: Rational
    interval: int
    frequencies_rad_per_step: NDArray[np.float64]
    response: NDArray[np.complex128]
    open_loop_poles_outside: int
    closed_loop_poles_outside: int
    encirclements: int
    verdict: str

    title = "Frequency response of the loop"
    told = (
        *("frequencies_rad_per_step", "magnitude", "phase_deg"),
        *("value_at_z_1", "value_at_z_minus_1"),
        *("open_loop_poles_outside", "closed_loop_poles_outside", "encirclements"),
        *("verdict", "stable"),
    )

    def series(self) -> dict[str, NDArray[Any]]:
        """The curve: frequency, magnitude and phase."""
        return {name: getattr(self, name) for name in self.told[:3]}

    def headline(self) -> str:
        """The verdict, and the count it rests on."""
        return f"closed loop {self.verdict}, {_times(self.encirclements)}"

    def rows(self) -> list[tuple[str, ...]]:
        """Values at both ends of the circle, crossings, and the Nyquist count."""
        crossed = ", ".join(f"{w:.5g}" for w in self._crossings)
        return [
            ("L at z = 1 (DC)", f"{self.value_at_z_1:.6g}"),
            ("L at z = -1 (Nyquist)", f"{self.value_at_z_minus_1:.6g}"),
            ("|L| = 1 at", f"{crossed} rad/step" if crossed else "no frequency"),
            ("open-loop poles outside", str(self.open_loop_poles_outside)),
            ("encirclements of -1", f"{self.encirclements} (counter-clockwise)"),
            ("closed-loop poles outside", str(self.closed_loop_poles_outside)),
            ("closed loop", self.verdict),
        ]

    @property
    def stable(self) -> bool:
        """Of the closed loop."""
        return self.verdict == "stable"

    @property
    def _crossings(self) -> NDArray[np.float64]:
        """Where the loop gain is 1, in rad/step."""
        return self.rational.gain_crossings() / self.interval

    @property
    def _decibels(self) -> NDArray[np.float64]:
        return 20 * np.log10(np.maximum(self.magnitude, 1e-300))

    @property
    def value_at_z_1(self) -> float:
        """L at rest."""
        return float(np.real(self.rational(1.0)))

    @property
    def value_at_z_minus_1(self) -> float:
        """L at the Nyquist frequency."""
        return float(np.real(self.rational(-1.0)))

    @property
    def magnitude(self) -> NDArray[np.float64]:
        """|L|, shape (n,)."""
        return np.abs(self.response)

    @property
    def phase_deg(self) -> NDArray[np.float64]:
        """Unwrapped phase in degrees, shape (n,), starting in (-180, 180]."""
        phase = np.unwrap(np.angle(self.response)) if self.response.size else np.zeros(0)
        return np.degrees(phase)

    def plot_bode(self, axes: Any | None = None) -> Any:
        """Gain in dB and phase in degrees over the frequency in rad/step.

        Parameters
        ----------
        axes : pair of matplotlib Axes, optional
            For gain and phase; by default a new figure's.

        Returns
        -------
        pair of matplotlib Axes
        """
        from matplotlib.ticker import AutoLocator, MultipleLocator

        with plots.style():
            axes = plots.panels(2, 5.5) if axes is None else axes
            top, bottom = axes
            show = self.frequencies_rad_per_step > 0
            w, phase = self.frequencies_rad_per_step[show], self.phase_deg[show]
            top.semilogx(w, self._decibels[show])
            bottom.semilogx(w, phase)
            top.axhline(0.0, color="0.3", linewidth=0.8)
            for level in _half_turns(phase.min() - 30, phase.max() + 30):
                bottom.axhline(level, color="0.3", linewidth=0.8, linestyle="--")
            span = float(np.ptp(phase))
            bottom.yaxis.set_major_locator(MultipleLocator(180.0 if span > 400.0 else 45.0))
            if span > 2500.0:
                bottom.yaxis.set_major_locator(AutoLocator())
            for ax in (top, bottom):
                for crossing in self._crossings:
                    ax.axvline(crossing, color=plots.PALETTE[1], linewidth=0.8)
                ax.axvline(math.pi / self.interval, color="0.6", linewidth=0.8, linestyle=":")
            top.set(ylabel="|L| in dB", title=f"Loop L = P F: closed loop {self.verdict}")
            bottom.set(xlabel="frequency in rad/step", ylabel="phase in degrees")
        return axes

    def plot_nyquist(self, ax: Any | None = None) -> Any:
        """The curve and its mirror image, with -1 and both ends of the circle marked.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; default: new ones.

        Returns
        -------
        matplotlib.axes.Axes
        """
        return self.plot(ax)

    def _draw(self, ax: Any) -> None:
        """The Nyquist plot."""
        curve = np.where(np.abs(self.response) < 1e3, self.response, np.nan)
        ax.plot(curve.real, curve.imag, label="0 < w < π")
        ax.plot(curve.real, -curve.imag, color=plots.PALETTE[0], alpha=0.4, linestyle="--")
        _mark_critical(ax, [-1.0])
        view = _view(curve)
        for value, marker, name in (
            (self.value_at_z_1, "o", "z = 1"),
            (self.value_at_z_minus_1, "s", "z = −1"),
        ):
            if not math.isfinite(value):
                continue
            if view is None or abs(value) < view:
                ax.plot(value, 0, marker, color=plots.PALETTE[2], label=name)
            else:
                ax.plot([], [], " ", label=f"{name} at {value:.4g}, outside")
        if view is not None:
            ax.set(xlim=(-1.6 * view, 1.6 * view), ylim=(-view, view))
        ax.set_aspect("equal", adjustable="datalim" if view is None else "box")
        title = f"{_times(self.encirclements)}: closed loop {self.verdict}"
        ax.set(xlabel="Re L", ylabel="Im L", title=title)
        ax.legend(loc="best")

    def plot_nichols(self, ax: Any | None = None) -> Any:
        """Gain in dB over phase, with the critical points at odd multiples of 180 degrees.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; default: new ones.

        Returns
        -------
        matplotlib.axes.Axes
        """
        with plots.style():
            ax = plots.axes(ax)
            gain, phase = self._decibels, self.phase_deg
            ax.plot(phase, gain)
            critical = _half_turns(phase.min() - 60, phase.max() + 60) or [-180.0]
            _mark_critical(ax, critical)
            ax.plot(phase[0], gain[0], "o", color=plots.PALETTE[2], label="DC")
            ax.plot(phase[-1], gain[-1], "s", color=plots.PALETTE[2], label="Nyquist")
            ax.axhline(0.0, color="0.3", linewidth=0.8)
            title = f"Nichols: closed loop {self.verdict}"
            ax.set(xlabel="phase of L in degrees", ylabel="|L| in dB", title=title)
            ax.legend(loc="best")
        return ax


def frequency_response(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    frequencies: ArrayLike | None = None,
) -> FrequencyResponse:
    """The loop on the unit circle, sampled where it bends.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`.
    frequencies : array, shape (n,), optional
        rad/step, for the curve alone: verdict, encirclements and crossings do not depend on it.
        Default: fine near the poles and zeros that are near the circle.

    Returns
    -------
    FrequencyResponse

    Raises
    ------
    InputError
        A frequency outside [0, pi/N].

    Examples
    --------
    >>> import control
    >>> response = frequency_response(control.TransferFunction([2.0], [1, -0.99], 1))
    >>> response.encirclements, response.closed_loop_poles_outside
    (-1, 1)
    """
    found = as_loop(loop, plant, ratio, sensor_delay)
    rational, interval = found.rational, found.interval
    w = _grid(rational) if frequencies is None else np.asarray(frequencies, float) * interval
    if w.ndim != 1 or w.size == 0 or not ((w >= 0) & (w <= math.pi * (1 + 1e-12))).all():
        raise InputError(f"frequencies: give numbers in [0, pi/{interval}] rad/step")
    values = rational.at(w)
    finite = np.isfinite(values)
    closed = rational.closed()
    outside = _outside(closed.poles)
    open_outside = _outside(stability_of(rational.denominator).poles)
    return FrequencyResponse(
        rational=rational,
        interval=interval,
        frequencies_rad_per_step=w[finite] / interval,
        response=values[finite],
        open_loop_poles_outside=open_outside,
        closed_loop_poles_outside=outside,
        encirclements=open_outside - outside,
        verdict=closed.verdict,
    )


def _outside(poles: NDArray[np.complex128]) -> int:
    """Poles clearly outside; those on the circle are on the inner side of the indentation."""
    return int((np.abs(poles) > 1.0 + 1e-9).sum())


def _grid(rational: Rational) -> NDArray[np.float64]:
    """Even points, and points in geometric progression around the angle of every root."""
    roots = np.concatenate([rational.zeros, rational.poles])
    offsets = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 60)])
    near = roots[np.abs(roots) > 0.05]
    gaps = np.maximum(np.abs(1.0 - np.abs(near)), 1e-6)
    reach = np.geomspace(1e-2, 1e2, 50)
    around = np.abs(np.angle(near))[:, None]
    clustered = np.concatenate(
        [(around + gaps[:, None] * reach).ravel(), (around - gaps[:, None] * reach).ravel()]
    )
    base = np.linspace(0.0, math.pi, 400 + 40 * roots.size)
    every = np.concatenate([base, offsets, clustered, [0.0, math.pi]])
    return np.unique(every[(every >= 0.0) & (every <= math.pi)])


def _view(curve: NDArray[np.complex128]) -> float | None:
    """Half height that shows -1 and the body of a curve that runs far away; None: all of it."""
    sizes = np.abs(curve[np.isfinite(curve)])
    return 2.5 if sizes.size and sizes.max() > 12.0 else None


def _mark_critical(ax: Any, where: list[float]) -> None:
    mark = {"color": plots.PALETTE[1], "markersize": 9, "mew": 2, "label": "−1"}
    ax.plot(where, np.zeros(len(where)), "x", **mark)


def _half_turns(low: float, high: float) -> list[float]:
    """The odd multiples of 180 degrees in a range, of those that a loop reaches."""
    return [180.0 * n for n in range(-41, 42, 2) if low <= 180.0 * n <= high]


def _times(encirclements: int) -> str:
    if encirclements == 0:
        return "−1 not encircled"
    way = "counter-clockwise" if encirclements > 0 else "clockwise"
    return f"−1 encircled {abs(encirclements)} times {way}".replace("1 times", "once")


@dataclass(frozen=True, eq=False)
class RootLocus(Result):
    """Closed-loop poles over one parameter.

    Attributes
    ----------
    parameter : {"beta", "rho", "interval"}
        What varies.
    values : array, shape (n,)
        Its values, in the order given.
    poles : tuple of arrays of complex, shape (order,)
        Per value, largest first; per reading.
    spectral_radius : array, shape (n,)
        Largest modulus per step (to the power 1/N for a sampled sensor).
    stable_ranges : tuple of (float, float)
        Runs of the given values that are stable; edges for rho and beta refined by bisection.
    """

    parameter: str
    values: NDArray[np.float64]
    poles: tuple[NDArray[np.complex128], ...]
    spectral_radius: NDArray[np.float64]
    stable_ranges: tuple[tuple[float, float], ...]

    title = "Root locus"
    told = ("parameter", "values", "poles", "spectral_radius", "stable_ranges")

    def rows(self) -> list[tuple[str, ...]]:
        """The stable ranges, and a few points of the locus."""
        ranges = ", ".join(f"{lo:.5g} to {hi:.5g}" for lo, hi in self.stable_ranges)
        rows: list[tuple[str, ...]] = [
            ("stable for " + self.parameter, ranges or "none of the values")
        ]
        for i in np.unique(np.linspace(0, self.values.size - 1, 5).astype(int)):
            rows.append(
                (f"{self.parameter} = {self.values[i]:.5g}", format_roots(self.poles[i], 4))
            )
        return rows

    def _draw(self, ax: Any) -> None:
        """The poles in the plane, coloured by the parameter, with the unit circle."""
        import matplotlib as mpl

        circle = np.exp(1j * np.linspace(0, 2 * math.pi, 400))
        ax.plot(circle.real, circle.imag, color="0.5", linewidth=1)
        every = np.concatenate(self.poles)
        colours = np.repeat(self.values, [p.size for p in self.poles])
        viridis = mpl.colormaps["viridis"]
        drawn = ax.scatter(every.real, every.imag, c=colours, cmap=viridis, s=8, zorder=3)
        ax.figure.colorbar(drawn, ax=ax, label=self.parameter)
        reach, tall = (
            max(1.1, min(float(np.abs(part).max(initial=1.0)) * 1.05, 2.5))
            for part in (every, every.imag)
        )
        ax.set_aspect("equal", adjustable="box")
        ranges = ", ".join(f"{lo:.4g} to {hi:.4g}" for lo, hi in self.stable_ranges)
        title = f"stable for {self.parameter} from {ranges}" if ranges else "never stable"
        ax.set(xlim=(-reach, reach), ylim=(-tall, tall), title=title)
        ax.set(xlabel="Re z", ylabel="Im z")


def root_locus(
    loop: Any,
    plant: Any = None,
    *,
    ratio: float = 1.0,
    sensor_delay: int = 0,
    parameter: str = "rho",
    values: ArrayLike | None = None,
) -> RootLocus:
    """Closed-loop poles as beta, rho or the interval varies.

    Parameters
    ----------
    loop, plant, ratio, sensor_delay
        A loop, a setting and its plant, or a python-control system:
        :func:`~gabactl.control.linear.as_loop`. The parameter's own value there is ignored.
    parameter : {"beta", "rho", "interval"}
        What varies; rho is -P(1), minus the gain at rest of the plant (of L, where L is all there
        is), whatever else it has.
    values : array, shape (n,), optional
        Its values; default a range that shows where stability ends.

    Returns
    -------
    RootLocus

    Raises
    ------
    InputError
        Another ``parameter`` than these; beta or the interval of a bare transfer function; rho of a
        plant that has no gain at rest.

    Notes
    -----
    Poles are the zeros of 1 + L with L of :func:`gabactl.control.linear.open_loop`, per reading.

    Examples
    --------
    >>> from gabactl import GabaSpec, LogRatio
    >>> locus = root_locus(GabaSpec(), LogRatio(0.0))
    >>> [round(edge, 3) for edge in locus.stable_ranges[0]]
    [-199.0, 1.0]
    """
    if parameter not in _LOCUS_PARAMETERS:
        raise InputError(
            f"parameter = {parameter!r} is unknown: choose from {', '.join(_LOCUS_PARAMETERS)}"
        )
    base = as_loop(loop, plant, ratio, sensor_delay)
    if base.bare and parameter != "rho":
        raise InputError(
            f"{parameter}: {type(loop).__name__} has none: give a GabaSpec and a plant"
        )
    unit = _at_unit_gain(base.plant) if parameter == "rho" else base.plant

    def at(value: float) -> Loop:
        if parameter == "rho":
            return replace(base, plant=unit * -value)
        setting = int(value) if parameter == "interval" else value
        return replace(base, spec=base.spec.replace(**{parameter: setting}))

    if values is None:
        grid = _default_values(parameter, at(-1.0) if parameter == "rho" else None)
    else:
        grid = np.sort(np.atleast_1d(np.asarray(values, dtype=np.float64)))
    loops = [at(float(value)) for value in grid]
    stable = [one.closed.stable for one in loops]
    return RootLocus(
        parameter=parameter,
        values=grid,
        poles=tuple(one.closed.poles for one in loops),
        spectral_radius=np.array([one.closed.radius ** (1.0 / one.interval) for one in loops]),
        stable_ranges=_ranges(grid, stable, at if parameter != "interval" else None),
    )


def _at_unit_gain(plant: Rational) -> Rational:
    """The plant with P(1) = 1, from its poles and zeros: its gain may be 0."""
    gain = float(np.real(np.prod(1.0 - plant.poles) / np.prod(1.0 - plant.zeros)))
    if not (math.isfinite(gain) and gain != 0.0):
        raise InputError("rho: the plant has a pole or a zero at z = 1: vary beta or the interval")
    return Rational(plant.zeros, plant.poles, gain)


def _default_values(parameter: str, unit: Loop | None) -> NDArray[np.float64]:
    if parameter == "beta":
        return 1.0 - np.geomspace(1e-4, 1.0, 200)[::-1]
    if parameter == "interval":
        return np.unique(np.geomspace(1, 500, 60).astype(int)).astype(float)
    from gabactl.control.margins import stabilising_gains

    assert unit is not None
    ranges = stabilising_gains(unit)
    lower = min(ranges[0][1], 1e4) if ranges else 10.0
    high = max(1.5, 0.05 * lower)
    # Poles leave the origin fast: fine steps near rho = 0.
    fine = np.geomspace(1e-4, 1.0, 120)
    return np.unique(
        np.concatenate([np.linspace(-1.25 * lower, high, 300), -1.25 * lower * fine, high * fine])
    )


def _ranges(
    grid: NDArray[np.float64], stable: list[bool], loop: Any
) -> tuple[tuple[float, float], ...]:
    """Runs of stable values; an edge between neighbours is bisected where values are real."""

    def edge(bad: float, good: float) -> float:
        if loop is None:
            return good
        for _ in range(60):
            middle = (bad + good) / 2
            if middle in (bad, good):
                break
            bad, good = (bad, middle) if loop(middle).closed.stable else (middle, good)
        return good

    ranges = []
    start: float | None = None
    for i, value in enumerate(grid):
        if stable[i] and start is None:
            start = float(value) if i == 0 else edge(float(grid[i - 1]), float(value))
        if start is not None and (not stable[i] or i == grid.size - 1):
            end = float(value) if stable[i] else edge(float(value), float(grid[i - 1]))
            ranges.append((start, end))
            start = None
    return tuple(ranges)
