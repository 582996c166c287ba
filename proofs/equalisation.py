"""Which weights make the contributions c_i = w_i g_i equal, and what a floor takes from that."""

from fractions import Fraction

import numpy as np
import sympy as sp

from gabactl.law.spec import GabaSpec
from gabactl.law.stages import raw_weights, saturate
from gabactl.proving import main, smt, theorem
from gabactl.proving.replay import confirm
from gabactl.proving.symbolic import Derivation, sum_over

G1, G2 = sp.symbols("g_1 g_2", positive=True)


@theorem(
    "C06",
    "For two tasks the raw weights give c_1 = c_2 = g_1 g_2/(g_1 + g_2).",
    given=["K = 2", "g_1, g_2 > 0"],
    source="GABA textbook, section 17.2",
    mutants={
        "swapped sign": {"swap": True},
        "weights of the square root": {"power": sp.Rational(1, 2)},
    },
)
def two_tasks_are_equalised(swap=False, power=1):
    a, b = G1**power, G2**power
    raw = [b / (a + b), a / (a + b)]
    proof = Derivation()
    if not swap and power == 1:
        first = sp.symbols("d1:3", positive=True)
        g = np.array([first[0], first[0] + first[1]], dtype=object)
        shipped = raw_weights(g)
        for weight, norm in zip(shipped, g, strict=True):
            proof.equal("stage function", weight * norm, g[0] * g[1] / (g[0] + g[1]))
    w = raw[::-1] if swap else raw
    proof.equal("c_1", w[0] * G1, G1 * G2 / (G1 + G2))
    proof.equal("c_2", w[1] * G2, G1 * G2 / (G1 + G2))
    return proof.done()


@theorem(
    "C07",
    "For two tasks no other weights on the simplex give c_1 = c_2.",
    given=["g_1, g_2 > 0", "w_1 + w_2 = 1", "w_1 g_1 = w_2 g_2"],
    method="SMT",
    source="GABA textbook, section 17.2",
    mutants={
        "weights need not sum to 1": {"simplex": False},
        "a third task, c_3 free": {"third": True},
    },
)
def inverse_proportional_is_unique(simplex=True, third=False):
    g1, g2, w1, w2, w3 = smt.reals("g_1 g_2 w_1 w_2 w_3")
    given = {
        "norm of task 1": g1 > 0,
        "norm of task 2": g2 > 0,
        "equal contributions": w1 * g1 == w2 * g2,
        "third weight": w3 >= 0 if third else w3 == 0,
    }
    if simplex:
        given["weights sum to 1"] = w1 + w2 + w3 == 1
    return smt.decide(w1 * (g1 + g2) == g2, **given)


@theorem(
    "C09",
    "The complement law equalises the contributions of K = 3 tasks.",
    given=["K = 3", "g_i > 0"],
    method="exact",
    expect="refuted",
    source="GABA textbook, section 17.2",
    mutants={"the inverse law": {"law": "inverse"}},
)
def three_tasks_are_equalised(law="complement", module=False):
    g = [1, 2, 7]
    raw = raw_weights(np.array([Fraction(x) for x in g], dtype=object), law)
    c = [w * x for w, x in zip(raw, g, strict=True)]
    proof = Derivation()
    proof.exact(
        "c_1 = c_2 = c_3 at g = (1, 2, 7)",
        len(set(c)) == 1,
        {
            "g": "(1, 2, 7)",
            "raw": ", ".join(map(str, raw)),
            "c": ", ".join(map(str, c)),
        },
    )
    if law == "complement":
        spec = GabaSpec(n_tasks=3, beta=0, floor=0, warmup=0)
        proof.replayed(
            confirm(
                spec,
                [g],
                lambda w: abs(float(w[2]) * 7 - float(w[0])) > 0.5,
                beta=Fraction(0),
                floor=Fraction(0),
                module=module,
            )
        )
    else:
        proof.include("every g", _inverse_equalises(3))
    return proof.done()


@theorem(
    "EQ-complement",
    "For K >= 3 the complement law equalises just the readings with g_i = g_j or g_i + g_j = S.",
    given=["K >= 3", "0 < g_i, g_j", "g_i + g_j <= S"],
    method="SMT",
    source="derivation: c_i is proportional to g_i (S - g_i)",
    mutants={"g_i = g_j only": {"second_root": False}},
)
def where_complement_equalises(second_root=True):
    a, b, s = smt.reals("g_i g_j S")
    import z3

    equal = a * (s - a) == b * (s - b)
    roots = z3.Or(a == b, a + b == s) if second_root else a == b
    return smt.decide(equal == roots, norms=z3.And(a > 0, b > 0), total=a + b <= s)


def _inverse_equalises(k):
    proof = Derivation()
    gaps = sp.symbols(f"d1:{k + 1}", positive=True)
    g = np.array([sp.Add(*gaps[: n + 1]) for n in range(k)], dtype=object)
    raw = raw_weights(g, "inverse")
    for n in range(1, k):
        proof.equal(f"K = {k}: c_1 = c_{n + 1}", raw[0] * g[0], raw[n] * g[n])
    return proof.done()


