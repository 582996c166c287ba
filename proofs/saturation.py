"""The floor as a saturation: windup, dead time, and how large an imbalance it lets through.

Two tasks; R = g_1/g_2, so the settled average is e_1 = 1/(1+R).
"""

from fractions import Fraction

import sympy as sp
import z3

from gabactl.law.spec import GabaSpec
from gabactl.proving import main, replay, smt, theorem
from gabactl.proving.rounding import enclose
from gabactl.proving.symbolic import Derivation

M = Fraction(1, 20)
BETA = Fraction(99, 100)


@theorem(
    "C14",
    "The floor is an anti-windup: after any saturation the applied weight leaves the floor at the "
    "first reading with raw_i > m.",
    given=["K = 2", "m = 0.05", "beta = 0.99", "245 readings of g = (1, 0), then g = (1, 1)"],
    method="exact",
    expect="refuted",
    source="GABA textbook, chapter 18",
    mutants={"clamp_state (the stored average is clamped too)": {"floor_mode": "clamp_state"}},
)
def floor_is_anti_windup(floor_mode="renormalise", module=False):
    proof = Derivation()
    if floor_mode == "clamp_state":
        proof.include("any saturation", clamping_the_state_is_anti_windup.prove())
    readings = [[1, 0]] * 245 + [[1, 1]]
    run = replay.exact(readings, beta=BETA, floor=M, floor_mode=floor_mode)
    shorter = replay.exact([*readings[:238], [1, 1]], beta=BETA, floor=M, floor_mode=floor_mode)
    proof.exact("with 238 readings it does leave", shorter[-1].weights[0] > M)
    after = run[-1].weights[0]
    proof.exact(
        "w_1 > m one reading after the reversal",
        after > M,
        {"ema_1": f"{float(run[-1].ema[0]):.6f}", "w_1": f"{float(after):.6f}"},
    )
    if floor_mode == "renormalise":
        spec = GabaSpec.published(warmup=0)
        proof.replayed(
            replay.confirm(
                spec,
                readings,
                lambda w: float(w[0]) < 0.05 - 1e-5,
                beta=BETA,
                floor=M,
                module=module,
            )
        )
    return proof.done()


@theorem(
    "C14-clamp",
    "Clamping the stored average too (clamp_state) is anti-windup: the weight leaves the floor at "
    "the first reading with raw_i > m, for every beta and m.",
    given=["K = 2", "0 <= beta < 1", "0 < m < 1/2", "average at the floor, raw c > m"],
    method="SMT",
    source="derivation",
    mutants={"the average is below the floor": {"clamped": False}},
)
def clamping_the_state_is_anti_windup(clamped=True):
    b, m, c, e = smt.reals("beta m c ema")
    return smt.decide(
        b * e + (1 - b) * c > m,
        pole=z3.And(b >= 0, b < 1),
        floor=z3.And(m > 0, 2 * m < 1),
        reading=z3.And(c > m, c <= 1),
        state=e == m if clamped else z3.And(e >= 0, e < m),
    )


@theorem(
    "DEAD-TIME",
    "From a stored average eps < m and a reading c > m on, the average is back at m after the "
    "least n >= ln((c-eps)/(c-m))/-ln beta readings: 11, 67, 175 for c = 0.5, 0.1, 0.06 "
    "(eps = 0.002, m = 0.05, beta = 0.99).",
    given=["0 <= eps < m < c", "0 < beta < 1", "constant raw weight c"],
    method="SMT",
    source="derivation",
    mutants={"one reading less": {"shift": 1}, "clamp_state": {"clamped": True}},
)
def dead_time(shift=0, clamped=False):
    c, eps, m, x = smt.reals("c eps m beta^n")
    proof = Derivation()
    proof.holds(
        "c + (eps - c) beta^n >= m iff beta^n <= (c-m)/(c-eps)",
        (c + (eps - c) * x >= m) == (x <= (c - m) / (c - eps)),
        order=z3.And(eps >= 0, eps < m, m < c),
        pole=z3.And(x > 0, x <= 1),
    )
    for c_value, n in ((Fraction(1, 2), 11), (Fraction(1, 10), 67), (Fraction(3, 50), 175)):
        n -= shift
        start = M if clamped else Fraction(1, 500)
        # Norms whose raw weights are (c, 1 - c).
        reading = [1 - c_value, c_value]
        run = replay.exact(
            [reading] * n,
            beta=BETA,
            floor=M,
            start=[start, 1 - start],
            floor_mode="clamp_state" if clamped else "renormalise",
        )
        below = [step.ema[0] < M for step in run]
        proof.exact(
            f"c = {float(c_value):g}: stage functions are back at m at reading {n}, not before",
            all(below[:-1]) and not below[-1],
            {"c": c_value, "n": n, "ema": f"{float(run[-1].ema[0]):.6f}"},
        )
    return proof.done()


