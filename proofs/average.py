"""The moving average as a filter: what it keeps, how fast it moves, what noise it passes.

ema <- beta ema + (1 - beta) raw, started at 1/K; as a filter F(z) = (1-beta)/(1 - beta/z).
"""

from fractions import Fraction

import numpy as np
import sympy as sp
import z3

from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import smooth
from gabactl.proving import Outcome, main, replay, smt, theorem
from gabactl.proving.rounding import enclose
from gabactl.proving.symbolic import Derivation, sum_over

INDEX, K = sp.symbols("i K", integer=True, positive=True)
N = sp.Symbol("n", integer=True, nonnegative=True)
BETA = sp.Symbol("beta", positive=True)
BOOK = "GABA textbook, section 17.2"
PUBLISHED = Fraction(99, 100)


@theorem(
    "C10",
    "The average stays on the simplex over any number of steps.",
    given=["K >= 2", "0 <= beta <= 1", "each raw weight vector is on the simplex", "start 1/K"],
    source=BOOK,
    mutants={
        "raw weights sum to K/(K-1) (g = 0, published)": {"raw_sum": K / (K - 1)},
        "beta above 1": {"most": 2},
    },
)
def average_keeps_the_simplex(raw_sum=1, most=1):
    e, r = sp.IndexedBase("e"), sp.IndexedBase("r")
    proof = Derivation()
    proof.equal("start: K times 1/K", sum_over(1 / K, INDEX, K, {}), 1)
    proof.equal(
        "step: sum of beta e_i + (1-beta) raw_i",
        sum_over(
            BETA * e[INDEX] + (1 - BETA) * r[INDEX], INDEX, K, {e[INDEX]: 1, r[INDEX]: raw_sum}
        ),
        1,
    )
    b, x, y = smt.reals("beta e raw")
    proof.holds(
        "step: beta e + (1-beta) raw >= 0",
        b * x + (1 - b) * y >= 0,
        pole=smt.within(0, b, most),
        average=x >= 0,
        raw=y >= 0,
    )
    proof.argue("induction over the steps")
    return proof.done()


@theorem(
    "EMA-box",
    "Under the complement law the average stays in [0, 1/(K-1)], also read every N steps.",
    given=["K >= 2", "0 <= beta <= 1, so 0 <= beta^N <= 1", "raw in [0, 1/(K-1)] (C02)"],
    method="SMT",
    source="derivation",
    mutants={"K in place of K - 1": {"shift": 0}, "beta above 1": {"most": 2}},
)
def average_keeps_the_box(shift=1, most=1):
    k, p, e, r = smt.reals("K beta^N e raw")
    top = 1 / (k - shift)
    given = {"tasks": k >= 2, "pole": smt.within(0, p, most), "raw": smt.within(0, r, 1 / (k - 1))}
    step = smt.decide(
        smt.within(0, p * e + (1 - p) * r, top), average=smt.within(0, e, top), **given
    )
    return smt.both([smt.decide(1 / k <= top, tasks=k >= 2), step])


@theorem(
    "EMA-closed",
    "With a constant raw weight c the average after n readings is c + (1/K - c) beta^n.",
    given=["K >= 2", "0 < beta < 1", "any c"],
    source="derivation",
    mutants={"off by one": {"shift": 1}, "start at 0": {"start": 0}},
)
def closed_form(shift=0, start=1 / K):
    c = sp.Symbol("c")

    def form(n):
        return c + (1 / K - c) * BETA ** (n - shift)

    proof = Derivation()
    proof.equal("n = 0", form(0), start)
    proof.equal("n to n + 1", BETA * form(N) + (1 - BETA) * c, form(N + 1))
    beta = Fraction(9, 10)
    run = replay.exact([[1, 3]] * 12, beta=beta, floor=Fraction(0))
    c_1 = Fraction(3, 4)
    proof.exact(
        "stage functions, 12 readings of g = (1, 3)",
        all(
            step.ema[0] == c_1 + (Fraction(1, 2) - c_1) * beta ** (n - shift)
            for n, step in enumerate(run, 1)
        ),
    )
    return proof.done()


