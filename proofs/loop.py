"""The closed loop: what weights do to gradients, and gradients back to weights.

Two tasks, in logarithms: y = ln(g_1/g_2), u = ln(w_1/w_2), q = y + u the contribution error.
Controller u = -F y, F(z) = (1-beta) z/(z-beta). Plant y = P u + d with
P(z) = -rho (1-a)/(z-a): a lag of pole a and DC gain -rho, one step of delay.
"""

from fractions import Fraction

import sympy as sp
import z3

from gabactl.law.spec import GabaSpec
from gabactl.proving import Outcome, certificate, main, replay, smt, theorem
from gabactl.proving.rounding import enclose
from gabactl.proving.symbolic import Derivation

A, B, Z = sp.symbols("a beta z")
RHO = sp.Symbol("rho", real=True)
BOOK = "GABA textbook, chapter 18"


def controller(gain=1):
    return gain * (1 - B) * Z / (Z - B)


def plant():
    return -RHO * (1 - A) / (Z - A)


@theorem(
    "C21",
    "With unity gain (beta = 0) the share error is zero after one step.",
    given=["K = 2", "gradient norms that do not answer to the weights", "g = (3, 1)"],
    method="exact",
    expect="refuted",
    source=BOOK,
    mutants={"the error of the contributions w_i g_i": {"contributions": True}},
)
def unity_gain_zeroes_the_share_error(contributions=False, module=False):
    g = [Fraction(3), Fraction(1)]
    run = replay.exact([g], beta=Fraction(0), floor=Fraction(0))
    seen = [w * x for w, x in zip(run[-1].weights, g, strict=True)] if contributions else g
    shares = [x / sum(seen) for x in seen]
    proof = Derivation()
    proof.exact(
        "share of task 1 after the step is 1/2",
        shares[0] == Fraction(1, 2),
        {
            "g": "(3, 1)",
            "w": ", ".join(map(str, run[-1].weights)),
            "share": shares[0],
            "error": Fraction(1, 2) - shares[0],
        },
    )
    if not contributions:
        spec = GabaSpec(beta=0, floor=0, warmup=0)
        # The next reading is the same, so the next weights are: the error never falls.
        proof.replayed(
            replay.confirm(
                spec,
                [g, g],
                lambda w: abs(float(w[0]) - 0.25) < 1e-6,
                beta=Fraction(0),
                floor=Fraction(0),
                module=module,
            )
        )
    return proof.done()


@theorem(
    "C21-contributions",
    "With unity gain the contribution error of two tasks is zero after one unsaturated step.",
    given=["K = 2", "beta = 0", "g_1, g_2 > 0", "floor inactive"],
    source="derivation: u = -y",
    mutants={"half the gain": {"gain": sp.Rational(1, 2)}},
)
def unity_gain_zeroes_the_contribution_error(gain=1):
    g1, g2 = sp.symbols("g_1 g_2", positive=True)
    raw = sp.Rational(1, 2) + gain * (sp.Rational(1, 2) - g1 / (g1 + g2))
    proof = Derivation()
    proof.equal(
        "share of task 1 in the contributions",
        raw * g1 / (raw * g1 + (1 - raw) * g2),
        sp.Rational(1, 2),
    )
    return proof.done()


@theorem(
    "C22",
    "The loop is negative feedback, whatever the plant.",
    given=["log-ratio plant of DC gain -rho", "loop transfer at DC: F(1) P(1) = -rho"],
    expect="refuted",
    source=BOOK,
    mutants={"rho < 0 (the sign identified in training)": {"sign": "negative"}},
)
def loop_is_negative_feedback(sign=None):
    proof = Derivation()
    rho = sp.Symbol("rho", negative=True) if sign else RHO
    dc = sp.simplify((controller() * plant()).subs(Z, 1)).subs(RHO, rho)
    proof.equal("F P at DC", dc, -rho)
    r = smt.reals("rho")[0]
    proof.holds(
        "F P >= 0 at DC, so that y = d/(1 + F P) is not amplified",
        -r >= 0,
        plant=r < 0 if sign else r < 1,
    )
    return proof.done()


