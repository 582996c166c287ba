"""The back ends: what they say is right, against independent arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.proving import certificate, replay, rounding, smt, symbolic

rationals = st.fractions(min_value=-3, max_value=3, max_denominator=20)


def test_solver_counterexamples_are_exact_and_violate_the_statement() -> None:
    x, y = smt.reals("x y")
    found = smt.decide(x * y <= 1, order=x <= y, size=smt.within(0, y, 3))
    assert found.verdict == "refuted"
    assert found.counterexample is not None
    values = {name: Fraction(text) for name, text in found.counterexample.items()}
    assert values["x"] * values["y"] > 1
    assert 0 <= values["y"] <= 3


def test_the_core_names_only_what_is_needed() -> None:
    x, y = smt.reals("x y")
    assert smt.decide(x > 0, needed=x > 1, idle=y > 5).core == ("needed",)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_symbolic_sums_agree_with_written_out_ones(k: int) -> None:
    index, count, total = sp.symbols("i K S")
    g = sp.IndexedBase("g")
    term = 3 * g[index] * total + 2 / count - g[index] / total
    norms = [sp.Rational(n + 1, 7) for n in range(k)]
    general = symbolic.sum_over(term, index, count, {g[index]: total})
    written = sum(term.subs({g[index]: x, total: sum(norms), count: k}) for x in norms)
    assert sp.simplify(general.subs({total: sum(norms), count: k}) - written) == 0


def test_a_sum_without_a_name_is_refused() -> None:
    index, count = sp.symbols("i K")
    g = sp.IndexedBase("g")
    with pytest.raises(ValueError, match="no name"):
        symbolic.sum_over(g[index] ** 2, index, count, {g[index]: 1})


def test_a_failed_step_refutes_with_a_point_and_an_open_one_leaves_it_unknown() -> None:
    x = sp.Symbol("x", positive=True)
    proof = symbolic.Derivation()
    proof.equal("wrong", x + 1, x + 2)
    assert proof.done().verdict == "refuted"
    proof = symbolic.Derivation()
    proof.argue("trust me")
    assert proof.done().verdict == "unknown"
    # Equal, but beyond what simplify sees: no point tells them apart, so nothing is claimed.
    proof = symbolic.Derivation()
    proof.equal("hidden", sp.Function("f")(x), sp.Function("g")(x))
    assert proof.done().verdict == "unknown"


@settings(max_examples=60, deadline=None)
@given(st.lists(rationals, min_size=6, max_size=6))
def test_exact_definiteness_agrees_with_eigenvalues(entries: list[Fraction]) -> None:
    a, b, c, d, e, f = entries
    matrix = [[a, b, c], [b, d, e], [c, e, f]]
    lowest = np.linalg.eigvalsh(np.array(matrix, dtype=float))[0]
    if abs(lowest) > 1e-9:
        assert certificate.is_positive_definite(matrix) == (lowest > 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(rationals, min_size=4, max_size=4))
def test_lyapunov_certificates_exist_just_for_stable_systems(entries: list[Fraction]) -> None:
    a, b, c, d = entries
    dynamics = [[a, b], [c, d]]
    radius = max(abs(np.linalg.eigvals(np.array(dynamics, dtype=float))))
    p = certificate.lyapunov(dynamics)
    if radius < 1 - 1e-9:
        assert p is not None
        assert certificate.decreases(dynamics, p)
    elif radius > 1 + 1e-9:
        assert p is None or not certificate.decreases(dynamics, p)


def test_an_asymmetric_certificate_is_refused() -> None:
    with pytest.raises(InputError, match="not symmetric"):
        certificate.is_positive_definite([[Fraction(1), Fraction(2)], [Fraction(0), Fraction(1)]])


def test_enclosures_contain_the_value_and_are_tight() -> None:
    for beta in (Fraction(1, 2), Fraction(99, 100), Fraction(9999, 10000)):
        low, high = rounding.enclose(lambda iv, b: -1 / iv.log(b), beta)
        assert low <= Fraction(-1 / math.log(beta)) + Fraction(1, 10**6)
        assert Fraction(-1 / math.log(beta)) - Fraction(1, 10**6) <= high
        assert 0 <= high - low < Fraction(1, 10**30)
    low, high = rounding.enclose(lambda iv, x: -x * iv.sqrt(2), Fraction(1))
    assert low < 0
    assert low * low >= 2 >= high * high


def test_the_highest_run_of_a_rounded_recursion_bounds_all_runs() -> None:
    beta, top = 0.99, 1.0 / 3.0
    limit = rounding.highest(lambda e: beta * e + (1 - beta) * top, top)
    assert limit is not None
    rng = np.random.default_rng(0)
    ema = np.full(200, 0.25)
    for _ in range(4000):
        ema = beta * ema + (1 - beta) * np.where(rng.random(200) < 0.9, top, rng.random(200) * top)
    assert ema.max() <= limit


def test_a_counterexample_that_does_not_show_is_refused() -> None:
    with pytest.raises(ArithmeticError, match="does not show"):
        replay.confirm(
            GabaSpec(beta=0, warmup=0),
            [[1, 1]],
            lambda w: w[0] < 0.4,
            beta=Fraction(0),
            floor=Fraction(1, 20),
        )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=8),
    st.sampled_from(CHOICES["floor_mode"]),
    st.sampled_from(["hold", "none"]),
)
def test_exact_replay_agrees_with_the_controller(
    readings: list[tuple[int, int]], mode: str, guard: str
) -> None:
    spec = GabaSpec(beta=0.75, floor=0.125, warmup=0, floor_mode=mode, guard=guard)  # type: ignore[arg-type]
    exact = replay.exact(
        readings, beta=Fraction(3, 4), floor=Fraction(1, 8), floor_mode=mode, guard=guard
    )[-1].weights
    ours = replay.through_controller(spec, readings)
    assert np.abs(ours - exact.astype(float)).max() < 1e-15


def test_exact_replay_agrees_with_the_module() -> None:
    pytest.importorskip("torch")
    readings = [[3, 1], [5, 2], [1, 7]]
    for warmup in (0, 2):
        spec = GabaSpec(beta=0.75, floor=0.125, warmup=warmup)
        exact = replay.exact(readings, beta=Fraction(3, 4), floor=Fraction(1, 8))[-1].weights
        ours = replay.through_loss(spec, readings)
        assert ours is not None
        assert np.abs(ours - exact.astype(float)).max() < 1e-6
