"""The picture of the margins: the disk, each margin, and loops that have none."""

from __future__ import annotations

import dataclasses
import math

import control
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gabactl.base import plots
from gabactl.control import margins as margins_module
from gabactl.control.margins import Margins, margins

#: 0.5/(z - 0.99): every margin by hand.
LOOP = control.TransferFunction([0.5], [1, -0.99], 1)
#: 1.5/(z - 0.5) is stable only from -1/3 to 1 times itself.
STEEP = control.TransferFunction([1.5], [1, -0.5], 1)


def _db(value: float) -> float:
    return 20 * math.log10(value)


@pytest.fixture(scope="module")
def found() -> Margins:
    return margins(LOOP)


def test_the_picture_shows_the_disk_and_each_margin(found):
    ax = found.plot()
    disk = ax.patches[0].get_xy()
    factor = 10 ** (disk[:, 0] / 20) * np.exp(1j * np.radians(disk[:, 1]))
    delta = np.abs(margins_module.disk_delta(factor, 0.0))
    assert delta == pytest.approx(found.disk_margin)
    # One point every half degree, counted upwards, and back to the first.
    assert len(disk) == 721
    around = margins_module.disk_delta(factor, 0.0)
    assert np.angle(around[1:-1] / around[:-2]) == pytest.approx(math.radians(0.5))
    assert ax.patches[0].get_alpha() == 0.25
    assert ax.patches[0].get_facecolor()[:3] == pytest.approx(to_rgb(plots.PALETTE[0]))
    assert to_rgb(ax.lines[0].get_color()) == pytest.approx(to_rgb(plots.PALETTE[1]))
    assert to_rgb(ax.lines[1].get_color()) == pytest.approx(to_rgb(plots.PALETTE[2]))
    up, turns = ax.lines[0], ax.lines[1]
    assert list(up.get_xdata()) == pytest.approx([_db(found.gain_margin_up)])
    assert list(up.get_ydata()) == [0]
    assert up.get_marker() == "o"
    assert list(turns.get_xdata()) == [0, 0]
    assert list(turns.get_ydata()) == [found.phase_margin_deg, -found.phase_margin_deg]
    assert turns.get_marker() == "s"
    assert [line.get_marker() for line in ax.lines[2:]] == ["o", "s"]
    assert all(len(line.get_xdata()) == 0 for line in ax.lines[2:])
    assert ax.lines[2].get_color() == up.get_color() != turns.get_color()
    assert ax.lines[3].get_color() == turns.get_color() != ax.patches[0].get_facecolor()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["disk margin", "gain margins", "phase margin"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == (
        "gain error, dB",
        "phase error, degrees",
        "Margins",
    )
    assert found.plot(ax) is ax


def test_the_picture_leaves_out_what_is_infinite():
    quiet = margins(control.TransferFunction([-0.25], [1, 0.5], 1), skew=1.0)
    for phase in (None, math.inf):
        ax = dataclasses.replace(
            quiet, gain_margin_up=math.inf, gain_margin_down=None, phase_margin_deg=phase
        ).plot()
        assert [len(line.get_xdata()) for line in ax.lines] == [0, 0]
    # A disk that reaches beyond its half plane is cut just before it.
    wide = dataclasses.replace(quiet, disk_margin=5.0).plot()
    edge = wide.patches[0].get_xy()
    factor = 10 ** (edge[:, 0] / 20) * np.exp(1j * np.radians(edge[:, 1]))
    assert np.abs(margins_module.disk_delta(factor, 1.0)) == pytest.approx(0.999)
    both = dataclasses.replace(quiet, gain_margin_up=4.0, gain_margin_down=0.25).plot()
    points = [float(x) for line in both.lines for x in line.get_xdata()]
    assert points[:2] == pytest.approx([_db(0.25), _db(4.0)])


def test_the_picture_of_a_loop_without_margins_is_its_poles():
    ax = margins(STEEP).plot()
    assert ax.get_title() == "no margins: the loop is neutral"
    assert dataclasses.replace(margins(STEEP), disk_margin=0.5).plot().get_title() == ax.get_title()
    gone = dataclasses.replace(margins(LOOP), disk_margin=None).plot()
    assert gone.get_title() == "no margins: the loop is stable"