@theorem(
    "C22-share",
    "The loop drives the share of every task to 1/K, y = 0, for some plant and d != 0.",
    given=["stable loop, rho < 1", "settled: y = d/(1 - rho)"],
    method="SMT",
    expect="refuted",
    source=BOOK,
    mutants={"the contributions: q in place of y": {"contributions": True}},
)
def loop_drives_the_share(contributions=False):
    y, d, rho = smt.reals("y d rho")
    u = -y
    settled = y == d - rho * u
    error = y + u if contributions else y
    never = smt.decide(error != 0, settled=settled, stable=rho < 1, disturbance=d != 0)
    verdict = {"proved": "refuted", "refuted": "proved"}.get(never.verdict, "unknown")
    return Outcome(
        verdict,
        (f"y = d/(1 - rho) is never 0: {never.verdict}",),
        never.core,
        counterexample={"every rho < 1, d != 0": "y = d/(1 - rho) != 0"}
        if verdict == "refuted"
        else None,
        reason=never.reason,
    )


@theorem(
    "C22-removed",
    "The settled loop removes the part -rho/(1-rho) of a disturbance of the share: 1/26 at "
    "rho = -0.04, 3/13 at -0.3.",
    given=["unsaturated", "stable: rho < 1"],
    source="derivation",
    mutants={"positive feedback": {"flip": -1}},
)
def part_removed(flip=1):
    d = sp.Symbol("d", positive=True)
    proof = Derivation()
    closed = sp.simplify((1 / (1 + controller() * plant())).subs(Z, 1))
    proof.equal("y/d at DC", closed, 1 / (1 - RHO))
    proof.equal("1 - y/d", 1 - closed, -RHO / (1 - RHO))
    for rho, part in ((Fraction(-1, 25), Fraction(1, 26)), (Fraction(-3, 10), Fraction(3, 13))):
        rho *= flip
        proof.exact(f"rho = {rho}: {part}", -rho / (1 - rho) == part, {"removed": -rho / (1 - rho)})
    proof.equal("d of a removed part", d - d * closed, -RHO / (1 - RHO) * d)
    return proof.done()


@theorem(
    "C23",
    "The loop has a steady-state error of the contributions, as proportional control does "
    "(unsaturated).",
    given=["K = 2", "stable loop, rho < 1", "q = (1 - F)/(1 + P F) d"],
    expect="refuted",
    source=BOOK,
    mutants={
        "the error of the shares, y": {"shares": True},
        "gain 1/2 in place of 1": {"gain": sp.Rational(1, 2)},
    },
)
def steady_state_error(shares=False, gain=1):
    f, p = controller(gain), plant()
    proof = Derivation()
    transfer = 1 / (1 + f * p) if shares else (1 - f) / (1 + f * p)
    dc = sp.simplify(transfer.subs(Z, 1))
    if dc == 0:
        proof.exact("q/d at DC differs from 0", False, {"q/d at DC": dc})
        return proof.done()
    top, _ = sp.fraction(sp.together(dc))
    proof.exact(f"error/d at DC is {dc}, nowhere 0", top.is_number and top != 0)
    return proof.done()


@theorem(
    "C23-saturated",
    "Beyond the knee the settled contribution error is ln(m (1 + R)) > 0.",
    given=["K = 2", "0 < m < 1/2", "R > (1-m)/m", "published floor"],
    method="SMT",
    source="derivation",
    mutants={"up to the knee": {"beyond": False}},
)
def error_under_saturation(beyond=True):
    r, m = smt.reals("R m")
    side = r * m > 1 - m if beyond else z3.And(r >= 1, r * m <= 1 - m)
    e = 1 / (1 + r)
    w_1, w_2 = smt.largest(e, m), r * e
    return smt.decide(w_1 * r > w_2, floor=z3.And(m > 0, 2 * m < 1), side=side)


