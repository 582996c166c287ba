"""The compiled kernels against the NumPy reference, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl._kernels import controller as kernel
from gabactl.controller import Controller
from gabactl.spec import GabaSpec

norms = st.one_of(
    st.floats(0.0, 1e300),
    st.sampled_from([0.0, 5e-324, 1e-12, 1.0, float("nan"), float("inf"), 1e308]),
)


@st.composite
def specs(draw: st.DrawFn) -> GabaSpec:
    k = draw(st.integers(2, 20))
    return GabaSpec(
        n_tasks=k,
        beta=draw(st.sampled_from([0.0, 0.5, 0.99, 0.9999])),
        floor=draw(st.floats(0.0, 0.99 / k)),
        warmup=draw(st.integers(0, 3)),
        law=draw(st.sampled_from(["complement", "inverse"])),
        floor_mode=draw(st.sampled_from(["renormalise", "affine", "project", "clamp_state"])),
        guard=draw(st.sampled_from(["hold", "none"])),
        interval=draw(st.integers(1, 4)),
    )


@given(spec=specs(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_compiled_step_equals_the_reference_to_the_last_bit(spec, data):
    reference = Controller(spec)
    k = spec.n_tasks
    ema, weights, scratch = np.full(k, 1.0 / k), np.empty(k), np.empty(2 * k)
    for step in range(1, 12):
        g = np.array(data.draw(st.lists(norms, min_size=k, max_size=k)))
        with np.errstate(all="ignore"):
            expected = reference.observe(g)
        kernel.observe(g, step, ema, weights, scratch, *kernel.codes(spec))
        np.testing.assert_array_equal(ema, reference.ema_weights)
        np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 31, 64, 128])
def test_sum_rounds_as_numpy(n):
    x = np.random.default_rng(n).lognormal(0, 20, size=(50, n))
    assert [kernel.sum_as_numpy(row) for row in x] == x.sum(axis=-1).tolist()
