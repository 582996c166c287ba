"""Small promises of the controller that mutants of it would break unseen."""

from fractions import Fraction

import numpy as np
import pytest

from gabactl.controller import Controller, raw_weights, saturate, share
from gabactl.errors import InputError
from gabactl.spec import GabaSpec


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


def test_an_exact_reading_without_a_sum_says_so():
    with pytest.raises(InputError, match=r"^an exact reading has no positive sum"):
        share(np.array([Fraction(0), Fraction(0)], dtype=object))
