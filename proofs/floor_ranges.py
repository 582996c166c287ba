"""What each floor really guarantees: the exact range of the applied weights, for every K.

The average e is on the simplex; under the complement law also e_i <= 1/(K-1). Seen from task 1,
only five numbers matter: e_1, the number n of other tasks at the floor, the sum a of their
averages, the sum B of the rest, and the floor m. Any such e gives such numbers, so a bound proved
for them holds; n and K are real in the solver, which only makes the statement stronger.
"""

from fractions import Fraction

import numpy as np
import z3

from gabactl.law.floors import FLOORS
from gabactl.law.laws import LAWS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import saturate
from gabactl.proving import Outcome, main, replay, smt, theorem
from gabactl.proving.symbolic import Derivation

SOURCE = "derivation; the promise [m, 1-m] is GABA textbook, section 17.2"
FORMULAS = {
    ("renormalise", "complement"): "[m/(1+m), min(1/(K-1), 1/(1+(K-1)^2 m))]",
    ("renormalise", "inverse"): "[m/(1+(K-1)m), 1/(1+(K-1)m)]",
    ("affine", "complement"): "[m, (1-m)/(K-1)]",
    ("affine", "inverse"): "[m, 1-(K-1)m]",
    ("project", "complement"): "[m, min(1/(K-1), 1-(K-1)m)]",
    ("project", "inverse"): "[m, 1-(K-1)m]",
}


def smaller(x, y):
    return z3.If(x <= y, x, y)


def bounds(mode, law, k, m):
    """Exact infimum and supremum of a weight, as shipped (every theorem here is about them)."""
    return FLOORS[mode].range(m, k, LAWS[law].sharers(k), smaller)


def published(low, high, m):
    """Planted error: the promise of the literature."""
    return m, 1 - m


def higher_low(low, high, m):
    return low + m / 100, high


def lower_high(low, high, m):
    return low, high - m / 100


def state(mode, law, tasks=None, others=None, simplex=True):
    """Hypotheses on the five numbers, and the weight of task 1 they give."""
    k, n, m, e, a, b, theta = smt.reals("K n m e_1 a B theta")
    above = k - 1 - n
    given = {
        "tasks": k >= 2 if tasks is None else k == tasks,
        "count": smt.within(0, n, k - 1) if others is None else n == others,
        "floor": z3.And(m > 0, k * m < 1),
        "average": e >= 0,
    }
    if simplex:
        given["simplex"] = e + a + b == 1
    given["law"] = z3.And(e <= 1, b <= above)
    if law == "complement":
        given["law"] = z3.And(e * (k - 1) <= 1, b * (k - 1) <= above)
    if mode == "affine":
        given["others"] = z3.And(a >= 0, b >= 0)
        return k, m, m + (1 - k * m) * e, given
    if mode == "renormalise":
        given["at the floor"] = smt.within(0, a, n * m)
        given["above it"] = b >= above * m
        kept = smt.largest(e, m)
        return k, m, kept / (kept + n * m + b), given
    w = smt.largest(e - theta, m)
    given["at the floor"] = smt.within(0, a, n * (m + theta))
    given["above it"] = b >= above * (m + theta)
    given["projection"] = w + n * m + b - above * theta == 1
    return k, m, w, given


def _as_stated(low, high, m):
    return low, high


def _same_weight(weight, average, floor):
    return weight


def _not_renormalised(weight, average, floor):
    return smt.largest(average, floor)


def in_range(mode, law, claim, change, simplex, actual_law):
    """low <= w <= high for real K and n; a counterexample is sought at whole ones."""

    def at(tasks=None, others=None):
        k, m, w, given = state(mode, actual_law, tasks, others, simplex)
        w = change(w, smt.reals("e_1")[0], m)
        low, high = claim(*bounds(mode, law, k, m), m)
        return smt.both([smt.decide(w >= low, **given), smt.decide(w <= high, **given)])

    found = at()
    if found.verdict != "refuted":
        return found
    for tasks in range(2, 9):
        for others in range(tasks):
            part = at(tasks, others)
            if part.verdict != "proved":
                return part
    return Outcome("unknown", reason="fails only where K or n is not whole")


def _range_theorem(mode, law, errors):
    also = " (and clamp_state)" if mode == "project" else ""

    @theorem(
        f"RANGE-{mode}-{law}",
        f"Floor {mode}{also}, {law} law: every weight is in {FORMULAS[mode, law]}.",
        given=[
            "K >= 2",
            "0 < m < 1/K",
            "the average is on the simplex" + (", e_i <= 1/(K-1)" if law == "complement" else ""),
        ],
        method="SMT",
        source=SOURCE,
        mutants={
            "lower bound m/100 higher": {"claim": higher_low},
            "upper bound m/100 lower": {"claim": lower_high},
            **errors,
        },
    )
    def check(claim=_as_stated, change=_same_weight, simplex=True, actual_law=law):
        return in_range(mode, law, claim, change, simplex, actual_law)

    return check


