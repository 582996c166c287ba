"""The proportional law: what its raw weights are, for every number of tasks.

Symbols: g[i] >= 0 the gradient norms, S their sum, K tasks; e[i] = 1/K - g[i]/S.
"""

from fractions import Fraction

import numpy as np
import sympy as sp

from gabactl.law.stages import error, raw_weights, saturate, share, smooth
from gabactl.proving import main, smt, theorem
from gabactl.proving.symbolic import Derivation, sum_over

LAW = "GABA textbook, sections 17.2 and 17.4"
INDEX, K = sp.symbols("i K", integer=True, positive=True)
S, H = sp.symbols("S H", positive=True)
G = sp.IndexedBase("g")


def complement(g, s, k):
    """raw_i of the complement law."""
    return (s - g) / ((k - 1) * s)


def over_k(g, s, k):
    """Planted error: K in place of K - 1."""
    return (s - g) / (k * s)


def guarded(g, s, k):
    """As in the published code, with 1e-12 added to the sum."""
    t = s + sp.Rational(1, 10**12)
    return (t - g) / ((k - 1) * t)


def swapped(g, s, k):
    """Planted error: the sign of the comparator is swapped."""
    return sp.Rational(1) / k - (sp.Rational(1) / k - g / s) / (k - 1)


@theorem(
    "C01",
    "The raw weights sum to 1 for every K and every g with a positive sum.",
    given=["K >= 2", "g_i >= 0", "S > 0", "no 1e-12 in the sum"],
    source=LAW,
    mutants={
        "K in place of K - 1": {"law": over_k},
        "the published 1e-12 added to the sum": {"law": guarded},
    },
)
def raw_weights_sum_to_one(law=complement):
    proof = Derivation()
    proof.equal(
        "sum_i (S - g_i)/((K-1) S)", sum_over(law(G[INDEX], S, K), INDEX, K, {G[INDEX]: S}), 1
    )
    return proof.done()


@theorem(
    "C01-published",
    "With the published 1e-12 in the sum, the raw weights sum to 1 for every g.",
    given=["K >= 2", "g_i >= 0"],
    method="exact",
    expect="refuted",
    source=LAW,
    mutants={"guard hold (no 1e-12, the reading g = 0 held)": {"guard": "hold"}},
)
def published_epsilon_breaks_the_sum(guard="none"):
    proof = Derivation()
    for k in range(2, 9):
        readings = [[Fraction(int(i == 0)) for i in range(k)]]
        if guard == "none":
            readings.insert(0, [Fraction(0)] * k)
        for g in readings:
            total = sum(raw_weights(np.array(g, dtype=object), guard=guard))
            proof.exact(
                f"K = {k}, g = {', '.join(map(str, g))}",
                total == 1,
                {
                    "K": k,
                    "g": f"({', '.join(map(str, g))})",
                    "sum": total,
                },
            )
    proof.replayed(("stage function raw_weights, exact: sum K/(K-1) at g = 0",))
    return proof.done()


@theorem(
    "C02",
    "Every raw weight is in [0, 1/(K-1)].",
    given=["K >= 2 (real)", "g_i >= 0", "the other norms sum to R >= 0", "g_i + R > 0"],
    method="SMT",
    source=LAW,
    mutants={
        "swapped sign": {"bound": 1, "law": lambda g, s, k: g / s},
        "bound 1/K": {"bound": 0},
    },
)
def raw_weights_are_bounded(law=complement, bound=1):
    k, g, r = smt.reals("K g R")
    given = {"tasks": k >= 2, "norm": g >= 0, "others": r >= 0, "some": g + r > 0}
    raw = law(g, g + r, k)
    top = 1 / (k - 1) if bound else 1 / k
    return smt.both([smt.decide(raw >= 0, **given), smt.decide(raw <= top, **given)])


@theorem(
    "C03-permutation",
    "Permuting the tasks permutes the raw weights.",
    given=["K >= 2", "g_j + g_k + R = S, R the sum of the others"],
    source=LAW,
    mutants={"task 1 favoured by 10 %": {"favour": sp.Rational(11, 10)}},
)
def law_is_equivariant(favour=1):
    a, b, r = sp.symbols("g_j g_k R", positive=True)

    def pair(x, y):
        total = favour * x + y + r
        return complement(favour * x, total, K), complement(y, total, K)

    proof = Derivation()
    proof.argue("transpositions generate all permutations; S is a sum, so it does not see order")
    before, after = pair(a, b), pair(b, a)
    proof.equal("raw_j after the swap is raw_k before", after[0], before[1])
    proof.equal("raw_k after the swap is raw_j before", after[1], before[0])
    rest = sp.Symbol("g_l", positive=True)
    proof.equal(
        "raw_l of any other task is unchanged",
        complement(rest, favour * a + b + r, K),
        complement(rest, favour * b + a + r, K),
    )
    return proof.done()


