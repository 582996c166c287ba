"""Small promises of the controller that mutants of it would break unseen."""

from fractions import Fraction

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import error, raw_weights, saturate, share, usable


def test_the_published_share_adds_1e_12_to_the_sum():
    assert share([1e-12, 0.0], "none").tolist() == [0.5, 0.0]
    assert share([1e-12, 0.0], "hold").tolist() == [1.0, 0.0]


def test_the_inverse_law_as_published_adds_1e_12_to_each_norm():
    assert raw_weights([1.0, 3.0], "inverse", "none") == pytest.approx([0.75, 0.25], abs=1e-11)
    assert raw_weights([0.0, 1e-12], "inverse", "none") == pytest.approx([2 / 3, 1 / 3], rel=1e-12)


def test_the_affine_floor_scales_what_is_above_it():
    assert saturate([0.0, 1.0], 0.1, "affine").tolist() == pytest.approx([0.1, 0.9])
    assert saturate([0.3, 0.5, 0.2], 0.1, "affine") == pytest.approx([0.31, 0.45, 0.24])


def test_weights_are_uniform_up_to_the_last_step_of_the_warm_up():
    controller = Controller(GabaSpec(warmup=2, beta=0.0))
    controller.ema_weights = np.array([0.9, 0.1])
    controller.step_count = 2
    assert controller.weights.tolist() == [0.5, 0.5]
    controller.step_count = 3
    assert controller.weights.tolist() == [0.9, 0.1]


def test_the_published_epsilon_is_exact_on_fractions():
    g = np.array([Fraction(1, 10**12), Fraction(0)], dtype=object)
    assert share(g, "none").tolist() == [Fraction(1, 2), Fraction(0)]


def test_rows_are_normalised_one_by_one():
    rows = [[1.0, 3.0], [50.0, 50.0]]
    assert share(rows, "none") == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert raw_weights(rows, guard="none") == pytest.approx(np.array([[0.75, 0.25], [0.5, 0.5]]))


def test_each_row_is_usable_by_itself():
    rows = [[0.0, 1.0], [2.0, 1.0]]
    assert usable(rows, "inverse").tolist() == [False, True]
    assert usable(rows).tolist() == [True, True]
    raw = raw_weights(rows, "inverse")
    assert np.isnan(raw[0]).all()
    assert raw[1] == pytest.approx([1 / 3, 2 / 3])


def test_the_inverse_law_scales_each_row_by_its_own_smallest_norm():
    # By the smallest of all, or by that of another row, the second would vanish.
    rows = [[1e-300, 3e-300], [3e300, 1e300]]
    assert raw_weights(rows, "inverse") == pytest.approx(np.array([[0.75, 0.25], [0.25, 0.75]]))


def test_steps_of_the_warm_up_are_uniform_whatever_the_average():
    controller = Controller(GabaSpec(warmup=2, beta=0.0))
    controller.ema_weights = np.array([0.9, 0.1])
    for _ in range(2):
        assert controller.observe(None).tolist() == [0.5, 0.5]
    # Between two readings the average counts.
    controller = Controller(GabaSpec(warmup=2, beta=0.0, interval=2))
    controller.ema_weights, controller.step_count = np.array([0.9, 0.1]), 3
    assert controller.observe(None).tolist() == [0.9, 0.1]


@pytest.mark.parametrize(
    ("losses", "norms", "message"),
    [
        ([1.0], None, "got 1 losses for n_tasks = 2: pass one loss per task"),
        (
            [1.0, 1.0],
            [1.0, 1.0, 1.0],
            "got grad_norms of shape (3,) for n_tasks = 2: pass one gradient norm per task",
        ),
        (
            [1.0, 1.0],
            [-1.0, 1.0],
            "grad_norms = [-1.0, 1.0] has a negative norm: norms are >= 0",
        ),
    ],
)
def test_refusals_word_by_word(losses, norms, message):
    with pytest.raises(InputError) as told:
        Controller(GabaSpec(warmup=0)).step(losses, norms)
    assert str(told.value) == message


@pytest.mark.parametrize("mode", ["renormalise", "affine", "project"])
def test_the_floor_acts_on_each_row_by_itself(mode):
    rows = np.array([[0.01, 0.99], [0.5, 0.5]])
    alone = np.array([saturate(row, 0.05, mode) for row in rows])
    assert np.array_equal(saturate(rows, 0.05, mode), alone)
    assert saturate(rows, 0.05)[0] == pytest.approx([0.05 / 1.04, 0.99 / 1.04])


def test_errors_of_exact_shares_are_exact():
    shares = np.array([Fraction(1, 7), Fraction(6, 7), Fraction(0)], dtype=object)
    assert error(shares).tolist() == [Fraction(4, 21), Fraction(-11, 21), Fraction(1, 3)]


def test_an_exact_reading_without_a_sum_says_so():
    with pytest.raises(InputError, match=r"^an exact reading has no positive sum"):
        share(np.array([Fraction(0), Fraction(0)], dtype=object))
