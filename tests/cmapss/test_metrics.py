"""RMSE and the NASA score."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.cmapss import nasa_score, rmse


def test_score_by_hand() -> None:
    # Saxena et al. (2008): exp(-d/13) - 1 for d < 0, exp(d/10) - 1 for d >= 0.
    d = np.array([-26.0, -13.0, 0.0, 10.0, 20.0])
    expected = (math.e**2 - 1) + (math.e - 1) + 0 + (math.e - 1) + (math.e**2 - 1)
    assert nasa_score(100 + d, np.full(5, 100.0)) == pytest.approx(expected, rel=1e-14)
    assert nasa_score([100.0 + 5], [100.0]) > nasa_score([100.0 - 5], [100.0])
    assert rmse(100 + d, np.full(5, 100.0)) == pytest.approx(math.sqrt(np.mean(d**2)))


def test_overflow_is_infinite_and_shapes_are_checked() -> None:
    assert nasa_score([1e5], [0.0]) == math.inf
    for bad in (([1.0], [1.0, 2.0]), ([], []), ([[1.0]], [[1.0]])):
        with pytest.raises(InputError, match="two lists of the same length"):
            rmse(*bad)
