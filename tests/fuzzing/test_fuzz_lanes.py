"""The vectorised searcher computes what the reference computes, and gets to the true extremes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gabactl.fuzzing import _lanes, lanes, reachable
from gabactl.fuzzing.lanes import LaneSearch, Programs, survey
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.law.stages import usable

MODES = CHOICES["floor_mode"]


def both_ends(stats):
    return np.stack([-stats[0], stats[1]])


def programs(spec, count, length, seed, *, odd):
    """A block of random programs, with every kind of reading the searcher uses."""
    search = LaneSearch(spec, both_ends, length, seed, lanes=count, any_reading=odd)
    return search._breed()


@pytest.mark.parametrize("n_tasks", [2, 3, 8, 9, 17])
@pytest.mark.parametrize(
    ("law", "mode", "guard"),
    list(itertools.product(CHOICES["law"], MODES, ["hold", "none"])),
)
def test_the_compiled_loop_equals_the_reference_to_the_last_bit(n_tasks, law, mode, guard):
    spec = GabaSpec(n_tasks, 0.9, 0.3 / n_tasks, 0, law, mode, guard)
    block = programs(spec, 16, 24, n_tasks, odd=True)
    trail = np.empty((24, n_tasks, 16))
    stats, floored = np.empty((len(lanes.STATS), 16)), np.empty((n_tasks, 16))
    c = (0.9, spec.floor, int(law == "inverse"), MODES.index(mode), int(guard == "none"))
    _lanes.run_block(
        block.base, block.ends, block.state.copy(), block.exponents, block.mantissas,
        *c, stats, floored, trail,
    )  # fmt: skip
    for lane in range(0, 16, 3):
        controller = Controller(spec)
        readings = block.lane(lane).readings()
        with np.errstate(all="ignore"):
            expected = np.array([controller.observe(row) for row in readings])
        assert np.array_equal(trail[:, :, lane], expected, equal_nan=True)


@pytest.mark.parametrize("guard", ["hold", "none"])
@pytest.mark.parametrize("mode", MODES)
def test_the_statistics_of_a_block_are_those_of_the_reference(mode, guard):
    spec = GabaSpec(n_tasks=3, beta=0.9, warmup=0, floor_mode=mode, guard=guard)
    block = programs(spec, 32, 50, 1, odd=True)
    stats, floored = lanes.run(block, spec)
    for lane in range(32):
        controller, weights, averages = Controller(spec), [], []
        readings = block.lane(lane).readings()
        with np.errstate(all="ignore"):
            for row in readings:
                weights.append(controller.observe(row))
                averages.append(controller.ema_weights)
        expected = np.array(weights), np.array(averages)
        off, off_average = (np.abs(x.sum(axis=1) - 1.0) for x in expected)
        held = int((~usable(readings, spec.law)).sum()) if guard == "hold" else 0
        low = np.fmin.reduce(expected[0], axis=None, initial=np.inf)
        high = np.fmax.reduce(expected[0], axis=None, initial=-np.inf)
        assert stats[[0, 1, 4, 5], lane].tolist() == [low, high, (~np.isfinite(off)).sum(), held]
        # Sums of weights are only diagnostics here, and rounded in another order.
        assert stats[2, lane] == pytest.approx(np.fmax.reduce(off, initial=0.0), abs=1e-14)
        assert stats[3, lane] == pytest.approx(np.fmax.reduce(off_average, initial=0.0), abs=1e-14)
        assert np.array_equal(floored[:, lane], (expected[1] < spec.floor).sum(axis=0))


def test_the_readings_of_a_lane_are_those_it_was_fed():
    spec = GabaSpec(n_tasks=2, warmup=0)
    block = programs(spec, 8, 40, 2, odd=True)
    emitted = _lanes.emit_readings(
        block.base, block.ends, block.state.copy(), block.exponents, block.mantissas
    )
    for lane in range(8):
        assert np.array_equal(emitted[:, :, lane], block.lane(lane).readings(), equal_nan=True)


def test_a_lane_becomes_a_case_with_warmup_and_interval():
    spec = GabaSpec(warmup=5, interval=3)
    one = Programs(
        np.array([[[1.0], [0.0]], [[2.0], [2.0]]]),
        np.array([2, 3]),
        np.array([1], dtype=np.uint64),
        np.zeros(1, dtype=np.uint64),
        np.zeros(1, dtype=np.uint64),
    )
    case = one.case(spec)
    assert case.expression() == "[[1.0, 0.0]] * 11 + [[2.0, 2.0]] * 3"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("n_tasks", "law", "beta", "floor"),
    [
        (2, "complement", 0.9, 0.05),
        (3, "complement", 0.5, 0.1),
        (4, "inverse", 0.9, 0.05),
        (5, "complement", 0.0, 0.15),
    ],
)
def test_the_search_climbs_to_the_reachable_extremes(mode, n_tasks, law, beta, floor):
    spec = GabaSpec(n_tasks, beta, floor, 0, law, mode)
    readings = 20 if beta == 0 else 60
    seen = survey(
        spec,
        both_ends,
        steps=40 * 32 * readings,
        readings=readings,
        stop_at_first=False,
        aimed=False,
    )
    reach = reachable(spec, readings)
    assert reach.low_is_exact
    assert float(reach.low) - 1e-12 <= seen.low <= float(reach.low) + 1e-6
    assert float(reach.high) - 1e-6 <= seen.high <= float(reach.high) + 1e-12


def test_the_search_finds_a_narrow_target_by_climbing():
    """Only the best of a block score is bred, so a rare optimum is found with few blocks."""
    spec = GabaSpec(n_tasks=6, beta=0.9, floor=0.01, warmup=0, law="inverse")
    reach = reachable(spec, 40)
    gaps = []
    for blocks in (1, 60):
        seen = survey(
            spec, both_ends, steps=blocks * 40 * 32, readings=40,
            stop_at_first=False, aimed=False,
        )  # fmt: skip
        gaps.append(float(reach.high) - seen.high)
    assert gaps[1] < 1e-6
    assert gaps[1] <= gaps[0]


def test_the_same_seed_gives_the_same_search():
    runs = [
        survey(GabaSpec(beta=0.9), both_ends, steps=20_000, seed=7, stop_at_first=False)
        for _ in range(2)
    ]
    assert (runs[0].low, runs[0].high, runs[0].steps) == (runs[1].low, runs[1].high, runs[1].steps)


def test_two_workers_share_the_budget():
    seen = survey(GabaSpec(beta=0.9), both_ends, steps=40_000, workers=2, stop_at_first=False)
    assert 40_000 <= seen.steps < 60_000
