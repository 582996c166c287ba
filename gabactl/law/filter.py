"""The moving average as a filter: its exact facts, and the filter as a system."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gabactl.base import plots
from gabactl.base.errors import packages_for
from gabactl.base.results import Result
from gabactl.law.spec import GabaSpec

__all__ = ["FilterFacts", "filter_facts", "filter_system"]


@dataclass(frozen=True)
class FilterFacts(Result):
    """Exact facts of the moving average, F(z) = (1 - p)/(1 - p z^-1) with p = beta^N.

    Attributes
    ----------
    spec : GabaSpec
        The settings; beta and the interval N count here.
    pole : float
        p, per reading.
    time_constant_steps : float
        -1/ln beta steps, whatever the interval; 0 without smoothing. 1/(1-beta), as often
        printed, is an approximation.
    rise_time_steps : float
        10 to 90 % of a step, ln 9 time constants.
    settling_updates, settling_steps : int
        Readings (and steps) after which a step response is within 2 % of its end.
    cutoff_rad_per_step : float or None
        Where the amplitude has fallen by 3 dB; of the sequence of readings for N > 1.
    cutoff_reason : str or None
        Why there is none.
    group_delay_dc_steps : float
        Lag behind a slow ramp, N p/(1-p) for the filter and (N-1)/2 for holding between readings.
    noise_power_gain, noise_power_gain_db : float
        Variance of the ema over that of white noise on the readings, (1-p)/(1+p).
    nyquist_rad_per_step, nyquist_amplitude, nyquist_amplitude_db : float
        Highest frequency that readings can show, pi/N, and the amplitude there.
    """

    spec: GabaSpec
    pole: float
    time_constant_steps: float
    rise_time_steps: float
    settling_updates: int
    settling_steps: int
    cutoff_rad_per_step: float | None
    cutoff_reason: str | None
    group_delay_dc_steps: float
    noise_power_gain: float
    noise_power_gain_db: float
    nyquist_rad_per_step: float
    nyquist_amplitude: float
    nyquist_amplitude_db: float

    title = "Smoothing filter"

    def _draw(self, ax: Any) -> None:
        """Amplitude over frequency, in dB, with the cutoff."""
        omega = np.geomspace(self.nyquist_rad_per_step * 1e-5, self.nyquist_rad_per_step, 500)
        pole, step = self.pole, self.spec.interval
        amplitude = (1 - pole) / np.abs(1 - pole * np.exp(-1j * omega * step))
        ax.semilogx(omega, 20 * np.log10(amplitude), label="moving average")
        noise = self.noise_power_gain_db
        ax.axhline(noise, color=plots.PALETTE[2], ls=":", label=f"white noise {noise:.1f} dB")
        if self.cutoff_rad_per_step is not None:
            ax.axvline(
                self.cutoff_rad_per_step,
                color=plots.PALETTE[1],
                ls="--",
                label=f"-3 dB at {self.cutoff_rad_per_step:.3g} rad/step",
            )
        ax.set(xlabel="frequency, rad/step", ylabel="amplitude, dB", title=self.title)
        ax.legend()

    def facts(self) -> dict[str, Any]:
        """The attributes under their names, with beta and interval."""
        own = {name: value for name, value in super().facts().items() if name != "spec"}
        return {"beta": self.spec.beta, "interval": self.spec.interval, **own}

    def rows(self) -> list[tuple[str, ...]]:
        """One row per fact."""
        if self.cutoff_rad_per_step is None:
            cutoff = f"none: {self.cutoff_reason}"
        else:
            cutoff = f"{self.cutoff_rad_per_step:.6f} rad/step"
        return [
            ("pole per reading", f"{self.pole:.6g}"),
            ("time constant", f"{self.time_constant_steps:.3f} steps"),
            ("rise 10-90 %", f"{self.rise_time_steps:.1f} steps"),
            ("settling to 2 %", f"{self.settling_updates} readings ({self.settling_steps} steps)"),
            ("-3 dB cutoff", cutoff),
            ("group delay at DC", f"{self.group_delay_dc_steps:.2f} steps"),
            (
                "white noise power",
                f"x {self.noise_power_gain:.6g} ({self.noise_power_gain_db:.2f} dB)",
            ),
            (
                "amplitude at Nyquist",
                f"x {self.nyquist_amplitude:.6g} ({self.nyquist_amplitude_db:.2f} dB) "
                f"at {self.nyquist_rad_per_step:.4f} rad/step",
            ),
        ]


def filter_facts(spec: GabaSpec) -> FilterFacts:
    """Exact facts of a setting's moving average.

    Parameters
    ----------
    spec : GabaSpec
        Settings; beta and interval matter.

    Returns
    -------
    FilterFacts

    Notes
    -----
    |F|^2 = (1-p)^2/(1 - 2 p cos w + p^2), which falls to half at cos w = 1 - (1-p)^2/(2p); that
    is a cosine only for p >= 3 - 2 sqrt 2. A step response is 1 - p^n after n readings.

    Examples
    --------
    >>> facts = filter_facts(GabaSpec())
    >>> round(facts.time_constant_steps, 3), facts.settling_updates
    (99.499, 390)
    >>> round(facts.noise_power_gain_db, 2), round(facts.nyquist_amplitude_db, 2)
    (-22.99, -45.98)
    """
    interval = spec.interval
    pole = spec.beta**interval
    time_constant = -1.0 / math.log(spec.beta) if spec.beta > 0.0 else 0.0
    # 0.02 itself counts as settled; the nudge keeps p^n = 0.02 on the right side of rounding.
    settling = 1 if pole == 0.0 else max(1, math.ceil(math.log(0.02) / math.log(pole) - 1e-9))
    gain = (1.0 - pole) / (1.0 + pole)
    cutoff, reason = _cutoff(pole, interval)
    return FilterFacts(
        spec=spec,
        pole=pole,
        time_constant_steps=time_constant,
        rise_time_steps=math.log(9.0) * time_constant,
        settling_updates=settling,
        settling_steps=settling * interval,
        cutoff_rad_per_step=cutoff,
        cutoff_reason=reason,
        group_delay_dc_steps=interval * pole / (1.0 - pole) + (interval - 1) / 2,
        noise_power_gain=gain,
        noise_power_gain_db=10.0 * math.log10(gain),
        nyquist_rad_per_step=math.pi / interval,
        nyquist_amplitude=gain,
        nyquist_amplitude_db=20.0 * math.log10(gain),
    )


def _cutoff(pole: float, interval: int) -> tuple[float | None, str | None]:
    if pole == 0.0:
        return None, "no smoothing, so nothing is attenuated"
    # sin^2(w/2) = (1-p)^2/(4p): the half angle keeps the digits that 1 - cos w loses.
    half = (1.0 - pole) / (2.0 * math.sqrt(pole))
    if half > 1.0:
        return (
            None,
            f"a pole of {pole:.4g} < 3 - 2 sqrt 2 attenuates less than 3 dB at any frequency",
        )
    return 2.0 * math.asin(half) / interval, None


def filter_system(spec: GabaSpec) -> Any:
    """The moving average as a python-control transfer function, in z^-1 form with feed-through.

    Parameters
    ----------
    spec : GabaSpec
        Settings; beta and interval matter.

    Returns
    -------
    control.TransferFunction
        (1 - p) z/(z - p) with p = beta^N and sampling time dt = N steps.

    Examples
    --------
    >>> system = filter_system(GabaSpec(beta=0.75))
    >>> system.poles().real.tolist(), system.zeros().real.tolist(), system.dt
    ([0.75], [0.0], 1)
    """
    with packages_for("a python-control system"):
        import control

    pole = spec.beta**spec.interval
    if pole == 0.0:
        return control.TransferFunction([1.0], [1.0], spec.interval)
    return control.TransferFunction([1.0 - pole, 0.0], [1.0, -pole], spec.interval)