RANGES = [
    _range_theorem(
        "renormalise",
        "complement",
        {
            "the published range [m, 1-m]": {"claim": published},
            "no renormalisation": {"change": _not_renormalised},
            "the inverse law": {"actual_law": "inverse"},
        },
    ),
    _range_theorem(
        "renormalise", "inverse", {"the published range [m, 1-m]": {"claim": published}}
    ),
    _range_theorem("affine", "complement", {"the inverse law": {"actual_law": "inverse"}}),
    _range_theorem(
        "affine", "inverse", {"clamped, in place of affine": {"change": _not_renormalised}}
    ),
    _range_theorem("project", "complement", {"the inverse law": {"actual_law": "inverse"}}),
    _range_theorem("project", "inverse", {}),
]


def _sharp_theorem(mode, law):
    @theorem(
        f"SHARP-{mode}-{law}",
        f"Floor {mode}, {law} law: for every delta > 0 a reachable average gives a weight within "
        f"delta of each end of {FORMULAS[mode, law]}.",
        given=[
            "K >= 2",
            "0 < m < 1/K",
            "0 <= beta < 1",
            "a constant reading brings the average within any s > 0 of its extreme",
        ],
        method="SMT",
        source=SOURCE,
        mutants={
            "lower end m/100 lower": {"claim": lambda low, high, m: (low - m / 100, high)},
            "upper end m/100 higher": {"claim": lambda low, high, m: (low, high + m / 100)},
        },
    )
    def check(claim=_as_stated):
        proof = Derivation()
        proof.argue("the average of a constant raw value c is c + (1/K - c) beta^n, beta^n -> 0")
        k, m, s = smt.reals("K m s")
        low, high = claim(*bounds(mode, law, k, m), m)
        given = {"tasks": k >= 2, "floor": z3.And(m > 0, k * m < 1)}
        # abs(w - end) <= C s near s = 0 is what "within any delta" needs.
        near, slope = z3.And(s >= 0, s * k <= m), 4 * k * k
        gap = _lower_state(mode, law, k, m, s) - low
        proof.holds(
            "lower end: abs(w - end) <= 4 K^2 s",
            z3.And(gap <= slope * s, gap >= -slope * s),
            near=near,
            **given,
        )
        e, top, q = smt.reals("e_1 top q")
        if mode == "renormalise":
            # In q = (K-1) m the weight is a function of e_1 alone, of slope at most 1.
            other = smt.largest((1 - e) / (k - 1), m)
            q_now = (k - 1) * m
            proof.holds(
                "w = e/max(1, e + q), q = (K-1) m, at equal others",
                e / (e + (k - 1) * other) == _above_one(e, q_now),
                average=smt.within(0, e, 1),
                **given,
            )
            proof.holds(
                "abs(w - w(top)) <= top - e",
                smt.within(0, _above_one(top, q) - _above_one(e, q), top - e),
                order=z3.And(e >= 0, e <= top, top <= 1),
                floor=q >= 0,
            )
            best = 1 / (k - 1) if law == "complement" else smt.value(1)
            proof.holds("the end is w(top)", high == _above_one(best, q_now), **given)
        else:
            gap = _upper_state(mode, law, k, m, s) - high
            proof.holds(
                "upper end: abs(w - end) <= 4 K^2 s",
                z3.And(gap <= slope * s, gap >= -slope * s),
                near=near,
                **given,
            )
        for tasks in (2, 3, 5):
            floor = Fraction(1, 20)
            ends = claim(*_exact_bounds(mode, law, tasks, floor), floor)
            for name, end, reading in zip(
                ("lower", "upper"), ends, _readings(law, tasks), strict=True
            ):
                for shipped in (mode, "clamp_state") if mode == "project" else (mode,):
                    w = replay.exact(
                        [reading] * 90,
                        beta=Fraction(4, 5),
                        floor=floor,
                        law=law,
                        floor_mode=shipped,
                    )[-1].weights[0]
                    proof.exact(
                        f"stage functions, {shipped}, K = {tasks}: within 1e-4 of the {name} end",
                        abs(w - end) < Fraction(1, 10**4),
                        {"K": tasks, "w": float(w)},
                    )
        return proof.done()

    return check


def _lower_state(mode, law, k, m, s):
    """Weight of task 1 at e_1 = s and the others at their extreme."""
    if mode != "renormalise":
        return m + (1 - k * m) * s if mode == "affine" else smt.largest(s, m)
    if law == "complement":
        return m / (m + 1 - s)
    return m / (m + (k - 2) * m + 1 - (k - 1) * s)