@theorem(
    "EMA-contraction",
    "Two averages fed the same readings approach each other by exactly the factor beta a reading.",
    given=["any beta", "any readings"],
    source="derivation",
    mutants={"factor beta^2": {"rate": BETA**2}},
)
def averages_contract(rate=BETA):
    e, f, r = sp.symbols("e f raw")
    proof = Derivation()

    def step(x):
        return BETA * x + (1 - BETA) * r

    proof.equal("difference after a reading", step(e) - step(f), rate * (e - f))
    return proof.done()


@theorem(
    "C11",
    "The average is a first-order IIR low-pass: one pole at beta, gain 1 at DC, falling with "
    "frequency to (1-beta)/(1+beta) at Nyquist.",
    given=["0 < beta < 1", "abs(F)^2 = (1-beta)^2/(1 - 2 beta cos w + beta^2)"],
    source="GABA textbook, chapter 18",
    mutants={
        "gain beta in place of 1 - beta": {"gain": BETA},
        "high-pass: the reading less its average": {"high": True},
    },
)
def first_order_low_pass(gain=1 - BETA, high=False):
    z, w = sp.Symbol("z"), sp.Symbol("w", real=True)
    f = gain / (1 - BETA / z)
    if high:
        f = 1 - f
    proof = Derivation()
    e, r = sp.symbols("E R")
    (solution,) = sp.solve(sp.Eq(e, BETA * e / z + (1 - BETA) * r), e)
    proof.equal("z-transform of the recursion", solution / r, f)
    proof.equal("gain at DC", f.subs(z, 1), 1)

    def at(s):
        return f.subs(z, sp.exp(s * sp.I * w))

    square = sp.simplify((at(1) * at(-1)).rewrite(sp.cos))
    proof.equal("abs(F)^2", square, (1 - BETA) ** 2 / (1 - 2 * BETA * sp.cos(w) + BETA**2))
    proof.equal("amplitude at Nyquist", f.subs(z, -1), (1 - BETA) / (1 + BETA))
    b, c, d = smt.reals("beta cos_w cos_v")

    def power(x):
        return (1 - b) * (1 - b) / (1 - 2 * b * x + b * b)

    proof.holds(
        "it falls as w rises (cos w falls)",
        power(c) > power(d),
        pole=z3.And(b > 0, b < 1),
        order=z3.And(d >= -1, d < c, c <= 1),
    )
    return proof.done()


@theorem(
    "C11-100",
    "The time constant at beta = 0.99 is 1/(1-beta) = 100 steps.",
    given=["beta^tau = 1/e, so tau = -1/ln beta"],
    method="interval",
    expect="refuted",
    source="GABA textbook, chapter 18",
    mutants={"99.499 in place of 100": {"claim": Fraction(99499, 1000)}},
)
def time_constant_is_100(claim=Fraction(100)):
    low, high = enclose(lambda iv, b: -1 / iv.log(b), PUBLISHED)
    proof = Derivation()
    proof.exact(
        f"-1/ln 0.99 is within 1e-3 of {claim}",
        claim - Fraction(1, 1000) < low and high < claim + Fraction(1, 1000),
        {"tau": f"{float(low):.6f}"},
    )
    return proof.done()


