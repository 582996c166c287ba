"""The ends of every range: many tasks, subnormal and huge norms, slow averages, floors near 1/K.

The oracle is the same stage in exact rational arithmetic.
"""

from fractions import Fraction

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.control.linear import open_loop
from gabactl.control.margins import margins
from gabactl.control.noise import noise_gain, noise_report
from gabactl.control.responses import step_response
from gabactl.law import stages
from gabactl.law.authority import authority, residual_ratio, settled_weights, weight_range
from gabactl.law.controller import Controller
from gabactl.law.filter import filter_facts
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.loops.batch import run_batch
from gabactl.loops.kernels import controller as kernel
from gabactl.loops.profiles import Profile
from gabactl.loops.simulate import simulate
from gabactl.plants import LogRatio
from gabactl.runs.replay import replay

TASKS = (2, 3, 8, 64)
LAWS = CHOICES["law"]
MODES = CHOICES["floor_mode"]
#: Smallest, subnormal, tiny, published epsilon, ..., largest whose sum over 64 tasks is finite.
EDGES = (5e-324, 1e-310, 2.3e-308, 1e-150, 1e-45, 1e-38, 1e-12, 1.0, 3e38, 1e150, 1e300, 2.8e306)


#: The same for float32, whose smallest number is 1.4e-45 and whose largest is 3.4e38.
EDGES32 = (1.5e-45, 1e-40, 1.2e-38, 1e-12, 1.0, 1e12, 5e36)


def readings(k: int, n: int, edges: tuple[float, ...] = EDGES) -> np.ndarray:
    """Norms over the whole range, mixed, with zeros and unusable ones among them."""
    rng = np.random.default_rng(k)
    g = rng.choice(edges, size=(n, k)) * rng.uniform(0.5, 1.0, size=(n, k))
    g[::5] = rng.choice([0.0, 5e-324, 1.7e308, np.inf, np.nan], size=g[::5].shape)
    g[1] = 0.0
    g[2] = 5e-324
    g[3] = 1.7976931348623157e308
    return g


def exact(rows: np.ndarray) -> np.ndarray:
    return np.array([[Fraction(float(x)) for x in row] for row in rows], dtype=object)


def floors(k: int) -> list[float]:
    return [0.0, 5e-324, 1e-17, 0.5 / k, (1.0 - 1e-9) / k, float(np.nextafter(1.0 / k, 0.0))]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("k", TASKS)
def test_raw_weights_agree_with_exact_ones(k, law):
    g = readings(k, 60)
    ok = stages.usable(g, law)
    assert 10 < ok.sum() < 60
    got = stages.raw_weights(g, law)
    assert np.isnan(got[~ok]).all()
    want = stages.raw_weights(exact(g[ok]), law).astype(float)
    # Each rounding is half an ulp; the sums of K terms add at most K of them. Relative to the
    # largest raw weight: where one norm is all, S - g cancels.
    assert np.abs(got[ok] - want).max() <= 2 * k * np.finfo(float).eps
    assert ((got[ok] >= 0) & (got[ok] <= 1)).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", TASKS)
def test_floors_agree_with_exact_ones(k, mode):
    ema = np.random.default_rng(k).dirichlet(np.full(k, 0.05), size=20)
    for floor in floors(k):
        got = stages.saturate(ema, floor, mode)
        rows = exact(ema)
        want = stages.saturate(rows, Fraction(floor), mode).astype(float)
        assert np.abs(got - want).max() <= 4 * k * np.finfo(float).eps
        assert np.abs(got.sum(axis=-1) - 1.0).max() <= 4 * k * np.finfo(float).eps
        least = float(weight_range(floor, k, "inverse", mode)[0])
        assert got.min() >= least - 4 * k * np.finfo(float).eps


