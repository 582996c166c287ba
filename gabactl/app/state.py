"""What a view of the dashboard is made of, and its form in the address.

The address is written by anybody, so every value is checked against what is allowed; what is not
is left out, with one line that says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from gabactl.base.errors import InputError
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.traces import bundled

#: Every tab in their order: its key, its title and its class, in the module of the key.
TABS: dict[str, tuple[str, str]] = {
    "live": ("Live loop", "LiveTab"),
    "diagram": ("Block diagram", "DiagramTab"),
    "crossing": ("Where the curves cross", "CrossingTab"),
    "gradnorm": ("GABA against GradNorm", "GradNormTab"),
    "sensor": ("Sensor", "SensorTab"),
    "frequency": ("Frequency and stability", "FrequencyTab"),
    "trace": ("Your trace", "TraceTab"),
}

#: The run that was named on the command line or uploaded, as a choice of ``source``.
GIVEN = "given"

#: Lowest and highest value of every number.
LIMITS: dict[str, tuple[float, float]] = {
    "beta": (0.0, 0.9999),
    "floor": (0.0, 0.4999),
    "warmup": (0, 100_000),
    "interval": (1, 1000),
    "step": (0, 10**9),
    "ratio": (0.0, 1e6),
    "rho": (-300.0, 3.0),
    "lag": (0.0, 500.0),
    "delay": (0, 50),
    "alpha": (0.0, 5.0),
    "progress_1": (0.01, 2.0),
    "progress_2": (0.01, 2.0),
}

_CHOICES: dict[str, tuple[str, ...]] = {
    "tab": tuple(TABS),
    **CHOICES,
    "variant": ("chen2018", "textbook"),
    "theme": ("auto", "light", "dark"),
}

#: The fields that are settings of the controller.
SPEC_FIELDS = tuple(field.name for field in fields(GabaSpec) if field.name != "n_tasks")

#: Longest value in an address that is looked at.
_MAX_VALUE = 2000
_MOST_PROBLEMS = 3


@dataclass(frozen=True)
class View:
    """Everything that decides what the page shows.

    Attributes
    ----------
    tab : str
        Key of the open tab.
    source : str
        A bundled run, or "given": the one named at the start or uploaded.
    beta, floor, warmup, law, floor_mode, guard, interval
        Settings of the controller.
    step : int
        Position in the run, counted from 1; 0 is its end.
    ratio : float
        Imbalance g_1/g_2 looked at; 0 takes that of the run at ``step``.
    rho, lag, delay : float, float, int
        Log-ratio plant: feedback, time constant of its lag in steps, extra delay in steps.
    alpha, progress_1, progress_2, variant
        GradNorm: restoring force, the losses over their initial values, and the variant.
    without : tuple of str
        Parameter groups that the sensor leaves out.
    theme : {"auto", "light", "dark"}
        Colours of the page; "auto" follows the system's.

    Examples
    --------
    >>> view, problems = View().updated_by({"beta": ["0.9"], "floor": ["nan"]})
    >>> view.beta, problems
    (0.9, ["floor = 'nan' is not a number from 0 to 0.4999: left out"])
    >>> view.to_query()
    '?beta=0.9'
    """

    tab: str = "live"
    source: str = "fd001-gaba"
    beta: float = 0.99
    floor: float = 0.05
    warmup: int = 100
    law: str = GabaSpec.law
    floor_mode: str = GabaSpec.floor_mode
    guard: str = GabaSpec.guard
    interval: int = 1
    step: int = 0
    ratio: float = 0.0
    rho: float = -0.2
    lag: float = 10.0
    delay: int = 0
    alpha: float = 1.5
    progress_1: float = 0.5
    progress_2: float = 0.5
    variant: str = "chen2018"
    without: tuple[str, ...] = ()
    theme: str = "auto"

    def spec(self, n_tasks: int = 2) -> GabaSpec:
        """The controller's settings.

        Parameters
        ----------
        n_tasks : int
            How many tasks the run has, at least 2.

        Raises
        ------
        InputError
            Settings that do not fit that many tasks.

        Examples
        --------
        >>> View(beta=0.9).spec().beta
        0.9
        """
        return GabaSpec.from_dict(
            {name: getattr(self, name) for name in SPEC_FIELDS} | {"n_tasks": n_tasks}
        )

    def of_spec(self, spec: GabaSpec) -> View:
        """This view with the settings of a spec.

        Parameters
        ----------
        spec : GabaSpec
            Its number of tasks does not count: that is the run's.

        Raises
        ------
        InputError
            A setting lies outside the limits of the page (:data:`LIMITS`).

        Examples
        --------
        >>> View().of_spec(GabaSpec(floor=0.01)).floor
        0.01
        """
        values = spec.to_dict()
        return self.changed(**{name: values[name] for name in SPEC_FIELDS})

    def changed(self, **changes: Any) -> View:
        """A copy with some fields changed, all of them checked.

        Parameters
        ----------
        **changes
            New values of fields, by name.

        Raises
        ------
        InputError
            A value out of its range.

        Examples
        --------
        >>> View().changed(rho=7.0)
        Traceback (most recent call last):
            ...
        gabactl.base.errors.InputError: rho = 7.0 is not a number from -300 to 3
        """
        return replace(self, **{name: _checked(name, value) for name, value in changes.items()})

    def to_query(self, base: View | None = None) -> str:
        """The view as the query of an address: what differs from the defaults.

        Parameters
        ----------
        base : View, optional
            The defaults.

        Examples
        --------
        >>> View(tab="sensor", without=("heads",)).to_query()
        '?tab=sensor&without=heads'
        """
        usual = View() if base is None else base
        changed = {
            field.name: _text(getattr(self, field.name))
            for field in fields(self)
            if getattr(self, field.name) != getattr(usual, field.name)
        }
        return "?" + urlencode(changed) if changed else ""

    def updated_by(self, query: Mapping[str, Sequence[str | bytes]]) -> tuple[View, list[str]]:
        """What an address asks for.

        Parameters
        ----------
        query : mapping of str to sequence
            The parsed query; of repeated values the last one counts.

        Returns
        -------
        view : View
        problems : list of str
            One line for each thing left out, the first few.

        Examples
        --------
        >>> View().updated_by({"source": ["../../etc/passwd"]})[1]
        ["source = '../../etc/passwd' is not one of given, fd001-equal, ...: left out"]
        """
        found: dict[str, Any] = {}
        problems: list[str] = []
        known = {field.name for field in fields(self)}
        for name, values in query.items():
            if not values:
                continue
            text = values[-1]
            if isinstance(text, bytes):
                text = text.decode("utf-8", errors="replace")
            if name not in known:
                problems.append(f"the address has {name[:40]!r}, which is nothing known: left out")
                continue
            try:
                found[name] = _parsed(name, text)
            except InputError as error:
                problems.append(f"{error}: left out")
        if len(problems) > _MOST_PROBLEMS:
            more = len(problems) - _MOST_PROBLEMS
            problems = [*problems[:_MOST_PROBLEMS], f"and {more} more"]
        return replace(self, **found), problems


def _parsed(name: str, text: str) -> Any:
    if len(text) > _MAX_VALUE:
        raise InputError(f"{name} is longer than {_MAX_VALUE} characters")
    if name == "without":
        return _checked(name, tuple(part for part in text.split(",") if part))
    if name not in LIMITS:
        return _checked(name, text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _out_of_range(name, text[:40])
    return _checked(name, number)


def _checked(name: str, value: Any) -> Any:
    if name == "without":
        return tuple(str(part) for part in value)
    if name in LIMITS:
        low, high = LIMITS[name]
        if not low <= value <= high:
            raise _out_of_range(name, value)
        if not isinstance(low, int):
            return float(value)
        if value != int(value):
            raise InputError(f"{name} = {value!r} is not a whole number")
        return int(value)
    allowed = (GIVEN, *bundled()) if name == "source" else _CHOICES[name]
    if value not in allowed:
        raise InputError(f"{name} = {str(value)[:40]!r} is not one of {', '.join(allowed)}")
    return value


def _out_of_range(name: str, value: Any) -> InputError:
    low, high = LIMITS[name]
    return InputError(f"{name} = {value!r} is not a number from {low:g} to {high:g}")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return repr(value) if isinstance(value, float) else str(value)