@theorem(
    "JURY-criterion",
    "Both roots of z^2 + p z + q are inside the unit circle iff abs(q) < 1 and abs(p) < 1 + q.",
    given=["real p, q"],
    method="SMT",
    source="E. I. Jury, Theory and Application of the z-Transform Method (1964)",
    mutants={"abs(p) < 1 + q alone": {"drop": True}},
)
def jury_criterion(drop=False):
    p, q, x, y, s = smt.reals("p q x y s")
    inside = z3.And(p < 1 + q, -p < 1 + q)
    if not drop:
        inside = z3.And(inside, q < 1, q > -1)
    # Complex pair x +- iy: p = -2x, q = x^2 + y^2. Real pair x, s: p = -(x + s), q = x s.
    pair = smt.decide(inside == (x * x + y * y < 1), roots=z3.And(p == -2 * x, q == x * x + y * y))
    real = smt.decide(
        inside == z3.And(x < 1, x > -1, s < 1, s > -1), roots=z3.And(p == -(x + s), q == x * s)
    )
    return smt.both([real, pair])


def _characteristic(sign=1, delay=0):
    """Numerator of 1 + P F (delay: further steps of z^-1)."""
    loop = sp.together(1 + sign * plant() * controller() / Z**delay)
    return sp.Poly(sp.expand(sp.fraction(loop)[0]), Z)


@theorem(
    "JURY",
    "The log-ratio loop is stable iff -(1+a)(1+beta)/((1-a)(1-beta)) < rho < 1.",
    given=["-1 < a < 1", "0 <= beta < 1", "no further delay"],
    method="SMT",
    source="derivation: z^2 - (a + beta + rho (1-a)(1-beta)) z + a beta, Jury (JURY-criterion)",
    mutants={
        "swapped sign of the loop": {"sign": -1},
        "lower limit -(1+beta)/(1-beta)": {"ignore_a": True},
    },
)
def log_ratio_loop_is_stable(sign=1, ignore_a=False):
    polynomial = _characteristic(sign)
    proof = Derivation()
    if sign == 1:
        proof.equal(
            "characteristic polynomial",
            polynomial.as_expr(),
            Z**2 - (A + B + RHO * (1 - A) * (1 - B)) * Z + A * B,
        )
    a, b, rho = smt.reals("a beta rho")
    p = -(a + b + sign * rho * (1 - a) * (1 - b))
    q = a * b
    stable = z3.And(p < 1 + q, -p < 1 + q, q < 1, q > -1)
    low = -(1 + b) / (1 - b) if ignore_a else -(1 + a) * (1 + b) / ((1 - a) * (1 - b))
    proof.holds(
        "Jury's conditions iff the stated interval",
        stable == z3.And(low < rho, rho < 1),
        lag=z3.And(a > -1, a < 1),
        pole=z3.And(b >= 0, b < 1),
    )
    return proof.done()


@theorem(
    "JURY-delay",
    "With a = 0 and one further step of delay the loop is stable iff -1/(1-beta) < rho < 1 "
    "(-100 at beta = 0.99; -199 without the delay).",
    given=["0 <= beta < 1"],
    method="SMT",
    source="derivation: z^2 - beta z - rho (1-beta)",
    mutants={"the limit without delay": {"late": False}},
)
def one_step_of_delay(late=True):
    polynomial = sp.Poly(_characteristic(delay=1).as_expr().subs(A, 0), Z)
    proof = Derivation()
    proof.equal("characteristic polynomial", polynomial.as_expr(), Z**2 - B * Z - RHO * (1 - B))
    b, rho = smt.reals("beta rho")
    p, q = -b, -rho * (1 - b)
    low = -1 / (1 - b) if late else -(1 + b) / (1 - b)
    proof.holds(
        "Jury",
        z3.And(p < 1 + q, -p < 1 + q, q < 1, q > -1) == z3.And(low < rho, rho < 1),
        pole=z3.And(b >= 0, b < 1),
    )
    return proof.done()