@pytest.mark.parametrize("guard", ["hold", "none"])
@pytest.mark.parametrize("k", TASKS)
def test_compiled_step_equals_the_reference(k, guard):
    g = readings(k, 40)
    for number, (law, mode) in enumerate((a, b) for a in LAWS for b in MODES):
        floor = floors(k)[number % 6]
        beta = (0.0, 0.99, 1.0 - 1e-9)[number % 3]
        spec = GabaSpec(k, beta, floor, 0, law, mode, guard, 1 + number % 3)
        reference = Controller(spec)
        ema, weights, scratch = np.full(k, 1.0 / k), np.empty(k), np.empty(2 * k)
        for step, reading in enumerate(g, start=1):
            with np.errstate(all="ignore"):
                expected = reference.observe(reading)
            kernel.observe(reading, step, ema, weights, scratch, *kernel.codes(spec))
            np.testing.assert_array_equal(ema, reference.ema_weights)
            np.testing.assert_array_equal(weights, expected)
        if guard == "hold":
            assert np.isfinite(weights).all()
            assert abs(weights.sum() - 1.0) <= 4 * k * np.finfo(float).eps


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("k", TASKS)
def test_torch_agrees_with_exact_stages(k, dtype):
    torch = pytest.importorskip("torch")

    kind = np.dtype(dtype)
    eps = float(np.finfo(kind).eps)
    with np.errstate(over="ignore", under="ignore"):
        g = readings(k, 40, EDGES if dtype == "float64" else EDGES32).astype(kind)
    for law in LAWS:
        usable = 0
        for row in g:
            tensor = torch.from_numpy(row)
            with np.errstate(over="ignore", invalid="ignore"):
                total = row.sum(dtype=kind)
                expect = np.isfinite(total) and total > 0 and np.isfinite(row).all()
                expect = bool(expect and (law == "complement" or (row > 0).all()))
            assert bool(stages.usable(tensor, law)) == expect
            if expect:
                usable += 1
                want = stages.raw_weights(exact(row[None]), law)[0].astype(float)
                got = stages.raw_weights(tensor, law).double().numpy()
                assert np.abs(got - want).max() <= 4 * k * eps
        assert usable > 4, law


@pytest.mark.parametrize("beta", [0.0, 1e-300, 0.99, 1.0 - 1e-6, 1.0 - 1e-9])
def test_slow_averages_have_right_margins(beta):
    """Closed forms of (1 - beta) k/(z - beta): stable up to k = (1 + beta)/(1 - beta)."""
    import control

    loop = control.TransferFunction([(1.0 - beta) * 0.5], [1.0, -beta], 1)
    found = margins(loop)
    limit = (1 + Fraction(beta)) / (1 - Fraction(beta)) * 2
    assert found.gain_margin_up == pytest.approx(float(limit), rel=1e-6)
    facts = filter_facts(GabaSpec(beta=beta)).to_dict()
    if beta > 0.5:
        assert facts["time_constant_steps"] == pytest.approx(-1.0 / np.log(beta), rel=1e-12)


@pytest.mark.parametrize("beta", [0.99, 0.9999, 1.0 - 1e-5])
def test_noise_of_slow_averages(beta):
    loop = open_loop(GabaSpec(beta=beta), LogRatio(0.0))
    assert noise_gain(loop) == pytest.approx((1.0 - beta) / (1.0 + beta), rel=1e-6)


def test_what_is_too_slow_to_sum_is_refused():
    """It used to be cut after five million readings, and 200 times too small."""
    loop = open_loop(GabaSpec(beta=1.0 - 1e-9), LogRatio(0.5))
    with pytest.raises(InputError, match="slowest mode of the closed loop takes"):
        noise_report(loop)
    assert "not settled" in str(step_response(loop).reason)


@pytest.mark.parametrize("k", TASKS)
def test_authority_over_every_ratio(k):
    ratios = np.array([5e-324, 1e-300, 1e-17, 1.0, 1e15, 1e17, 1e300, 1.7e308])
    for law in LAWS:
        free = GabaSpec(n_tasks=k, law=law, floor=0.0)
        residual = residual_ratio(free, ratios)
        if law == "inverse" or k == 2:
            # Without a floor the contributions are equal, however large the ratio.
            assert residual == pytest.approx(np.ones(ratios.size), rel=1e-7)
        else:
            r = ratios[1:-1]
            want = r / ((r + (k - 2)) / (k - 1))
            assert residual[1:-1] == pytest.approx(want, rel=1e-12)
        for floor in floors(k):
            for mode in MODES:
                spec = GabaSpec(n_tasks=k, law=law, floor=floor, floor_mode=mode)
                weights = settled_weights(spec, ratios)
                assert np.abs(weights.sum(axis=-1) - 1.0).max() < 1e-13
                assert weights.min() >= float(weight_range(floor, k, law, mode)[0]) * (1.0 - 1e-9)
                authority(spec).to_json()


