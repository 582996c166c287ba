"""GradNorm as a controller: where it rests, and why nothing bounds its weights.

w_i <- w_i - eta a g_i sign(w_i g_i - T_i), T_i = mean(w g) r_i^alpha held constant in the step:
a relay with step s = eta a g_i around the level T_i/g_i.
"""

from fractions import Fraction

import numpy as np
import sympy as sp
import z3

from gabactl.law.stages import raw_weights
from gabactl.proving import main, smt, theorem
from gabactl.proving.symbolic import Derivation

SOURCE = "Chen et al., GradNorm (2018); GABA textbook, chapter 19"
#: Gradient norms of the 480-parameter toy, as printed there.
TOY = (Fraction(765335, 10000), Fraction(36654, 100000))


@theorem(
    "C33",
    "The fixed point of GradNorm at alpha = 0 is the complement law, for two tasks.",
    given=["K = 2", "g_1, g_2 > 0", "w_1 g_1 = w_2 g_2 = mean(w g)", "w_1 + w_2 = 1"],
    source=SOURCE,
    mutants={"alpha = 1, r = (1, 1/2)": {"targets": (1, Fraction(1, 2))}},
)
def gradnorm_rests_at_gaba(targets=(1, 1)):
    g1, g2, w = sp.symbols("g_1 g_2 w", positive=True)
    t = [sp.Rational(str(x)) for x in targets]
    (w_1,) = sp.solve(sp.Eq(w * g1 * t[1], (1 - w) * g2 * t[0]), w)
    proof = Derivation()
    proof.equal("fixed point = raw_1", w_1, g2 / (g1 + g2))
    return proof.done()


@theorem(
    "C33-three",
    "The fixed point of GradNorm at alpha = 0 is the complement law, for three tasks.",
    given=["K = 3", "w_i g_i all equal", "sum w = 1", "g = (1, 2, 7)"],
    method="exact",
    expect="refuted",
    source=SOURCE,
    mutants={"the inverse law": {"law": "inverse"}},
)
def gradnorm_and_three_tasks(law="complement"):
    g = [Fraction(1), Fraction(2), Fraction(7)]
    harmonic = sum(1 / x for x in g)
    rest = [1 / x / harmonic for x in g]
    raw = list(raw_weights(np.array(g, dtype=object), law))
    proof = Derivation()
    proof.exact(
        "fixed point = raw weights",
        rest == raw,
        {"g": "(1, 2, 7)", "GradNorm": ", ".join(map(str, rest)), "GABA": ", ".join(map(str, raw))},
    )
    return proof.done()


@theorem(
    "C33-inverse",
    "The fixed point of GradNorm at alpha = 0 is the inverse law, for every number of tasks.",
    given=["K >= 2", "g_i > 0", "w_i g_i = c for every i", "sum w = 1", "H = sum 1/g_j"],
    source=SOURCE,
    mutants={"alpha = 1": {"alpha": 1}},
)
def gradnorm_rests_at_inverse(alpha=0):
    from gabactl.proving.symbolic import sum_over

    i, k = sp.symbols("i K", integer=True, positive=True)
    c, h, g_i, r_i = sp.symbols("c H g_i r_i", positive=True)
    g = sp.IndexedBase("g")
    proof = Derivation()
    # Every w_i = c r_i^alpha / g_i; the sum fixes c.
    total = sum_over(c / g[i], i, k, {1 / g[i]: h})
    (level,) = sp.solve(sp.Eq(total, 1), c)
    proof.equal("c", level, 1 / h)
    proof.equal("w_i", level * r_i**alpha / g_i, 1 / (g_i * h))
    return proof.done()


@theorem(
    "C34",
    "GradNorm keeps its weights within some bound, whatever the gradients.",
    given=["one step, eta a > 0 fixed", "w_i = 1, above target (w_i g_i > T_i)"],
    method="SMT",
    expect="refuted",
    source=SOURCE,
    mutants={"gradients bounded by G": {"bounded": True}},
)
def gradnorm_is_bounded(bounded=False):
    eta, g, bound, w, most = smt.reals("eta_a g bound w G")
    # For every bound there is a g: take g = (bound + 2)/eta_a and see that it leaves the bound.
    if not bounded:
        leaves = smt.decide(
            w < -bound,
            step=w == 1 - eta * g,
            rate=eta > 0,
            bound=bound > 0,
            gradient=g == (bound + 2) / eta,
        )
        proof = Derivation()
        proof.exact(
            "the weight stays within the bound",
            leaves.verdict != "proved",
            {
                "every bound B": "g = (B + 2)/(eta a) takes w from 1 to -1 - B",
                "the 480-parameter toy, eta = 0.05": f"{float(1 - Fraction(1, 20) * TOY[0]):.4f}",
            },
        )
        return proof.done()
    return smt.decide(
        w >= -bound,
        step=w == 1 - eta * g,
        rate=eta > 0,
        gradient=z3.And(g >= 0, g <= most),
        bound=bound == eta * most,
    )