@theorem(
    "C11-below",
    "For every beta the time constant -1/ln beta is below 1/(1-beta), by less than 1 step.",
    given=["0 < beta < 1"],
    source="derivation",
    mutants={"by less than 1/2": {"gap": sp.Rational(1, 2)}, "above it": {"sign": -1}},
)
def time_constant_is_below(gap=1, sign=1):
    # With h(b) = -ln b: 1 - b < h < (1-b)/b. Both differences vanish at b = 1 and are monotone.
    proof = Derivation()
    lower = sign * (-sp.log(BETA) - (1 - BETA))
    proof.equal("-ln b - (1-b) at b = 1", lower.subs(BETA, 1), 0)
    b = smt.reals("beta")[0]
    slope = sp.simplify(sp.diff(lower, BETA))
    proof.holds(
        "its slope 1 - 1/b is negative, so it is positive before",
        _at(slope, b) < 0,
        pole=z3.And(b > 0, b < 1),
    )
    # 1/(1-b) - 1/h < gap iff h (1 - gap (1-b)) < 1-b; for gap = 1: h < (1-b)/b.
    rest = (1 - BETA) / (1 - gap * (1 - BETA)) + sp.log(BETA)
    proof.equal("(1-b)/(1 - gap (1-b)) + ln b at b = 1", rest.subs(BETA, 1), 0)
    proof.holds(
        "its slope is negative",
        _at(sp.simplify(sp.diff(rest, BETA)), b) < 0,
        pole=z3.And(b > 0, b < 1),
    )
    return proof.done()


def _at(expression, b):
    """A rational sympy function of beta as a solver term."""
    top, bottom = sp.fraction(sp.together(expression))

    def poly(p):
        return sum(
            smt.value(str(c)) * b**d if d else smt.value(str(c))
            for (d,), c in sp.Poly(p, BETA).terms()
        )

    return poly(top) / poly(bottom)


@theorem(
    "FILTER-3dB",
    "The -3 dB frequency has cos w = 1 - (1-beta)^2/(2 beta); there is none below 3 - 2 sqrt 2.",
    given=["0 < beta < 1", "-1 <= cos w <= 1"],
    method="SMT",
    source="derivation",
    mutants={"the analogue formula cos w = 1 - (1-beta)^2/2": {"double": False}},
)
def half_power_frequency(double=True):
    b, c = smt.reals("beta cos_w")
    power = (1 - b) * (1 - b) / (1 - 2 * b * c + b * b)
    claim = c == 1 - (1 - b) * (1 - b) / (2 * b if double else 2)
    given = {"pole": z3.And(b > 0, b < 1), "frequency": smt.within(-1, c, 1)}
    here = smt.decide((power * 2 == 1) == claim, **given)
    # 3 - 2 sqrt 2 is the smaller root of b^2 - 6 b + 1.
    none = smt.decide(power * 2 > 1, small=z3.And(b * b - 6 * b + 1 > 0), **given)
    return smt.both([here, none])


@theorem(
    "C12",
    "beta = 0.99 rejects white batch noise by 30 dB or more.",
    given=[
        "readings with independent noise of equal variance",
        "power gain = sum of squares of the impulse response",
    ],
    method="interval",
    expect="refuted",
    source="GABA textbook, chapter 18",
    mutants={
        "22.98 dB in place of 30": {"claim": Fraction(2298, 100)},
        "beta = 0.999": {"beta": Fraction(999, 1000)},
    },
)
def rejects_white_noise(claim=Fraction(30), beta=PUBLISHED):
    proof = Derivation()
    n = sp.Symbol("n", integer=True, nonnegative=True)
    b = sp.Symbol("b", positive=True)
    partial = (1 - b) ** 2 * (1 - b ** (2 * n)) / (1 - b**2)
    proof.equal("n = 0 terms", partial.subs(n, 0), 0)
    proof.equal("one term more", partial + ((1 - b) * b**n) ** 2, partial.subs(n, n + 1))
    proof.argue("b^(2n) -> 0: the power gain is (1-b)^2/(1-b^2)")
    proof.equal("power gain", (1 - b) ** 2 / (1 - b**2), (1 - b) / (1 + b))
    gain = (1 - beta) / (1 + beta)
    low, high = enclose(lambda iv, g: -10 * iv.log(g) / iv.log(10), gain)
    proof.exact(
        f"rejection is {float(low):.4f} dB, at least {float(claim):g} dB",
        low >= claim,
        {"beta": beta, "power gain": gain, "dB": f"{-float(high):.4f}"},
    )
    return proof.done()


