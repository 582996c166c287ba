"""Sliders with a number box each: drag to explore, type to be exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import panel as pn

from gabactl.app.session import Session
from gabactl.app.state import LIMITS


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


class _Bound:
    """A widget for one field of the view: it shows what the view has, and asks for what is set."""

    def __init__(self, session: Session, name: str, request: Callable[..., None]) -> None:
        self.session, self.name, self._request = session, name, request
        self._quiet = False

    def _ask(self, value: Any) -> None:
        if not self._quiet and value is not None:
            self._request(**{self.name: value})

    def show(self) -> None:
        """Show what the view has."""
        self._quiet = True
        try:
            self._show(getattr(self.session.view, self.name))
        finally:
            self._quiet = False

    def _show(self, value: Any) -> None:
        raise NotImplementedError


class Control(_Bound):
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
        super().__init__(session, name, request)
        self.scale = scale = CONTROLS[name]
        low, high = LIMITS[name]
        self._type: type = type(low)
        box = pn.widgets.IntInput if self._type is int else pn.widgets.FloatInput
        options = {} if self._type is int else {"format": "0[.][000000]", "step": 0.01}
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
        self.show()
        self.box.param.watch(lambda event: self._ask(event.new), "value")
        self.slider.param.watch(self._dragged, "value")
        self.panel = pn.Column(self.box, self.slider, sizing_mode="stretch_width", margin=0)

    def _dragged(self, event: Any) -> None:
        self._ask(self._type(self.scale.value(event.new)))

    def _show(self, value: Any) -> None:
        if self.name == "step":
            steps = self.session.trace.step
            value, first, last = int(steps[self.session.row]), int(steps[0]), int(steps[-1])
            if (self.slider.start, self.slider.end) != (first, last):
                self.slider.param.update(start=first, end=max(last, first + 1), value=last)
        if self.box.value != value:
            self.box.value = value
        # A position that stands for this value already is left where the hand has it.
        if self.scale.value(self.slider.value) != value:
            position = self.scale.position(value)
            self.slider.value = min(max(position, self.slider.start), self.slider.end)


class Choice(_Bound):
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
        super().__init__(session, name, request)
        self.panel = pn.widgets.Select(
            name=label,
            options=dict(options),
            value=getattr(session.view, name),
            sizing_mode="stretch_width",
            margin=(4, 8, 6, 8),
            css_classes=[f"choice-{name}"],
        )
        self.panel.param.watch(lambda event: self._ask(event.new), "value")

    def _show(self, value: Any) -> None:
        self.panel.value = value