@theorem(
    "C34-step",
    "On the 480-parameter toy one step at learning rate 0.05 takes the weight from 1 to -2.8267; "
    "with renormalisation to sum K the weights are (3.126, -1.126); with a = 0.1 it is 0.617.",
    given=["g = (76.5335, 0.36654)", "r_i = 1", "w = (1, 1)"],
    method="exact",
    source=SOURCE,
    mutants={"learning rate 0.005": {"eta": Fraction(1, 200)}, "swapped sign": {"sign": -1}},
)
def one_step_of_gradnorm(eta=Fraction(1, 20), sign=1):
    proof = Derivation()
    mean = sum(TOY) / 2

    def step(a):
        signs = [1 if g > mean else -1 for g in TOY]
        return [1 - sign * eta * a * g * s for g, s in zip(TOY, signs, strict=True)]

    w = step(1)
    proof.exact(
        f"w_1 = {float(w[0]):.4f}",
        abs(w[0] + Fraction("2.8267")) < Fraction(1, 10**4),
        {"w_1": w[0]},
    )
    scaled = [2 * x / sum(w) for x in w]
    proof.exact(
        f"renormalised {float(scaled[0]):.3f}, {float(scaled[1]):.3f}",
        abs(scaled[0] - Fraction("3.126")) < Fraction(1, 10**3),
        {"w": float(scaled[0])},
    )
    tenth = step(Fraction(1, 10))[0]
    proof.exact(
        f"a = 0.1: {float(tenth):.3f}",
        abs(tenth - Fraction("0.617")) < Fraction(1, 10**3),
        {"w_1": tenth},
    )
    return proof.done()


@theorem(
    "GRADNORM-negative",
    "A step turns a positive weight negative iff the weight is above target and below the step "
    "s = eta a g.",
    given=["w > 0", "s > 0", "level T/g >= 0", "w != level"],
    method="SMT",
    source="derivation",
    mutants={"below half the step": {"factor": Fraction(1, 2)}},
)
def weight_turns_negative(factor=Fraction(1)):
    w, s, level = smt.reals("w s level")
    after = z3.If(w > level, w - s, w + s)
    return smt.decide(
        (after < 0) == z3.And(w > level, w < smt.value(factor) * s),
        weight=w > 0,
        step=s > 0,
        target=z3.And(level >= 0, w != level),
    )


@theorem(
    "GRADNORM-cycle",
    "Within one step of its level a GradNorm weight cycles for ever between two values that are "
    "exactly s = eta a g apart.",
    given=["constant g and target", "level < w < level + s, s > 0", "no renormalisation"],
    method="SMT",
    source="derivation: a relay",
    mutants={"a step of half the size below": {"half": True}, "amplitude 2 s": {"amplitude": 2}},
)
def limit_cycle(half=False, amplitude=1):
    w, s, level = smt.reals("w s level")

    def step(x):
        back = s / 2 if half else s
        return z3.If(x > level, x - s, z3.If(x < level, x + back, x))

    once = step(w)
    twice = step(once)
    given = {"near": z3.And(level < w, w < level + s), "step": s > 0}
    return smt.both(
        [
            smt.decide(twice == w, **given),
            smt.decide(w - once == amplitude * s, **given),
            smt.decide(z3.And(once < level, once > level - s), **given),
        ]
    )


@theorem(
    "GRADNORM-alpha",
    "A positive alpha gives the lagging task (larger r_i) more weight than alpha = 0 does.",
    given=["K = 2", "fixed point w_1 g_1/w_2 g_2 = (r_1/r_2)^alpha", "x = (r_1/r_2)^alpha > 1"],
    method="SMT",
    source=SOURCE,
    mutants={"negative alpha": {"positive": False}},
)
def positive_alpha_favours_the_lagging(positive=True):
    w, w_0, g1, g2, x = smt.reals("w w_0 g_1 g_2 x")
    return smt.decide(
        w > w_0,
        norms=z3.And(g1 > 0, g2 > 0),
        progress=x > 1 if positive else z3.And(x > 0, x < 1),
        fixed=z3.And(w * g1 == x * (1 - w) * g2, w_0 * g1 == (1 - w_0) * g2),
        weights=z3.And(w > 0, w < 1),
    )


if __name__ == "__main__":
    raise SystemExit(main(__file__))
