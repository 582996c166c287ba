"""Windows, targets, normalisation and the split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gabactl import cmapss
from gabactl.base.errors import InputError
from gabactl.cmapss.windows import SENSORS, WINDOW, Normaliser


def test_split_is_by_engine_and_by_seed(tiny_cmapss: Path) -> None:
    data = cmapss.load(tiny_cmapss, seed=3)
    trained, held = set(data.train.unit), set(data.validation.unit)
    assert len(held) == 1
    assert not trained & held
    assert len(trained | held) == 10
    again = cmapss.load(tiny_cmapss, seed=3)
    assert (again.train.inputs == data.train.inputs).all()
    seeds = {tuple(set(cmapss.load(tiny_cmapss, seed=s).validation.unit)) for s in range(8)}
    assert len(seeds) > 1
    with pytest.raises(InputError, match="too few"):
        cmapss.load(tiny_cmapss, validation=0.99)


def test_windows_end_where_they_say(tiny_cmapss: Path) -> None:
    data = cmapss.load(tiny_cmapss)
    raw = cmapss.read_engines(tiny_cmapss, "train_FD001.txt")
    rows = data.normaliser.transform(raw)
    windows = data.train
    for i in np.random.default_rng(0).integers(0, len(windows), 40):
        here = rows[(raw.unit == windows.unit[i]) & (raw.cycle <= windows.cycle[i])][-WINDOW:]
        assert (windows.inputs[i] == here).all()
        length = (raw.unit == windows.unit[i]).sum()
        assert windows.true_rul[i] == length - windows.cycle[i]
    # Every engine gives its length - 29 windows, and runs to failure.
    for unit in set(windows.unit):
        own = windows.cycle[windows.unit == unit]
        assert own.tolist() == list(range(WINDOW, (raw.unit == unit).sum() + 1))
        assert windows.true_rul[windows.unit == unit].min() == 0


def test_test_windows_are_the_last_and_short_engines_are_padded(tiny_cmapss: Path) -> None:
    data = cmapss.load(tiny_cmapss)
    assert data.test.unit.tolist() == [1, 2, 3]
    assert data.test.cycle.tolist() == [40, 21, 55]
    assert data.test.true_rul.tolist() == [20, 70, 120]
    raw = cmapss.read_engines(tiny_cmapss, "test_FD001.txt")
    short = data.normaliser.transform(raw)[raw.unit == 2]
    padded = data.test.inputs[1]
    assert (padded[-21:] == short).all()
    assert (padded[:9] == short[0]).all()
    every = cmapss.load(tiny_cmapss, all_test_windows=True).test
    assert len(every) == 11 + 1 + 26
    assert every.true_rul[:11].tolist() == list(range(30, 19, -1))


def test_targets_are_capped_and_classed(make_cmapss: Callable[..., Path]) -> None:
    data = cmapss.load(make_cmapss(train=(200, 60, 60), test=(40,)), validation=0.34, seed=0)
    whole = data.train if 1 in data.train.unit else data.validation
    whole_rul = whole.rul[whole.unit == 1]
    assert whole_rul.max() == 125
    assert whole.true_rul.max() == 170
    assert (whole.rul == np.minimum(whole.true_rul, 125)).all()
    # Classes as published: > 80 normal, 30 < RUL <= 80 degrading, <= 30 critical.
    assert (whole.health == np.where(whole.rul > 80, 0, np.where(whole.rul > 30, 1, 2))).all()
    assert set(whole.health) == {0, 1, 2}


def test_normalisation_is_fitted_on_training_engines_alone(tiny_cmapss: Path) -> None:
    data = cmapss.load(tiny_cmapss, seed=1)
    raw = cmapss.read_engines(tiny_cmapss, "train_FD001.txt")
    used = np.isin(raw.unit, list(set(data.train.unit)))
    values = raw.sensors[used][:, [s - 1 for s in SENSORS]]
    assert np.allclose(data.normaliser.mean[0], values.mean(axis=0))
    assert np.allclose(data.normaliser.std[0], values.std(axis=0))
    everything = Normaliser.fit(raw)
    assert not np.allclose(everything.mean, data.normaliser.mean)


def test_each_condition_is_normalised_on_its_own(make_cmapss: Callable[..., Path]) -> None:
    folder = make_cmapss("FD002", altitudes=(0, 10, 20, 25, 35, 42))
    raw = cmapss.read_engines(folder, "train_FD002.txt")
    normaliser = Normaliser.fit(raw)
    assert normaliser.conditions == (0, 10, 20, 25, 35, 42)
    rows = normaliser.transform(raw, channels=17)
    altitude = np.rint(raw.settings[:, 0])
    for level in normaliser.conditions:
        part = rows[altitude == level, :14]
        assert np.abs(part.mean(axis=0)).max() < 1e-4
        assert np.abs(part.std(axis=0) - 1).max() < 1e-4
    # Settings are normalised over all rows, so that they still tell the conditions apart; the
    # third is constant, and stays finite.
    assert np.ptp(rows[:, 14]) > 2
    assert (rows[:, 16] == 0).all()
    rows_10 = altitude == 10
    high = cmapss.Engines(
        raw.unit[rows_10], raw.cycle[rows_10], raw.settings[rows_10], raw.sensors[rows_10]
    )
    one = Normaliser.fit(cmapss.read_engines(make_cmapss("FD002"), "train_FD002.txt"))
    with pytest.raises(InputError, match="flight condition 10 kft is in no training engine"):
        one.transform(high)


def test_strange_altitudes_and_options_are_refused(
    tiny_cmapss: Path, make_cmapss: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=r"setting 1 is 1[23]"):
        cmapss.load(make_cmapss(altitudes=(13,)))
    for options, message in (
        ({"subset": "FD005"}, "subset = 'FD005' is unknown"),
        ({"channels": 15}, "channels = 15 is neither"),
        ({"validation": 0.0}, r"validation = 0.0 is not in \(0, 1\)"),
        ({"validation": 1.0}, "validation = 1.0"),
    ):
        with pytest.raises(InputError, match=message):
            cmapss.load(tiny_cmapss, **options)


@pytest.mark.cmapss
@pytest.mark.parametrize(("subset", "conditions"), [("FD001", 1), ("FD002", 6)])
def test_real_windows(cmapss_dir: Path, subset: str, conditions: int) -> None:
    data = cmapss.load(cmapss_dir, subset)
    assert len(data.normaliser.conditions) == conditions
    assert data.train.inputs.shape[1:] == (30, 14)
    # Fitted here: unit variance; rows of a window early in life count more often than late ones.
    assert abs(float(data.train.inputs.std()) - 1) < 0.15
    assert np.isfinite(data.test.inputs).all()
    assert float(np.abs(data.test.inputs).max()) < 15
    assert len(data.test) == {"FD001": 100, "FD002": 259}[subset]