@theorem(
    "EQ-inverse",
    "The inverse law raw_i = (1/g_i)/H, H = sum 1/g_j, equalises every contribution, for every K.",
    given=["K >= 2", "g_i > 0"],
    source="derivation: c_i = 1/H",
    mutants={
        "the complement law": {"law": "complement"},
        "square root of the norms": {"law": "root"},
    },
)
def inverse_law_equalises(law="inverse"):
    i, k = sp.symbols("i K", integer=True, positive=True)
    s, h = sp.symbols("S H", positive=True)
    a, b = sp.symbols("g_i g_j", positive=True)
    rule = {
        "inverse": lambda g: 1 / (g * h),
        "complement": lambda g: (s - g) / ((k - 1) * s),
        "root": lambda g: 1 / (sp.sqrt(g) * h),
    }[law]
    proof = Derivation()
    if law == "inverse":
        g = sp.IndexedBase("g")
        proof.equal("weights sum to", sum_over(1 / (g[i] * h), i, k, {1 / g[i]: h}), 1)
        for tasks in (2, 3, 5):
            proof.include("stage function", _inverse_equalises(tasks))
    proof.equal("c_i = c_j", rule(a) * a, rule(b) * b)
    return proof.done()


@theorem(
    "EQ-laws-agree",
    "For two tasks the inverse and the complement law are the same.",
    given=["K = 2", "g_1, g_2 > 0"],
    source="derivation",
    mutants={"three tasks": {"third": 1}},
)
def laws_agree_for_two_tasks(third=0):
    extra = sp.Symbol("g_3", positive=True) if third else None
    g = [G1, G2] + ([extra] if third else [])
    total, harmonic = sp.Add(*g), sp.Add(*[1 / x for x in g])
    proof = Derivation()
    for n, x in enumerate(g):
        proof.equal(f"raw_{n + 1}", (total - x) / ((len(g) - 1) * total), 1 / (x * harmonic))
    return proof.done()


@theorem(
    "COST-affine",
    "With the affine floor the contributions are equal only at g_1 = g_2; the ratio left at "
    "imbalance R is R (1 - m + m R)/(m + (1 - m) R): 14/13 at 2, 290/191 at 10 (m = 0.05).",
    given=["K = 2", "0 < m < 1/2", "R = g_1/g_2 > 0", "settled average 1/(1+R)"],
    method="SMT",
    source="derivation",
    mutants={"project in place of affine": {"mode": "project"}, "m = 0 allowed": {"least": False}},
)
def affine_never_equalises(mode="affine", least=True):
    import z3

    r, m = smt.reals("R m")
    if mode == "affine":
        left = r * (1 - m + m * r) / (m + (1 - m) * r)
    else:
        left = z3.If(r * m <= 1 - m, smt.value(1), r * m / (1 - m))
    proof = Derivation()
    floor = m > 0 if least else m >= 0
    proof.holds(
        "equal only at R = 1",
        (left == 1) == (r == 1),
        floor=z3.And(floor, 2 * m < 1),
        imbalance=r > 0,
    )
    m_, r_ = sp.symbols("m R", positive=True)
    w1 = m_ + (1 - 2 * m_) / (1 + r_)
    proof.equal("ratio c_1/c_2", r_ * w1 / (1 - w1), r_ * (1 - m_ + m_ * r_) / (m_ + (1 - m_) * r_))
    for ratio, want in ((2, Fraction(14, 13)), (10, Fraction(290, 191))):
        got = _residual(Fraction(ratio), mode)
        proof.exact(f"stage functions at {ratio}x", got == want, {"R": ratio, "c_1/c_2": got})
    return proof.done()


@theorem(
    "COST-project",
    "With the projection the contributions are equal up to the knee R = (1-m)/m; beyond it the "
    "ratio left is m R/(1-m). Renormalising leaves m (1+R).",
    given=["K = 2", "0 < m < 1/2", "R = g_1/g_2 >= 1", "settled average 1/(1+R)"],
    method="SMT",
    source="derivation",
    mutants={
        "affine in place of project": {"mode": "affine"},
        "knee at 1/m": {"knee": lambda m: 1 / m},
    },
)
def project_is_exact_up_to_the_knee(mode="project", knee=lambda m: (1 - m) / m):
    import z3

    r, m = smt.reals("R m")
    e = 1 / (1 + r)
    w = smt.largest(e, m) if mode == "project" else m + (1 - 2 * m) * e
    given = {"floor": z3.And(m > 0, 2 * m < 1), "imbalance": r >= 1}
    proof = Derivation()
    proof.holds("equal up to the knee", z3.Implies(r <= knee(m), w * r == 1 - w), **given)
    proof.holds(
        "left beyond it", z3.Implies(r > knee(m), w * r * (1 - m) == (1 - w) * m * r), **given
    )
    kept = smt.largest(e, m)
    w1 = kept / (kept + r * e)
    proof.holds(
        "renormalised, beyond",
        z3.Implies(r > (1 - m) / m, w1 * r == (1 - w1) * m * (1 + r)),
        **given,
    )
    for ratio in (2, 19, 50, 500, 2400):
        want = max(Fraction(1), Fraction(ratio, 19))
        got = _residual(Fraction(ratio), mode)
        proof.exact(
            f"stage functions, project at {ratio}x", got == want, {"R": ratio, "c_1/c_2": got}
        )
        left = max(Fraction(1), Fraction(1 + ratio, 20))
        proof.exact(
            f"stage functions, renormalise at {ratio}x",
            _residual(Fraction(ratio), "renormalise") == left,
        )
    return proof.done()


def _residual(ratio, mode):
    """c_1/c_2 of the stage functions once the average has settled, m = 1/20."""
    g = np.array([ratio, Fraction(1)], dtype=object)
    w = saturate(raw_weights(g), Fraction(1, 20), mode)
    return w[0] * g[0] / (w[1] * g[1])


if __name__ == "__main__":
    raise SystemExit(main(__file__))