@theorem(
    "C03-scale",
    "Scaling all norms by c > 0 leaves the raw weights alone.",
    given=["K >= 2", "c > 0", "S > 0", "no 1e-12 in the sum"],
    source=LAW,
    mutants={"the published 1e-12 added to the sum": {"law": guarded}},
)
def law_is_homogeneous(law=complement):
    c, g = sp.symbols("c g", positive=True)
    proof = Derivation()
    proof.equal("raw(c g) = raw(g)", law(c * g, c * S, K), law(g, S, K))
    return proof.done()


@theorem(
    "C04",
    "Equal norms give equal weights 1/K, and 1/K is a fixed point of average and floor.",
    given=["K >= 2", "g_i = c > 0", "0 <= beta <= 1", "0 <= m < 1/K"],
    source=LAW,
    mutants={
        "K in place of K - 1": {"law": over_k},
        "no renormalisation": {"renormalise": False, "floor_first": True},
    },
)
def equal_norms_are_a_fixed_point(law=complement, renormalise=True, floor_first=False):
    c, beta, m = sp.symbols("c beta m", positive=True)
    proof = Derivation()
    raw = law(c, K * c, K)
    proof.equal("raw_i", raw, 1 / K)
    proof.equal("average of 1/K and raw", beta / K + (1 - beta) * raw, 1 / K)
    kept = 1 / K + (m if floor_first else 0)
    total = K * kept if renormalise else 1
    proof.equal("max(1/K, m) = 1/K over its sum", kept / total, 1 / K)
    for k in range(2, 9):
        uniform = np.array([Fraction(1, k)] * k, dtype=object)
        floor = Fraction(1, 2 * k)
        raw_k = raw_weights(np.array([Fraction(3)] * k, dtype=object))
        stages = [raw_k, smooth(uniform, raw_k, Fraction(99, 100))]
        modes = ("renormalise", "affine", "project")
        stages += [saturate(uniform, floor, mode) for mode in modes]
        proof.exact(
            f"stage functions at K = {k}, every floor mode",
            all((s == uniform).all() for s in stages),
        )
    return proof.done()


@theorem(
    "C05",
    "raw_i = 1/K + e_i/(K-1) with e_i = 1/K - g_i/S: a proportional controller of gain 1/(K-1).",
    given=["K >= 2", "S > 0"],
    source="GABA textbook, chapter 18",
    mutants={
        "gain 1/K": {"gain": lambda k: 1 / k},
        "swapped sign": {"gain": lambda k: -1 / (k - 1)},
    },
)
def law_is_a_p_controller(gain=lambda k: 1 / (k - 1)):
    g = sp.Symbol("g", nonnegative=True)
    proof = Derivation()
    proof.equal("law", complement(g, S, K), 1 / K + gain(K) * (1 / K - g / S))
    proof.equal("errors sum to", sum_over(1 / K - G[INDEX] / S, INDEX, K, {G[INDEX]: S}), 0)
    return proof.done()


@theorem(
    "LINK-law",
    "The shipped stage functions compute these formulas, for all positive g at K = 2..6.",
    given=["g_i > 0", "inverse law: g sorted, which C03 allows"],
    source="gabactl.law.stages",
    mutants={
        "K in place of K - 1": {"law": over_k},
        "swapped sign": {"law": swapped},
    },
)
def code_computes_the_law(law=complement):
    proof = Derivation()
    for k in range(2, 7):
        gaps = sp.symbols(f"d1:{k + 1}", positive=True)
        g = np.array([sp.Add(*gaps[: n + 1]) for n in range(k)], dtype=object)
        total = sp.Add(*g)
        raw = raw_weights(g)
        for x, at in zip(raw, g, strict=True):
            proof.equal(f"complement, K = {k}", x, law(at, total, k))
        proof.equal(f"comparator, K = {k}", error(share(g))[0], sp.Rational(1, k) - g[0] / total)
        inverse = raw_weights(g, "inverse")
        harmonic = sp.Add(*[1 / x for x in g])
        proof.equal(f"inverse, K = {k}", inverse[-1], 1 / g[-1] / harmonic)
    return proof.done()


if __name__ == "__main__":
    raise SystemExit(main(__file__))