@theorem(
    "C12-frequency",
    "At beta = 0.99 a tone is rejected by 30 dB or more just above w = 0.319 rad/step "
    "(45.98 dB at Nyquist).",
    given=["abs(F)^2 falls with w (C11)"],
    method="interval",
    source="derivation",
    mutants={
        "0.29 rad/step": {"edge": Fraction(290, 1000)},
        "0.35 rad/step": {"edge": Fraction(350, 1000)},
    },
)
def rejects_fast_noise(edge=Fraction(319, 1000)):
    proof = Derivation()
    beta = PUBLISHED

    def decibels(w):
        return enclose(
            lambda iv, b, x: (
                -10 * iv.log((1 - b) ** 2 / (1 - 2 * b * iv.cos(x) + b * b)) / iv.log(10)
            ),
            beta,
            w,
        )

    step = Fraction(1, 1000)
    below, above = decibels(edge - step)[1], decibels(edge + step)[0]
    proof.exact(
        f"at w = {float(edge - step):g}: {float(below):.4f} dB < 30",
        below < 30,
        {"dB": float(below)},
    )
    proof.exact(
        f"at w = {float(edge + step):g}: {float(above):.4f} dB > 30",
        above > 30,
        {"dB": float(above)},
    )
    nyquist = enclose(lambda iv, b: -20 * iv.log((1 - b) / (1 + b)) / iv.log(10), beta)
    proof.exact(
        "Nyquist 45.98 dB", Fraction(4597, 100) < nyquist[0] and nyquist[1] < Fraction(4598, 100)
    )
    return proof.done()


@theorem(
    "EMA-floor-steps",
    "At g_1 >> g_2 the average of task 1 falls below m after the least n > ln(K m)/ln beta "
    "readings: the 230th at K = 2, m = 0.05, beta = 0.99.",
    given=["raw_1 = 0, so ema_1 = beta^n/K", "0 < beta < 1", "0 < m < 1/K"],
    method="exact",
    source="derivation",
    mutants={"229 readings": {"claim": 229}, "K - 1 in place of K": {"start": Fraction(1)}},
)
def steps_to_the_floor(claim=230, start=Fraction(1, 2)):
    proof = Derivation()
    beta, floor = PUBLISHED, Fraction(1, 20)

    def at(n):
        return start * beta**n

    proof.exact(
        f"ema >= m after {claim - 1} readings",
        at(claim - 1) >= floor,
        {"n": claim - 1, "ema": float(at(claim - 1))},
    )
    proof.exact(f"ema < m after {claim}", at(claim) < floor, {"n": claim, "ema": float(at(claim))})
    run = replay.exact([[1, 0]] * claim, beta=beta, floor=floor)
    proof.exact(
        "stage functions agree", run[-1].ema[0] == at(claim) and run[-2].ema[0] == at(claim - 1)
    )
    bounds = enclose(lambda iv, b, m: iv.log(m) / iv.log(b), beta, 2 * floor)
    proof.exact(
        f"ln(K m)/ln beta = {float(bounds[0]):.3f}", claim - 1 < bounds[0] and bounds[1] < claim
    )
    k, x, m = smt.reals("K beta^n m")
    proof.holds(
        "every K: ema < m iff beta^n < K m",
        (x / k < m) == (x < k * m),
        tasks=k >= 2,
        floor=z3.And(m > 0, k * m < 1),
    )
    return proof.done()


