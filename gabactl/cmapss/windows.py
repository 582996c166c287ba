"""From engine histories to training examples: normalisation, windows, targets, splits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError
from gabactl.cmapss.files import SUBSETS, Engines, read_engines, read_rul

__all__ = ["load"]

#: Cycles per window.
WINDOW = 30
#: Targets are min(RUL, 125): early on, nothing in the sensors tells how long an engine will last.
MAX_RUL = 125.0
#: The 14 sensors that say something; the other seven are constant within a flight condition.
SENSORS = (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
#: Altitudes (kft) that tell the six flight conditions apart; setting 1 is within 0.01 of one.
CONDITIONS = (0, 10, 20, 25, 35, 42)


@dataclass(frozen=True)
class Normaliser:
    """Per-condition z-score of the sensors, z-score of the settings over all conditions.

    Attributes
    ----------
    conditions : tuple of int
        The flight conditions seen, as altitudes in kft.
    mean, std : arrays, shape (conditions, 14)
        Of each sensor in each condition; a deviation too small to divide by is 1.
    setting_mean, setting_std : arrays, shape (3,)
        Of the operational settings, over all rows (per condition they would be noise).
    """

    conditions: tuple[int, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    setting_mean: NDArray[np.float64]
    setting_std: NDArray[np.float64]

    @classmethod
    def fit(cls, engines: Engines, units: Collection[int] | None = None) -> Normaliser:
        """Means and deviations over the given engines (default: all).

        Parameters
        ----------
        engines : Engines
            Rows of a training file.
        units : collection of int, optional
            Engines to use: leave the validation engines out.

        Raises
        ------
        InputError
            A flight condition that is none of the six, or no engines.
        """
        rows = (
            np.isin(engines.unit, list(units)) if units is not None else np.ones(len(engines), bool)
        )
        if not rows.any():
            raise InputError("no engines to normalise with: leave at least one for training")
        sensors, condition = _sensors(engines)[rows], _conditions(engines)[rows]
        known = tuple(int(c) for c in np.unique(condition))
        groups = [sensors[condition == c] for c in known]
        mean = np.stack([g.mean(axis=0) for g in groups])
        std = np.stack([g.std(axis=0) for g in groups])
        settings = engines.settings[rows]
        setting_mean = settings.mean(axis=0)
        return cls(
            known,
            mean,
            _divisible(std, mean),
            setting_mean,
            _divisible(settings.std(axis=0), setting_mean),
        )

    def transform(self, engines: Engines, channels: int = 14) -> NDArray[np.float32]:
        """Normalised rows.

        Parameters
        ----------
        engines : Engines
            Rows of any file of the same subset.
        channels : {14, 17}
            14 sensors, or these and the 3 settings.

        Returns
        -------
        array, shape (rows, channels)

        Raises
        ------
        InputError
            A flight condition that was not there when fitting.
        """
        _check_channels(channels)
        condition = _conditions(engines)
        index = np.searchsorted(self.conditions, condition).clip(max=len(self.conditions) - 1)
        unseen = np.asarray(self.conditions)[index] != condition
        if unseen.any():
            row = int(np.argmax(unseen))
            raise InputError(
                f"unit {engines.unit[row]}, cycle {engines.cycle[row]}: flight condition "
                f"{condition[row]:g} kft is in no training engine (they have "
                f"{', '.join(map(str, self.conditions))}): use files of one subset"
            )
        values = (_sensors(engines) - self.mean[index]) / self.std[index]
        if channels == 17:
            settings = (engines.settings - self.setting_mean) / self.setting_std
            values = np.concatenate([values, settings], axis=1)
        return values.astype(np.float32)


@dataclass(frozen=True)
class Windows:
    """Examples for training or testing.

    Attributes
    ----------
    inputs : float32 array, shape (examples, 30, channels)
        Normalised; the last row is the present cycle.
    rul : float32 array, shape (examples,)
        Target in cycles, min(RUL, 125).
    health : int64 array, shape (examples,)
        Class of the RUL, see :func:`health_class`.
    true_rul : float32 array, shape (examples,)
        RUL in cycles without the limit of 125.
    unit, cycle : int64 arrays, shape (examples,)
        Where the window ends.
    """

    inputs: NDArray[np.float32]
    rul: NDArray[np.float32]
    health: NDArray[np.int64]
    true_rul: NDArray[np.float32]
    unit: NDArray[np.int64]
    cycle: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rul)


@dataclass(frozen=True)
class Cmapss:
    """One subset, ready for training.

    Attributes
    ----------
    subset : str
        FD001 to FD004.
    channels : int
        14 or 17.
    train, validation, test : Windows
        Training and validation windows come from different engines. The test windows are the last
        of each engine, unless all were asked for.
    normaliser : Normaliser
        Fitted on the training engines alone.
    seed : int
        Of the split.
    """

    subset: str
    channels: int
    train: Windows
    validation: Windows
    test: Windows
    normaliser: Normaliser
    seed: int


def load(
    source: str | Path,
    subset: str = "FD001",
    *,
    channels: int = 14,
    validation: float = 0.1,
    seed: int = 0,
    all_test_windows: bool = False,
) -> Cmapss:
    """Read, check, split, normalise and cut one subset.

    Parameters
    ----------
    source : path
        Folder or zip archive, see :mod:`gabactl.cmapss.files`.
    subset : {"FD001", "FD002", "FD003", "FD004"}
        FD002 and FD004 have six flight conditions, the others one.
    channels : {14, 17}
        14 sensors, or these and the 3 operational settings.
    validation : float in (0, 1)
        Share of the training engines kept for validation (at least one).
    seed : int
        Of the choice of validation engines.
    all_test_windows : bool
        Every window of the test engines rather than the last one of each.

    Raises
    ------
    InputError
        Bad files or options.

    Examples
    --------
    >>> load("/nonexistent")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: ... no such folder or zip archive: get the data with `gabactl cmapss data fetch ...`
    """
    if subset not in SUBSETS:
        raise InputError(f"subset = {subset!r} is unknown: choose one of {', '.join(SUBSETS)}")
    if not 0.0 < validation < 1.0:
        raise InputError(f"validation = {validation!r} is not in (0, 1): choose for example 0.1")
    _check_channels(channels)
    history = read_engines(source, f"train_{subset}.txt")
    trial = read_engines(source, f"test_{subset}.txt")
    left = read_rul(source, f"RUL_{subset}.txt", engines=len(trial.units))
    units = history.units
    held = max(1, round(validation * len(units)))
    if held >= len(units):
        raise InputError(
            f"train_{subset}.txt has {len(units)} engines, too few to keep {held} for validation"
        )
    shuffled = np.random.default_rng(seed).permutation(units)
    for_validation = {int(u) for u in shuffled[:held]}
    for_training = {int(u) for u in shuffled[held:]}
    normaliser = Normaliser.fit(history, for_training)
    rows = normaliser.transform(history, channels)
    nothing_left = np.zeros(len(units))
    return Cmapss(
        subset,
        channels,
        _cut(history, rows, nothing_left, for_training),
        _cut(history, rows, nothing_left, for_validation),
        _cut(trial, normaliser.transform(trial, channels), left, None, not all_test_windows),
        normaliser,
        seed,
    )


def health_class(rul: ArrayLike) -> NDArray[np.int64]:
    """Health class: 0 normal (RUL > 80), 1 degrading (30 < RUL <= 80), 2 critical (RUL <= 30).

    Parameters
    ----------
    rul : array, any shape
        Remaining useful lives, in cycles.

    Returns
    -------
    array of int64, of the shape of the input

    Examples
    --------
    >>> health_class([81, 80, 31, 30]).tolist()
    [0, 1, 1, 2]
    """
    values = np.asarray(rul, dtype=np.float64)
    return (values <= 80).astype(np.int64) + (values <= 30)


def _cut(
    engines: Engines,
    rows: NDArray[np.float32],
    left: NDArray[np.float64],
    units: Collection[int] | None,
    last_only: bool = False,
) -> Windows:
    """Windows of the given engines; one shorter than a window is padded with its first row."""
    inputs, rul, unit, cycle = [], [], [], []
    for order, (number, part) in enumerate(engines.slices()):
        if units is not None and number not in units:
            continue
        values = rows[part]
        length = len(values)
        if length < WINDOW:
            values = np.concatenate([np.repeat(values[:1], WINDOW - length, axis=0), values])
        cut = sliding_window_view(values, WINDOW, axis=0).transpose(0, 2, 1)
        ends = np.arange(length - len(cut) + 1, length + 1)
        if last_only:
            cut, ends = cut[-1:], ends[-1:]
        inputs.append(cut)
        rul.append(left[order] + length - ends)
        unit.append(np.full(len(ends), number))
        cycle.append(ends)
    true_rul = np.concatenate(rul).astype(np.float32)
    target = np.minimum(true_rul, np.float32(MAX_RUL))
    return Windows(
        np.ascontiguousarray(np.concatenate(inputs)),
        target,
        health_class(target),
        true_rul,
        np.concatenate(unit),
        np.concatenate(cycle),
    )


def _sensors(engines: Engines) -> NDArray[np.float64]:
    return engines.sensors[:, [s - 1 for s in SENSORS]]


def _conditions(engines: Engines) -> NDArray[np.float64]:
    altitude = engines.settings[:, 0]
    condition = np.rint(altitude) + 0.0  # no -0.0
    unknown = ~np.isin(condition, CONDITIONS)
    if unknown.any():
        row = int(np.argmax(unknown))
        raise InputError(
            f"unit {engines.unit[row]}, cycle {engines.cycle[row]}: setting 1 is "
            f"{altitude[row]:g}, but the flight conditions of C-MAPSS are at "
            f"{', '.join(map(str, CONDITIONS))} kft: check the columns"
        )
    return condition


def _divisible(std: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    # A constant column has a deviation of rounding errors: dividing by them would make noise.
    return np.where(std > 1e-9 * np.maximum(1.0, np.abs(mean)), std, 1.0)


def _check_channels(channels: int) -> None:
    if channels not in (14, 17):
        raise InputError(
            f"channels = {channels!r} is neither 14 (sensors) nor 17 (and the settings)"
        )