@pytest.mark.parametrize("k", [2, 64])
@pytest.mark.parametrize("beta", [1.0, -1e-300, float("nan")])
def test_out_of_range_is_refused(k, beta):
    with pytest.raises(InputError, match="beta"):
        GabaSpec(n_tasks=k, beta=beta, floor=0.0)
    with pytest.raises(InputError, match="floor"):
        GabaSpec(n_tasks=k, floor=1.0 / k)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_from_end_to_end_simulation_is_the_controller():
    """Profiles hold log norms, so the oracle reads what they give back.

    A norm below e^-708 = 3.3e-308 is refused.
    """
    for number, (k, law, mode) in enumerate((k, a, b) for k in TASKS for a in LAWS for b in MODES):
        g = np.nan_to_num(readings(k, 40), nan=1.0, posinf=1e300)
        g = g.clip(3.4e-308, 1.7e308)
        spec = GabaSpec(
            k, (0.0, 0.99, 1.0 - 1e-9)[number % 3], floors(k)[number % 6], number % 3, law, mode
        )
        profile = Profile(np.log(g))
        run = simulate(spec, profile)
        reference = Controller(spec)
        with np.errstate(over="ignore"):
            want = np.array([reference.observe(row) for row in np.exp(profile.log_norms)])
        np.testing.assert_allclose(run.weights, want, rtol=0, atol=4 * k * np.finfo(float).eps)


def profile_of(norms):
    with np.errstate(divide="ignore"):
        return Profile(np.log(norms))


def test_a_simulation_refuses_subnormal_norms():
    norms = [[3.0, 1.0], [5e-324, 0.0], [1e-307, 3e-307]]
    with pytest.raises(InputError, match=r"step 1, task 0.*scale all the norms"):
        profile_of(norms)
    norms[1] = [0.0, 0.0]
    run = simulate(GabaSpec(beta=0.0, warmup=0, floor=0.0), profile_of(norms))
    np.testing.assert_allclose(run.weights, [[0.25, 0.75], [0.25, 0.75], [0.75, 0.25]], rtol=1e-9)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("k", TASKS)
