"""What a GABA controller is set to: the frozen, validated ``GabaSpec``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gabactl.base.checks import check_int, check_real
from gabactl.base.errors import InputError
from gabactl.base.files import read_toml
from gabactl.law.floors import FLOORS, FloorMode, FloorRow
from gabactl.law.laws import GUARDS, LAWS, Guard, Law, LawRow

__all__ = ["GabaSpec"]

#: What a setting of words takes.
CHOICES: dict[str, tuple[str, ...]] = {
    "law": tuple(LAWS),
    "floor_mode": tuple(FLOORS),
    "guard": GUARDS,
}


def labels(rows: Mapping[Any, FloorRow | LawRow]) -> dict[str, str]:
    """What people are shown for each name, such as "renormalise (published)".

    Parameters
    ----------
    rows : mapping
        :data:`gabactl.law.floors.FLOORS` or :data:`gabactl.law.laws.LAWS`.

    Returns
    -------
    dict of str to str
        From the label to the name.

    Examples
    --------
    >>> labels(LAWS)
    {'complement (published)': 'complement', 'inverse': 'inverse'}
    """
    return {f"{name} ({row.note})" if row.note else name: name for name, row in rows.items()}


@dataclass(frozen=True)
class GabaSpec:
    """Settings of a GABA controller.

    The defaults are the published ones, except the guard: ``GabaSpec(guard="none")`` is the
    published algorithm to the last bit.

    Parameters
    ----------
    n_tasks : int, at least 2
        Number of tasks K.
    beta : float in [0, 1)
        Pole of the exponential moving average, per optimisation step. 0 switches it off; the time
        constant is ``-1 / ln(beta)`` steps. beta = 1 would never leave 1/K and is refused.
    floor : float in [0, 1/K)
        Smallest weight m aimed at. What it guarantees depends on ``floor_mode``.
    warmup : int, at least 0
        Steps W at the start with weights 1/K and no measurement.
    law : {"complement", "inverse"}
        Proportional law from gradient norms to raw weights. They agree for K = 2; for K > 2 only
        ``inverse`` equalises the contributions ``w_i g_i``.
    floor_mode : {"renormalise", "affine", "project", "clamp_state"}
        ``renormalise`` (published) lets a weight fall to m/(1+m) for K = 2; the others keep
        [m, 1-(K-1)m]. ``clamp_state`` also clamps the stored average (true anti-windup).
    guard : {"hold", "none"}
        ``hold`` keeps the average when a reading is unusable (non-finite, or all zero); ``none``
        is as published, where one NaN poisons the average for ever.
    interval : int, at least 1
        A reading is taken every ``interval`` steps and enters with pole ``beta**interval``.

    Raises
    ------
    InputError
        A ``ValueError`` that names the value, the range and the remedy.

    Examples
    --------
    >>> GabaSpec(beta=0.9).replace(n_tasks=3).floor
    0.05
    >>> GabaSpec(floor=0.5)
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: floor = 0.5 is not in [0, 1/n_tasks) = [0, 0.5): choose a smaller floor, such as the published 0.05
    """

    n_tasks: int = 2
    beta: float = 0.99
    floor: float = 0.05
    warmup: int = 100
    law: Law = "complement"
    floor_mode: FloorMode = "renormalise"
    guard: Guard = "hold"
    interval: int = 1

    def __post_init__(self) -> None:
        for name, least, remedy in (
            ("n_tasks", 2, "balancing needs at least two losses"),
            ("warmup", 0, "0 switches the warm-up off"),
            ("interval", 1, "1 reads the gradient norms at every step"),
        ):
            number = check_int(name, getattr(self, name), least, remedy)
            object.__setattr__(self, name, number)
        beta = check_real("beta", self.beta, "give a number such as 0.99")
        if not 0.0 <= beta < 1.0:
            raise InputError(
                f"beta = {beta!r} is not in [0, 1): choose 0 for no smoothing or, for example, "
                "the published 0.99 (beta = 1 would keep the weights at 1/n_tasks for ever)"
            )
        floor = check_real("floor", self.floor, "give a number such as 0.05")
        if not 0.0 <= floor < 1.0 / self.n_tasks or floor * self.n_tasks >= 1.0:
            raise InputError(
                f"floor = {floor!r} is not in [0, 1/n_tasks) = [0, {1.0 / self.n_tasks:g}): "
                "choose a smaller floor, such as the published 0.05"
            )
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "floor", floor)
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(
                    f"{name} = {value!r} is unknown: choose one of {', '.join(allowed)}"
                )

    @classmethod
    def published(cls, n_tasks: int = 2, **changes: Any) -> GabaSpec:
        """The algorithm exactly as published, 1e-12 and unguarded average included.

        Parameters
        ----------
        n_tasks : int, at least 2
            Number of tasks K.
        **changes
            Settings that differ from the published ones.

        Examples
        --------
        >>> GabaSpec.published().guard
        'none'
        """
        return cls(n_tasks=n_tasks, **{"guard": "none", **changes})

    def replace(self, **changes: Any) -> GabaSpec:
        """A copy with some settings changed, and everything validated again.

        Parameters
        ----------
        **changes
            New values of settings, by name.

        Raises
        ------
        InputError
            A name that is no setting, or a value out of range.

        Examples
        --------
        >>> GabaSpec().replace(interval=10).interval
        10
        """
        _refuse_unknown(changes, "GabaSpec.replace")
        return replace(self, **changes)

    def measures_at(self, step: int) -> bool:
        """Whether step (counted from 1) takes a reading: W + 1, W + 1 + N, W + 1 + 2 N, ...

        Parameters
        ----------
        step : int
            Counted from 1.

        Examples
        --------
        >>> [step for step in range(1, 9) if GabaSpec(warmup=2, interval=3).measures_at(step)]
        [3, 6]
        """
        return step > self.warmup and (step - self.warmup - 1) % self.interval == 0

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values, in the order of the fields.

        Examples
        --------
        >>> list(GabaSpec().to_dict())[:3]
        ['n_tasks', 'beta', 'floor']
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], source: str = "spec") -> GabaSpec:
        """Build from plain values, refusing unknown keys.

        Parameters
        ----------
        settings : mapping
            Any subset of the fields; the rest take their defaults.
        source : str
            Where the values come from, for the error message.

        Examples
        --------
        >>> GabaSpec.from_dict({"beta": 0.9}).beta
        0.9
        """
        _refuse_unknown(settings, source)
        return cls(**dict(settings))

    def to_toml(self) -> str:
        """The settings as a TOML document with one table ``[gaba]``.

        Examples
        --------
        >>> print(GabaSpec(beta=0.9).to_toml().splitlines()[2])
        beta = 0.9
        """
        lines = [
            f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value!r}"
            for name, value in self.to_dict().items()
        ]
        return "\n".join(["[gaba]", *lines, ""])

    @classmethod
    def from_toml(cls, path: str | Path) -> GabaSpec:
        """Read the table ``[gaba]`` of a TOML file (or its top level, where there is none).

        Parameters
        ----------
        path : path
            At most 1 MiB.

        Raises
        ------
        InputError
            The file is missing, over 1 MiB, no TOML, or has an unknown key or a value out of range.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "spec.toml"
        >>> _ = file.write_text(GabaSpec(floor=0.01).to_toml())
        >>> GabaSpec.from_toml(file) == GabaSpec(floor=0.01)
        True
        """
        table: Any = read_toml(path)
        table = table.get("gaba", table)
        if not isinstance(table, dict):
            raise InputError(
                f"{path}: 'gaba' must be a table of settings, such as [gaba] beta = 0.99"
            )
        return cls.from_dict(table, source=str(path))


def _refuse_unknown(settings: Mapping[str, Any], source: str) -> None:
    known = [field.name for field in fields(GabaSpec)]
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise InputError(
            f"{source}: unknown setting {unknown[0]!r}: choose from {', '.join(known)}"
        )