@theorem(
    "JURY-delays",
    "With a = 0 and 1, 5 or 50 further steps of delay the lower stability limit of rho is -100, "
    "-28.95 or -3.76 (beta = 0.99).",
    given=[
        "roots of z^D (z - beta) = rho (1 - beta)",
        "rho < 0: roots meet the unit circle where D w + arg(e^iw - beta) = pi",
    ],
    method="interval",
    source="derivation",
    mutants={"one step of delay less": {"less": 1}},
)
def longer_delays(less=0):
    proof = Derivation()
    beta = Fraction(99, 100)
    b, c = smt.reals("beta cos_w")
    proof.holds(
        "d/dw arg(e^iw - beta) > 0, so the phase rises from 0 and the first crossing is the only "
        "one in its turn; abs(e^iw - beta) rises too, so it has the smallest rho",
        (1 - b * c) / (1 - 2 * b * c + b * b) > 0,
        pole=z3.And(b > 0, b < 1),
        frequency=smt.within(-1, c, 1),
    )

    def imaginary(delay, w):
        """Of e^(iDw) (e^iw - beta): positive while the phase is below pi."""
        return enclose(lambda iv, x, y: iv.sin((delay + 1) * x) - y * iv.sin(delay * x), w, beta)

    def limit(w):
        return enclose(lambda iv, x, y: iv.sqrt(1 - 2 * y * iv.cos(x) + y * y) / (1 - y), w, beta)

    for delay, want, within in ((1, "100", "0.1"), (5, "28.95", "0.005"), (50, "3.76", "0.005")):
        low, high = Fraction(0), Fraction(32, 10)
        # The phase is at least (D + 1/2) w, so the first crossing is below pi/(D + 1/2).
        high = Fraction(22, 7) / (delay - less + Fraction(1, 2))
        low = high / 1000
        for _ in range(60):
            middle = (low + high) / 2
            if imaginary(delay - less, middle)[0] > 0:
                low = middle
            else:
                high = middle
        found = (limit(low)[0], limit(high)[1])
        proof.exact(
            f"D = {delay}: rho > -{float(found[0]):.3f}",
            imaginary(delay - less, low)[0] > 0 >= imaginary(delay - less, high)[0]
            and Fraction(want) - Fraction(within) < found[0]
            and found[1] < Fraction(want) + Fraction(within),
            {"D": delay, "rho": f"-{float(found[0]):.4f}"},
        )
    return proof.done()


@theorem(
    "NEUTRAL",
    "Where sum w_i grad L_i = 0 holds for every w (two tasks), each weight is an equilibrium, and "
    "the linearised loop has a pole at 1: rho = 1.",
    given=["K = 2", "w_1 g_1 = w_2 g_2, w in (0, 1)", "floor inactive"],
    source="derivation: the norms of opposite vectors are equal, so raw = w",
    mutants={"weights squared in the plant": {"power": 2}},
)
def pareto_stationary_is_neutral(power=1):
    w, c = sp.symbols("w_1 c", positive=True)
    g1, g2 = c / w**power, c / (1 - w) ** power
    proof = Derivation()
    proof.equal("raw_1", g2 / (g1 + g2), w)
    proof.equal("average of w and raw", B * w + (1 - B) * g2 / (g1 + g2), w)
    y = sp.log(g1) - sp.log(g2)
    u = sp.log(w) - sp.log(1 - w)
    proof.equal("dy/du = -rho = -1", sp.diff(y, w) / sp.diff(u, w), -1)
    proof.equal(
        "characteristic polynomial at rho = 1, z = 1",
        _characteristic().as_expr().subs({RHO: 1, Z: 1}),
        0,
    )
    return proof.done()