@theorem(
    "AUTHORITY",
    "The floor is inactive just up to the ratio (1-m)/m: authority over a ratio R needs "
    "m <= 1/(1+R) (19 at m = 0.05; 1/2401 for 2,400).",
    given=["K = 2", "0 < m < 1/2", "R >= 1", "settled average 1/(1+R)"],
    method="SMT",
    source="derivation",
    mutants={"ratio 1/m": {"knee": lambda m: 1 / m}},
)
def authority(knee=lambda m: (1 - m) / m):
    r, m = smt.reals("R m")
    given = {"floor": z3.And(m > 0, 2 * m < 1), "imbalance": r >= 1}
    proof = Derivation()
    proof.holds("1/(1+R) >= m iff R <= knee", (1 / (1 + r) >= m) == (r <= knee(m)), **given)
    proof.holds("1/(1+R) >= m iff m <= 1/(1+R)", (r <= (1 - m) / m) == (m <= 1 / (1 + r)), **given)
    proof.exact("knee at m = 1/20 is 19", knee(M) == 19, {"knee": knee(M)})
    return proof.done()


@theorem(
    "SETTLED",
    "Beyond the knee the published floor settles at w_1 = m/(m + R/(1+R)), leaves the "
    "contributions at m (1+R), and never weighs a task over another by 1/m or more.",
    given=["K = 2", "0 < m < 1/2", "R > (1-m)/m"],
    method="SMT",
    source="derivation",
    mutants={"the floor before the average": {"before": True}},
)
def settled_weights(before=False):
    r, m = smt.reals("R m")
    e_1, e_2 = 1 / (1 + r), r / (1 + r)
    kept = [smt.largest(e_1, m), smt.largest(e_2, m)]
    if before:
        # Renormalise the raw weights, then floor: the sum is no longer 1.
        kept = [smt.largest(e_1, m), e_2]
        w_1 = kept[0]
    else:
        w_1 = kept[0] / (kept[0] + kept[1])
    w_2 = kept[1] / (kept[0] + kept[1])
    given = {"floor": z3.And(m > 0, 2 * m < 1), "beyond": r * m > 1 - m}
    proof = Derivation()
    proof.holds("w_1", w_1 == m / (m + e_2), **given)
    proof.holds("c_1/c_2", w_1 * r == w_2 * m * (1 + r), **given)
    proof.holds("w_2/w_1 < 1/m", w_2 * m < w_1, **given)
    for ratio, want in ((50, "0.04853"), (500, "0.04771"), (2400, "0.04764")):
        run = replay.exact([[ratio, 1]], beta=Fraction(0), floor=M)
        proof.exact(
            f"stage functions at {ratio}x: {want}", f"{float(run[-1].weights[0]):.5f}" == want
        )
    return proof.done()


@theorem(
    "OPEN-LOOP",
    "Beyond the knee the logit of the weights hardly answers: du/dy = -1/(1+R), "
    "u = ln(w_1/w_2), y = ln R.",
    given=["K = 2", "R > (1-m)/m"],
    source="derivation",
    mutants={"below the knee": {"below": True}},
)
def floor_opens_the_loop(below=False):
    y, m = sp.Symbol("y", real=True), sp.Symbol("m", positive=True)
    e_1, e_2 = 1 / (1 + sp.exp(y)), sp.exp(y) / (1 + sp.exp(y))
    u = sp.log(e_1 if below else m) - sp.log(e_2)
    proof = Derivation()
    proof.equal("du/dy", sp.diff(u, y), -1 / (1 + sp.exp(y)))
    return proof.done()


@theorem(
    "KNEE-log",
    "In logarithms the knee is at ln 19 = 2.944 and the limit at ln 20 = 2.996 (m = 0.05).",
    given=["K = 2", "m = 1/20"],
    method="interval",
    source="derivation",
    mutants={"m = 0.06": {"m": Fraction(3, 50)}},
)
def knee_in_logarithms(m=M):
    proof = Derivation()
    for name, ratio, want in (("knee", (1 - m) / m, 2944), ("limit", 1 / m, 2996)):
        low, high = enclose(lambda iv, x: iv.log(x), ratio)
        at = Fraction(want, 1000)
        half = Fraction(1, 2000)
        proof.exact(
            f"{name} {float(low):.4f}",
            at - half < low and high < at + half,
            {name: f"{float(low):.4f}"},
        )
    return proof.done()


if __name__ == "__main__":
    raise SystemExit(main(__file__))
