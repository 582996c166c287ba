"""The delay margin by trying each delay, block by block, and where it is without end."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from gabactl.control import margins as margins_module
from gabactl.control._rational import Rational
from gabactl.control.linear import open_loop
from gabactl.control.margins import delay_margin, margins
from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio


@pytest.mark.parametrize("gain", [0.45, -0.45, 0.5, -0.5, 0.51, -0.51, 0.7, 1.2])
@pytest.mark.parametrize("pole", [0.5, -0.5])
def test_delays_by_trying_each(gain, pole):
    """Gains of 1 touch the circle at 0 or pi only; quieter loops stand any delay."""
    loop = Rational.of([], [pole], gain)
    if not loop.closed().stable:
        pytest.skip("no margins")
    verdicts = [loop.delayed(n).closed().stable for n in range(80)]
    expected = verdicts.index(False) - 1 if False in verdicts else math.inf
    assert margins(loop.to_control()).delay_margin_steps == expected
    n, why = delay_margin(loop.delayed, 1)
    assert n == expected
    assert why == ("the loop gain does not exceed 1 at any frequency" if n == math.inf else None)


def test_a_delay_margin_of_more_than_a_million():
    # |L| > 1 only below w = 6e-8: -1 is reached after 5e7 steps.
    loop = Rational.of([], [0.999], 0.001 * (1 + 3e-9))
    n, why = delay_margin(loop.delayed, 1)
    assert (n, why) == (math.inf, "stable with any delay up to 1000000 readings")


def test_the_worst_of_the_steps_between_two_readings_counts():
    def unstable_from(n: int) -> Rational:
        """A quiet loop, but for -1 reached by the n-th delay."""
        return SimpleNamespace(peak=lambda: (2.0, 0.0), first=n)

    loops = {0: unstable_from(5), 1: unstable_from(2), 2: unstable_from(3)}
    counters = margins_module.root_counter

    def counter(loop):
        return lambda n: ((n >= loop.first).astype(int), np.ones(len(n)))

    margins_module.root_counter = counter
    try:
        assert delay_margin(loops.__getitem__, 3) == (2 * 3 + 1 - 1, None)
        assert delay_margin(loops.__getitem__, 1) == (4, None)
        loops[0] = SimpleNamespace(peak=lambda: (0.5, 0.0))
        assert delay_margin(loops.__getitem__, 3) == (6, None)
        # A gain of 1 within 1e-9 only touches the circle, and is tried for 256 delays or so.
        loops[0] = SimpleNamespace(peak=lambda: (1.0, 0.0), first=5_000)
        told = "the loop gain does not exceed 1 at any frequency"
        assert delay_margin(loops.__getitem__, 1) == (math.inf, told)
        loops[0] = SimpleNamespace(peak=lambda: (1.0, 0.0), first=250)
        assert delay_margin(loops.__getitem__, 1) == (249, None)
        # At 1e-9 from it as well; below that any delay is stood, above it all are looked at.
        for peak in (1.0 - 1e-9, 1.0 + 1e-9):
            loops[0] = SimpleNamespace(peak=lambda peak=peak: (peak, 0.0), first=5)
            assert delay_margin(loops.__getitem__, 1) == (4, None)
            loops[0].first = 5_000
            assert delay_margin(loops.__getitem__, 1) == (math.inf, told)
        loops[0] = SimpleNamespace(peak=lambda: (1.5, 0.0), first=5_000)
        assert delay_margin(loops.__getitem__, 1) == (4_999, None)
    finally:
        margins_module.root_counter = counters


def test_delays_are_looked_at_block_by_block():
    asked: list[tuple[int, int]] = []

    def count(n):
        asked.append((int(n[0]), len(n)))
        return np.zeros(len(n), int), np.ones(len(n))

    assert margins_module._first_unstable(count, 200_000) is None
    assert asked[:4] == [(0, 64), (64, 256), (320, 1024), (1344, 4096)]
    assert all(a + size == b for (a, size), (b, _) in pairwise(asked))
    assert max(size for _, size in asked) == 65_536
    assert asked[-1][0] <= 200_000 < sum(asked[-1])


@pytest.mark.parametrize("at", [0, 1, 63, 64, 319, 320, 5000])
def test_the_first_unstable_delay_by_count_or_by_distance(at):
    def by_count(n):
        return (n >= at).astype(int), np.ones(len(n))

    def by_distance(n):
        return np.zeros(len(n), int), np.where(n == at, 9e-10, 1.1e-9)

    def off_the_circle(n):
        return np.zeros(len(n), int), np.where(n == at, 1e-9, 1e-8)

    assert margins_module._first_unstable(off_the_circle, 10_000) is None
    for count in (by_count, by_distance):
        assert margins_module._first_unstable(count, 10_000) == at
        assert margins_module._first_unstable(count, max(at, 1)) == at


def test_the_delay_of_a_lifted_loop_counts_steps():
    loop = open_loop(GabaSpec(beta=0.9, interval=3), LogRatio(-6.0, 0.3))
    n = int(margins(loop).delay_margin_steps)
    stable = [loop.delayed(k).rational.closed().stable for k in range(n + 2)]
    assert stable == [True] * (n + 1) + [False]