def _above_one(e, q):
    return e / smt.largest(smt.value(1), e + q)


def _upper_state(mode, law, k, m, s):
    """Weight of task 1 at its highest average less s, the others equal."""
    e = 1 / (k - 1) - s if law == "complement" else 1 - (k - 1) * s
    other = (1 - e) / (k - 1)
    if mode == "affine":
        return m + (1 - k * m) * e
    return z3.If(other >= m, e, 1 - (k - 1) * m)


def _exact_bounds(mode, law, tasks, floor):
    return FLOORS[mode].range(floor, tasks, LAWS[law].sharers(tasks))


def _readings(law, tasks):
    """Constant readings that push the weight of task 1 down, and up."""
    if law == "complement":
        return [1] + [0] * (tasks - 1), [0] + [1] * (tasks - 1)
    big = 10**7
    return [big, 1] + [big] * (tasks - 2), [1] + [big] * (tasks - 1)


SHARP = [_sharp_theorem(mode, law) for mode, law in FORMULAS]


@theorem(
    "SHARP-attained",
    "At beta = 0 one reading attains both ends, under the complement law, in every floor mode.",
    given=["K = 2..8", "m = 1/20", "beta = 0"],
    method="exact",
    source=SOURCE,
    mutants={"beta = 1/2": {"beta": Fraction(1, 2)}},
)
def ends_are_attained(beta=Fraction(0)):
    proof = Derivation()
    floor = Fraction(1, 20)
    for mode in ("renormalise", "affine", "project"):
        for tasks in range(2, 9):
            ends = _exact_bounds(mode, "complement", tasks, floor)
            for reading, end in zip(_readings("complement", tasks), ends, strict=True):
                w = replay.exact([reading], beta=beta, floor=floor, floor_mode=mode)[-1].weights[0]
                proof.exact(
                    f"{mode}, K = {tasks}: {end}",
                    w == end,
                    {"mode": mode, "K": tasks, "w": w, "end": end},
                )
    return proof.done()


@theorem(
    "SHARP-inverse-attained",
    "At beta = 0 some reading attains the lower end under the inverse law with renormalising.",
    given=["K >= 2", "0 < m < 1/K", "every g_i > 0, as the law needs, so every raw_i > 0"],
    method="SMT",
    expect="refuted",
    source=SOURCE,
    mutants={"the complement law, which takes g_i = 0": {"law": "complement"}},
)
def inverse_law_attains(law="inverse"):
    k, m, w, given = state("renormalise", law)
    e, n, a, b = smt.reals("e_1 n a B")
    low, _ = bounds("renormalise", law, k, m)
    if law == "inverse":
        given["open"] = z3.And(e > 0, z3.Implies(n > 0, a > 0), z3.Implies(n < k - 1, b > 0))
        apart = smt.decide(w > low, **given)
        # Never attained just when every state is strictly above the end.
        verdict = {"proved": "refuted", "refuted": "proved"}.get(apart.verdict, "unknown")
        return Outcome(
            verdict,
            (f"every reachable weight is strictly above the end: {apart.verdict}",),
            counterexample={"none attains": "w > m/(1+(K-1)m) for all g > 0"}
            if verdict == "refuted"
            else None,
            reason=apart.reason,
        )
    proof = Derivation()
    proof.exact(
        "w = m/(1+m) at g = (1, 0)",
        replay.exact([[1, 0]], beta=Fraction(0), floor=Fraction(1, 20))[-1].weights[0]
        == Fraction(1, 21),
    )
    return proof.done()