@theorem(
    "WARMUP",
    "The first reading is at step W + 1: through step W the weights are 1/K and nothing moves.",
    given=["W = 0, 1, 5", "constant g = (3, 1)", "beta = 0"],
    method="exact",
    source="GABA textbook, section 17.4",
    mutants={
        "off by one: a controller that warms up for W + 1 steps": {"extra": 1},
        "off by one: the first reading claimed at step W": {"first": 0},
    },
)
def warm_up_ends_after_w_steps(first=1, extra=0):
    proof = Derivation()
    for warmup in (0, 1, 5):
        controller = Controller(GabaSpec(beta=0, floor=0, warmup=warmup + extra))
        moved = next(t for t in range(1, 10) if controller.observe([3.0, 1.0])[0] != 0.5)
        proof.exact(
            f"W = {warmup}: weights first move at step {moved}",
            moved == warmup + first,
            {"W": warmup, "step": moved},
        )
    return proof.done()


@theorem(
    "C20",
    "At beta = 1 the weights are those of the branch without smoothing.",
    given=["stage function smooth", "g = (3, 1)"],
    method="exact",
    expect="refuted",
    source="GABA textbook, section 17.4",
    mutants={"beta = 0": {"beta": Fraction(0)}},
)
def no_smoothing_at_beta_one(beta=Fraction(1)):
    proof = Derivation()
    uniform = np.array([Fraction(1, 2)] * 2, dtype=object)
    run = [s.ema for s in replay.exact([[3, 1]] * 3, beta=beta, floor=Fraction(0))]
    e, r = sp.symbols("e raw")
    proof.exact(
        "ema = raw = (1/4, 3/4)",
        all((x == [Fraction(1, 4), Fraction(3, 4)]).all() for x in run),
        {"beta": beta, "g": "(3, 1)", "ema": ", ".join(map(str, run[-1]))},
    )
    if beta == 0:
        proof.equal("0 e + (1 - 0) raw", 0 * e + (1 - 0) * r, r)
    else:
        proof.replayed(
            (
                f"stage functions: the average stays {', '.join(map(str, uniform))}; "
                "the validated settings refuse beta = 1",
            )
        )
    return proof.done()


@theorem(
    "C20-zero",
    "At beta = 0 smoothing returns the raw weights to the last bit, in float32 and float64.",
    given=["0 <= ema <= 1", "0 <= raw <= 1 (not -0)"],
    method="SMT",
    source="derivation",
    mutants={"beta = 1/2": {"beta": 0.5}, "beta = 1": {"beta": 1.0}},
)
def bit_exact_at_beta_zero(beta=0.0):
    proof = Derivation()
    for name, sort in (("float32", z3.Float32()), ("float64", z3.Float64())):
        e, r = z3.FP("ema", sort), z3.FP("raw", sort)
        one, zero = z3.FPVal(1.0, sort), z3.FPVal(0.0, sort)
        b, c = z3.FPVal(beta, sort), z3.FPVal(1.0 - beta, sort)
        mode = z3.RNE()
        found = z3.fpAdd(mode, z3.fpMul(mode, b, e), z3.fpMul(mode, c, r))
        solver = z3.Solver()
        solver.set("timeout", 30_000)
        for x in (e, r):
            solver.add(
                z3.fpGEQ(x, zero),
                z3.fpLEQ(x, one),
                z3.Not(z3.And(z3.fpIsZero(x), z3.fpIsNegative(x))),
            )
        solver.add(found != r)  # equality of bits, not of values
        answer = solver.check()
        if answer == z3.unknown:
            return Outcome("unknown", reason=solver.reason_unknown())
        model = solver.model() if answer == z3.sat else None
        proof.exact(
            f"{name}: fl(fl(beta e) + fl((1-beta) raw)) = raw, bit by bit",
            answer == z3.unsat,
            {"ema": model[e], "raw": model[r]} if model is not None else None,
        )
    values = np.array([[0.3, 0.7], [5e-324, 1.0], [1 / 3, 2 / 3]])
    proof.exact(
        "stage function smooth, float64",
        np.array_equal(smooth(np.array([0.5, 0.5]), values, beta), values),
    )
    return proof.done()


if __name__ == "__main__":
    raise SystemExit(main(__file__))