@theorem(
    "LIMIT-rho",
    "At rho = 1.1 the unstable loop is bounded by the floor alone, at y = 3.254.",
    given=["a = 0", "m = 0.05", "equilibrium y = rho (ln(1/m) - ln(1 + e^-y)), y above the knee"],
    method="interval",
    source="derivation",
    mutants={"rho = 1.2": {"rho": Fraction(6, 5)}},
)
def floor_bounds_the_unstable_loop(rho=Fraction(11, 10)):
    def excess(y):
        return enclose(
            lambda iv, r, m, x: r * (-iv.log(m) - iv.log(1 + iv.exp(-x))) - x,
            rho,
            Fraction(1, 20),
            y,
        )

    proof = Derivation()
    low, high = Fraction(32535, 10000), Fraction(32545, 10000)
    proof.exact(
        "above the curve at 3.2535",
        excess(low)[0] > 0,
        {"rho": rho, "excess": float(excess(low)[0])},
    )
    proof.exact(
        "below it at 3.2545", excess(high)[1] < 0, {"rho": rho, "excess": float(excess(high)[1])}
    )
    return proof.done()


@theorem(
    "LYAPUNOV",
    "A quadratic Lyapunov function shows that the identified loop (rho = -0.3, lag 15 steps) "
    "contracts, by 0.996 a step in its norm.",
    given=["beta = 0.99", "a = 14/15", "states: average and plant", "linear, unsaturated"],
    method="certificate",
    source="derivation: P from the Stein equation, checked in rationals",
    mutants={"rho = 1.1": {"rho": Fraction(11, 10)}, "0.9 a step": {"rate": Fraction(9, 10)}},
)
def lyapunov_certificate(rho=Fraction(-3, 10), rate=Fraction(996, 1000)):
    b, a = Fraction(99, 100), Fraction(14, 15)
    # x: u of the last step; y: the plant. y+ = a y - rho (1-a) u, u+ = beta u - (1-beta) y+.
    row_y = [-rho * (1 - a), a]
    row_u = [b - (1 - b) * row_y[0], -(1 - b) * row_y[1]]
    dynamics = [row_u, row_y]
    proof = Derivation()
    trace, det = row_u[0] + row_y[1], row_u[0] * row_y[1] - row_u[1] * row_y[0]
    proof.exact(
        "same characteristic polynomial as JURY",
        trace == a + b + rho * (1 - a) * (1 - b) and det == a * b,
    )
    p = certificate.lyapunov(dynamics, rate)
    good = p is not None and certificate.decreases(dynamics, p, rate)
    proof.exact(f"P > 0 and A'PA < ({rate})^2 P", good, {"rho": rho, "P": "not positive definite"})
    found = proof.done()
    if found.verdict != "proved" or p is None:
        return found
    text = "; ".join(", ".join(f"{float(x):.6g}" for x in row) for row in p)
    return Outcome(
        "proved",
        found.derivation,
        certificate={"P (exact rationals, rounded here)": text, "rate": str(rate)},
    )


@theorem(
    "CLOSED-authority",
    "In closed loop the floor stays inactive for abs(d) < (1-rho) ln((1-m)/m).",
    given=["settled, y = d/(1-rho)", "rho < 1", "knee L = ln((1-m)/m) > 0"],
    method="SMT",
    source="derivation",
    mutants={"1 + rho in place of 1 - rho": {"sign": -1}},
)
def closed_loop_authority(sign=1):
    d, y, rho, knee = smt.reals("d y rho L")
    inactive = z3.And(y < knee, -y < knee)
    limit = (1 - sign * rho) * knee
    return smt.decide(
        inactive == z3.And(d < limit, -d < limit),
        settled=y == d + rho * y,
        stable=rho < 1,
        knee=knee > 0,
    )


if __name__ == "__main__":
    raise SystemExit(main(__file__))