@theorem(
    "C13",
    "The applied weights are in [m, 1-m] at every step.",
    given=["published settings: K = 2, beta = 0.99, m = 0.05, floor renormalise"],
    method="exact",
    expect="refuted",
    source="GABA textbook, section 17.2",
    mutants={
        "floor project": {"floor_mode": "project"},
        "floor affine": {"floor_mode": "affine"},
        "floor clamp_state": {"floor_mode": "clamp_state"},
    },
)
def weights_stay_above_the_floor(floor_mode="renormalise", module=False):
    beta, floor = Fraction(99, 100), Fraction(1, 20)
    proof = Derivation()
    if floor_mode != "renormalise":
        mode = "affine" if floor_mode == "affine" else "project"
        proof.include(
            "every K",
            in_range(
                mode,
                "complement",
                lambda low, high, m: (m, 1 - m),
                _same_weight,
                True,
                "complement",
            ),
        )
        return proof.done()
    readings = [[1, 0]] * 230
    run = replay.exact(readings, beta=beta, floor=floor)
    first = next(n for n, step in enumerate(run, 1) if step.weights[0] < floor)
    b, e, r, m = smt.reals("beta e_1 raw_1 m")
    proof.holds(
        "no reading takes the average lower than beta e_1, so none before beta^n/2",
        b * e + (1 - b) * r >= b * e,
        pole=smt.within(0, b, 1),
        raw=r >= 0,
    )
    proof.holds(
        "w_1 >= m just while e_1 >= m",
        (smt.largest(e, m) >= m * (smt.largest(e, m) + smt.largest(1 - e, m))) == (e >= m),
        average=smt.within(0, e, smt.value("1/2")),
        floor=z3.And(m > 0, 2 * m < 1),
    )
    proof.exact(
        "beta^n/2 >= m through n = 229, so no run leaves the range before active step 230, and "
        "g = (1, 0) does then",
        first == 230 and beta**229 / 2 >= floor > beta**230 / 2,
        {"step": first},
    )
    least = replay.exact([[1, 0]], beta=Fraction(0), floor=floor)[-1].weights
    spec = GabaSpec.published(warmup=100)
    shown = replay.confirm(
        spec, readings, lambda w: float(w[0]) < 0.05 - 1e-6, beta=beta, floor=floor, module=module
    )
    proof.exact(
        "w_1 >= 1/20 for g = (1, 0)",
        least[0] >= floor,
        {
            "beta": "0",
            "g": "(1, 0)",
            "w": ", ".join(map(str, least)),
            "published beta": "g = (1, 0) for 230 active steps",
        },
    )
    proof.replayed(shown)
    return proof.done()


@theorem(
    "C13-every-K",
    "For some K the published floor keeps w_i >= m (0 < m < 1/K).",
    given=["K >= 2", "0 < m < 1/K", "the reading g = (1, 0, ..., 0), settled"],
    method="SMT",
    expect="refuted",
    source="GABA textbook, section 17.2",
    mutants={"floor project": {"project": True}},
)
def lower_bound_fails_for_every_k(project=False):
    k, m = smt.reals("K m")
    w = smt.largest(smt.value(0), m)
    if not project:
        w = w / (w + 1)
    fails = smt.decide(w < m, tasks=k >= 2, floor=z3.And(m > 0, k * m < 1))
    verdict = {"proved": "refuted", "refuted": "proved"}.get(fails.verdict, "unknown")
    return Outcome(
        verdict,
        (f"w_1 = m/(1+m) < m for every K and m: {fails.verdict}",),
        fails.core,
        counterexample={"g": "(1, 0, ..., 0)", "w_1": "m/(1+m)"} if verdict == "refuted" else None,
        reason=fails.reason,
    )


@theorem(
    "LINK-floor",
    "The shipped floors are the ones of these theorems: max(e, m) over its sum; m + (1-Km) e; "
    "and the nearest point of {w >= m, sum w = 1}.",
    given=["K = 2..5", "all averages on the simplex with denominator 12", "m = 1/(2K), 1/20"],
    method="exact",
    source="gabactl.law.floors",
    mutants={
        "floor lifted by 1/100": {"lift": Fraction(1, 100)},
        "no renormalisation": {"renormalise": False},
    },
)
def code_computes_the_floor(lift=Fraction(0), renormalise=True):
    proof = Derivation()
    for k in range(2, 6):
        count = 0
        for floor in (Fraction(1, 2 * k), Fraction(1, 20)):
            for point in _grid(k, 12):
                count += 1
                e = np.array(point, dtype=object)
                kept = np.maximum(e, floor + lift)
                want = kept / (sum(kept) if renormalise else 1)
                same = (saturate(e, floor) == want).all()
                same &= (saturate(e, floor, "affine") == floor + lift + (1 - k * floor) * e).all()
                w = saturate(e, floor, "project")
                # Nearest point: feasible, and w = max(e - theta, m) for one theta (the KKT
                # conditions, sufficient because the problem is convex).
                shift = {x - y for x, y in zip(e, w, strict=True) if y > floor}
                theta = shift.pop() if shift else max(e) - floor
                same &= sum(w) == 1 and not shift
                same &= all(y == max(x - theta, floor) for x, y in zip(e, w, strict=True))
                if not same:
                    proof.exact(f"K = {k}", False, {"e": ", ".join(map(str, point)), "m": floor})
                    return proof.done()
        proof.exact(f"K = {k}: {count} averages", True)
    return proof.done()


def _grid(k, parts):
    """All points of the simplex with this denominator, up to order (C03)."""

    def split(left, count, most):
        if count == 1:
            if left <= most:
                yield (left,)
            return
        for first in range(min(left, most), -1, -1):
            for rest in split(left - first, count - 1, first):
                yield (first, *rest)

    return [tuple(Fraction(x, parts) for x in point) for point in split(parts, k, parts)]


if __name__ == "__main__":
    raise SystemExit(main(__file__))