def test_simulation_settles_where_analysis_says(k, law):
    """Without smoothing at once; the largest ratios lie at both ends of the floats."""
    for floor in floors(k):
        for mode in MODES:
            spec = GabaSpec(k, 0.0, floor, 0, law, mode)
            for ratio in (1e-300, 19.0, 1e300):
                norms = np.ones((2, k))
                norms[:, 0] = ratio
                end = simulate(spec, Profile(np.log(norms))).weights[-1]
                want = settled_weights(spec, [ratio])[0]
                np.testing.assert_allclose(end, want, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", TASKS)
def test_exact_weights_stay_in_the_proved_range_and_reach_its_lower_end(k, mode):
    """Fractions throughout, up to 64 tasks, where the theorems are stated for 2 to 8."""
    rng = np.random.default_rng(k)
    for floor in map(Fraction, floors(k)):
        for law in LAWS:
            low, high = weight_range(floor, k, law, mode)
            top = Fraction(1, k - 1) if law == "complement" else Fraction(1)
            # The quiet task at 0; the others equal (complement), or one of them all (inverse).
            extreme = [Fraction(0)] + [Fraction(1, k - 1)] * (k - 1)
            if law == "inverse":
                extreme = [Fraction(0)] * (k - 1) + [Fraction(1)]
            rows = [extreme]
            for _ in range(5):
                shares = [Fraction(int(n)) for n in rng.integers(0, 3, k) ** 9]
                total = sum(shares) or Fraction(1)
                row = [s / total for s in shares] if any(shares) else [Fraction(1, k)] * k
                if law == "complement":
                    row = [(1 - s) / (k - 1) for s in row]
                assert max(row) <= top
                rows.append(row)
            weights = stages.saturate(np.array(rows, dtype=object), floor, mode)
            assert (weights.sum(axis=-1) == 1).all()
            assert (weights >= low).all()
            assert (weights <= high).all()
            assert weights[0].min() == low


@pytest.mark.parametrize("beta", [0.0, 0.99, 1.0 - 1e-6, 1.0 - 1e-9])
@pytest.mark.parametrize("k", [2, 64])
def test_the_torch_loss_is_the_controller(k, beta):
    torch = pytest.importorskip("torch")
    from gabactl.nn import GABALoss

    g = readings(k, 40)
    for number, (law, mode) in enumerate((a, b) for a in LAWS for b in MODES):
        spec = GabaSpec(k, beta, floors(k)[number % 6], 0, law, mode)
        loss = GABALoss.from_spec(spec).double()
        reference = Controller(spec)
        for reading in g:
            with np.errstate(all="ignore"):
                want = reference.observe(reading)
            got = loss._take(torch.from_numpy(reading)).numpy()
            np.testing.assert_allclose(got, want, rtol=0, atol=8 * k * np.finfo(float).eps)
            np.testing.assert_allclose(
                loss.ema_weights.numpy(), reference.ema_weights, rtol=0, atol=1e-14
            )


def test_a_pole_that_is_one_in_float32_is_refused():
    """The average grew by (1 - beta) raw, and never shrank: off the simplex, with no word."""
    torch = pytest.importorskip("torch")
    from gabactl.nn import GABALoss

    g = torch.tensor([1.0, 3.0])
    for beta, interval in ((1.0 - 1e-9, 1), (1.0 - 2.0**-25, 1), (1.0 - 1e-9, 7)):
        loss = GABALoss(beta=beta, warmup_steps=0, interval=interval)
        with pytest.raises(InputError, match=r"is 1 in float32.*double\(\) on the loss"):
            loss._take(g)
        assert loss.double()._take(g.double()).sum() == 1.0
    for beta, interval in ((1.0 - 1e-7, 1), (1.0 - 1e-9, 100)):
        GABALoss(beta=beta, warmup_steps=0, interval=interval)._take(g)
    assert np.float32(1.0 - 2.0**-25) == 1.0
    assert np.float32(1.0 - 1e-7) < 1.0


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize(
    ("k", "law", "mode"),
    [
        (2, "complement", "renormalise"),
        (3, "inverse", "project"),
        pytest.param(64, "complement", "affine", marks=pytest.mark.slow),
        pytest.param(64, "inverse", "clamp_state", marks=pytest.mark.slow),
    ],
)
def test_batches_are_the_controller(k, law, mode, device):
    """Both compiled kernels (a floor above 0 and no large ratio take the fast one), and torch's."""
    pytest.importorskip("torch") if device else None
    corners = [(b, f) for b in (0.0, 0.99, 1.0 - 1e-9) for f in floors(k)]
    rows = {
        "beta": [b for b, _ in corners],
        "floor": [f for _, f in corners],
        "warmup": [0] * len(corners),
    }
    rng = np.random.default_rng(k)
    near = np.log(rng.choice([1e-3, 1.0, 50.0], size=(30, k)))
    far = np.log(rng.choice([1e-300, 1e-12, 1.0, 1e300], size=(30, k)))
    for logs in (near, far):
        got = run_batch(
            Profile(logs),
            rows,
            law=law,
            floor_mode=mode,
            device=device,
            settling=False,
            stability=False,
        )
        for n, (beta, floor) in enumerate(corners):
            reference = Controller(GabaSpec(k, beta, floor, 0, law, mode))
            want = np.array([reference.observe(row) for row in np.exp(logs)])
            said = f"beta {beta}, floor {floor}"
            close = {"rtol": 1e-9, "atol": 8 * k * np.finfo(float).eps, "err_msg": said}
            np.testing.assert_allclose(got["final_weight"][n], want[-1, 0], **close)
            np.testing.assert_allclose(got["smallest_weight"][n], want.min(), **close)


@pytest.mark.parametrize("k", [2, 64])
def test_a_replay_is_the_controller(k):
    g = readings(k, 40)
    for number, (law, mode) in enumerate((a, b) for a in LAWS for b in MODES):
        beta = (0.0, 0.99, 1.0 - 1e-9)[number % 3]
        spec = GabaSpec(k, beta, floors(k)[number % 6], number % 3, law, mode)
        reference = Controller(spec)
        with np.errstate(all="ignore"):
            want = np.array([reference.observe(row) for row in g])
            got = replay(spec, g, np.ones(len(g), dtype=bool))
        np.testing.assert_array_equal(got.weights, want)
        np.testing.assert_array_equal(got.ema[-1], reference.ema_weights)
