"""Sliders with a number box each: drag to explore, type to be exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import panel as pn

from gabactl.app.session import Session
from gabactl.app.state import LIMITS

__all__ = ["CONTROLS", "Choice", "Control", "SliderScale"]


@dataclass(frozen=True)
class SliderScale:
    """How a slider's position stands for a value.

    Attributes
    ----------
    label : str
        What is set, with its unit.
    low, high, step : float
        Positions.
    value : function
        From position to value.
    position : function
        Back; positions beyond the ends stay at them.
    """

    label: str
    low: float
    high: float
    step: float
    value: Callable[[float], float]
    position: Callable[[float], float]


def _linear(label: str, low: float, high: float, step: float) -> SliderScale:
    digits = max(0, -math.floor(math.log10(step)))
    return SliderScale(label, low, high, step, lambda p: round(p, digits), float)


def _log(label: str, low: float, high: float, least_is_zero: bool = False) -> SliderScale:
    """Decades; with ``least_is_zero`` the left end is 0."""

    def value(position: float) -> float:
        if least_is_zero and position <= low:
            return 0.0
        return float(f"{10.0**position:.3g}")

    def position(value: float) -> float:
        return math.log10(value) if value > 0 else low

    return SliderScale(label, low, high, 0.01, value, position)


def _pole(label: str) -> SliderScale:
    """A pole by the nines it has: 0, 0.9, 0.99, ..."""

    def value(position: float) -> float:
        gain = 10.0**-position
        return float(f"{1.0 - gain:.{2 + math.ceil(position)}g}") if position > 0 else 0.0

    return SliderScale(label, 0.0, 4.0, 0.01, value, lambda v: -math.log10(1.0 - v))


#: Every slider of the page, by the field of the view it sets.
CONTROLS: dict[str, SliderScale] = {
    "beta": _pole("Smoothing β"),
    "floor": _log("Floor m", -5.0, math.log10(0.49), least_is_zero=True),
    "warmup": _linear("Warm-up W, steps", 0, 1000, 1),
    "interval": _log("Reading every N steps", 0.0, 3.0),
    "step": _linear("Step looked at", 1, 5000, 1),
    "ratio": _log("Imbalance g₁/g₂", -1.0, 4.0, least_is_zero=True),
    "rho": _linear("Feedback ρ of the plant", -3.0, 1.5, 0.01),
    "lag": _linear("Lag of the plant, steps", 0.0, 100.0, 0.5),
    "delay": _linear("Extra delay, steps", 0, 50, 1),
    "alpha": _linear("GradNorm α", 0.0, 3.0, 0.05),
    "progress_1": _linear("Loss 1 over its start", 0.05, 1.5, 0.01),
    "progress_2": _linear("Loss 2 over its start", 0.05, 1.5, 0.01),
}


class Control:
    """A slider and a number box for one field of the view.

    Parameters
    ----------
    session : Session
        What is looked at.
    name : str
        Field of the view.
    request : function
        Called with the changed field.
    """

    def __init__(self, session: Session, name: str, request: Callable[..., None]) -> None:
        self.session, self.name, self._request = session, name, request
        self.scale = scale = CONTROLS[name]
        whole = isinstance(LIMITS[name][0], int)
        box = pn.widgets.IntInput if whole else pn.widgets.FloatInput
        options: dict[str, Any] = {} if whole else {"format": "0[.][000000]", "step": 0.01}
        low, high = LIMITS[name]
        self.box = box(
            name=scale.label,
            value=getattr(session.view, name),
            start=low,
            end=high,
            sizing_mode="stretch_width",
            margin=(4, 8, 0, 8),
            css_classes=[f"box-{name}"],
            **options,
        )
        self.slider = pn.widgets.FloatSlider(
            name="",
            value=scale.low,
            start=scale.low,
            end=scale.high,
            step=scale.step,
            show_value=False,
            tooltips=False,
            sizing_mode="stretch_width",
            margin=(0, 14, 6, 14),
            css_classes=["slider", f"slider-{name}"],
        )
        self._quiet = False
        self.show()
        self.box.param.watch(self._typed, "value")
        self.slider.param.watch(self._dragged, "value")
        self.panel = pn.Column(self.box, self.slider, sizing_mode="stretch_width", margin=0)

    def _typed(self, event: Any) -> None:
        if not self._quiet and event.new is not None:
            self._request(**{self.name: event.new})

    def _dragged(self, event: Any) -> None:
        if self._quiet:
            return
        value = self.scale.value(event.new)
        self._request(**{self.name: int(value) if isinstance(LIMITS[self.name][0], int) else value})

    def show(self) -> None:
        """Show what the view has."""
        value = getattr(self.session.view, self.name)
        if self.name == "step":
            value = int(self.session.trace.step[self.session.row])
            self._span()
        self._quiet = True
        try:
            if self.box.value != value:
                self.box.value = value
            # A position that stands for this value already is left where the hand has it.
            if self.scale.value(self.slider.value) != value:
                position = self.scale.position(value)
                self.slider.value = min(max(position, self.slider.start), self.slider.end)
        finally:
            self._quiet = False

    def _span(self) -> None:
        steps = self.session.trace.step
        if (self.slider.start, self.slider.end) != (int(steps[0]), int(steps[-1])):
            self._quiet = True
            self.slider.param.update(
                start=int(steps[0]),
                end=max(int(steps[-1]), int(steps[0]) + 1),
                value=int(steps[-1]),
            )
            self._quiet = False


class Choice:
    """A drop-down for one field of the view.

    Parameters
    ----------
    session : Session
        What is looked at.
    name : str
        Field of the view.
    label : str
        What is chosen.
    options : mapping of str to str
        Shown text to value.
    request : function
        Called with the changed field.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        label: str,
        options: Mapping[str, str],
        request: Callable[..., None],
    ) -> None:
        self.session, self.name, self._request = session, name, request
        self.panel = pn.widgets.Select(
            name=label,
            options=dict(options),
            value=getattr(session.view, name),
            sizing_mode="stretch_width",
            margin=(4, 8, 6, 8),
            css_classes=[f"choice-{name}"],
        )
        self._quiet = False
        self.panel.param.watch(self._picked, "value")

    def _picked(self, event: Any) -> None:
        if not self._quiet:
            self._request(**{self.name: event.new})

    def show(self) -> None:
        """Show what the view has."""
        self._quiet = True
        try:
            self.panel.value = getattr(self.session.view, self.name)
        finally:
            self._quiet = False
