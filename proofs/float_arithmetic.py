"""What rounding does: how far float32 and float64 controllers are from the exact one.

u is the unit roundoff, eps = 2 u. Each rounded operation is exact times 1 + d, abs(d) <= u, plus
at most h where it underflows. The exact controller has the real beta of the settings.
"""

from fractions import Fraction

import numpy as np
import z3

from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.proving import main, smt, theorem
from gabactl.proving.rounding import UNIT_ROUNDOFF, enclose, monotone, ulp
from gabactl.proving.symbolic import Derivation

#: Bound on what underflow adds to one step.
UNDERFLOW = {"float32": Fraction(1, 2**140), "float64": Fraction(1, 2**1000)}
SOURCE = (
    "derivation: N. J. Higham, Accuracy and Stability of Numerical Algorithms (2002), section 2.2"
)


def stated_k(gain, tasks):
    """k of the bound k eps, for 1 - beta = gain."""
    return 2 / gain + tasks + 1


def _factor(u, operations):
    """p with abs(product of 1 + d_i - 1) <= p."""
    return (1 + u) ** operations - 1


def _worst_found(dtype, tasks, beta):
    """Largest error of the average, in eps, over constant readings run until nothing moves."""
    number = np.dtype(dtype).type
    u = UNIT_ROUNDOFF[dtype]
    pole = number(beta)
    gain = number(1 - beta) if dtype == "float32" else number(1) - pole
    # In float64 the controller knows beta as this float; in float32 it rounds the real one.
    exact_beta = Fraction(float(beta)) if dtype == "float64" else Fraction(str(beta))
    worst = (Fraction(0), None)
    # Long enough that rounding stops every average short of its limit.
    steps = round((16.0 if dtype == "float32" else 36.0) / -np.log(beta))
    decay = enclose(lambda iv, b: b**steps, exact_beta)[0]  # to 40 digits
    for g in ([0, 1], [1, 3], [5, 2]):
        reading = np.array((g * tasks)[:tasks], dtype=dtype)
        total = reading.sum(dtype=dtype)
        raw = ((total - reading) / total / number(tasks - 1)).astype(dtype)
        ema = np.full(tasks, number(1) / number(tasks), dtype=dtype)
        for _ in range(steps):
            ema = (pole * ema + gain * raw).astype(dtype)
        norms = [Fraction(float(x)) for x in reading]
        for i in range(tasks):
            c = (sum(norms) - norms[i]) / sum(norms) / (tasks - 1)
            exact = c + (Fraction(1, tasks) - c) * decay
            error = abs(Fraction(float(ema[i])) - exact) / (2 * u)
            if error > worst[0]:
                worst = (error, g)
    return worst


@theorem(
    "ROUND-average",
    "The float32 and float64 averages stay within k eps of the exact one for ever, "
    "k = 2/(1-beta) + K + 1 (203 at K = 2, beta = 0.99).",
    given=[
        "K = 2..8",
        "any usable finite readings",
        "0 <= beta <= 1 - 200 u",
        "both laws, guard hold, one reading a step",
    ],
    method="rounding",
    source=SOURCE,
    mutants={
        "k = 3, whatever beta": {"k": lambda gain, tasks: 3 + 0 * gain},
        "1/(1-beta) forgotten": {"k": lambda gain, tasks: tasks + 1 + 0 * gain},
    },
)
def average_stays_close(k=stated_k):
    proof = Derivation()
    for dtype in ("float64", "float32"):
        for tasks, beta in ((2, 0.9), (2, 0.99), (3, 0.99)):
            worst, reading = _worst_found(dtype, tasks, beta)
            allowed = k(1 - Fraction(str(beta)), tasks)
            proof.exact(
                f"{dtype}, K = {tasks}, beta = {beta}: at most {float(worst):.1f} eps found "
                f"of {float(allowed):.0f}",
                worst <= allowed,
                {
                    "dtype": dtype,
                    "K": tasks,
                    "beta": beta,
                    "g": reading,
                    "error in eps": f"{float(worst):.1f}",
                },
            )
    for dtype, u in UNIT_ROUNDOFF.items():
        h = UNDERFLOW[dtype]
        p = _factor(u, 3) * (1 + u)
        proof.exact(
            f"{dtype}: three roundings change by at most p <= 3.01 u", p <= Fraction(301, 100) * u
        )
        for tasks in range(2, 9):
            _raw_error(proof, dtype, u, tasks)
            raw = smt.value((tasks + 3) * u + 2 * h)
            c, error = smt.reals("1-beta E")
            moved, b = smt.value(1 + p), 1 - c
            proof.holds(
                f"{dtype}, K = {tasks}: an error of k eps is not exceeded in a step",
                b * error * moved + c * raw * moved + smt.value(p + 2 * h) <= error,
                gain=smt.within(smt.value(200 * u), c, 1),
                error=error == smt.value(2 * u) * k(c, tasks),
            )
            proof.exact(f"{dtype}, K = {tasks}: start", u / tasks <= 2 * u * k(Fraction(1), tasks))
    x, y, e, q = smt.reals("x fl_x E p")
    f = smt.reals("factor")[0]
    proof.holds(
        "abs(fl_x factor - x) <= E (1 + p) + x p",
        smt.within(-(e * (1 + q) + x * q), y * f - x, e * (1 + q) + x * q),
        error=smt.within(-e, y - x, e),
        factor=smt.within(1 - q, f, 1 + q),
        signs=z3.And(x >= 0, e >= 0, q >= 0),
    )
    proof.argue("sum with weights beta and 1 - beta, beta e + (1-beta) raw <= 1; induction")
    return proof.done()


def _raw_error(proof, dtype, u, tasks):
    """Both laws: the rounded raw weight is within (K + 3) u + 2 h."""
    s, d, f = smt.reals("share d_sum factor")
    bound = smt.value((tasks + 3) * u)

    def close(x, y):
        return smt.within(-bound, x - y, bound)

    total = _factor(u, tasks - 1)
    three = _factor(u, 3)
    proof.holds(
        f"{dtype}, K = {tasks}: complement raw weight within (K + 3) u (h added for underflow)",
        close((1 - s / (1 + d)) * f, 1 - s),
        share=smt.within(0, s, 1),
        sum=smt.within(smt.value(-total), d, smt.value(total)),
        factor=smt.within(smt.value(1 - three), f, smt.value(1 + three)),
    )
    total, two = _factor(u, tasks), _factor(u, 2)
    proof.holds(
        f"{dtype}, K = {tasks}: inverse raw weight",
        close(s * f / (1 + d), s),
        share=smt.within(0, s, 1),
        sum=smt.within(smt.value(-total), d, smt.value(total)),
        factor=smt.within(smt.value(1 - two), f, smt.value(1 + two)),
    )


@theorem(
    "ROUND-unit",
    "The float32 and float64 averages never leave [0, 1], not by one bit.",
    given=["0 <= beta < 1", "rounding to nearest is monotone and leaves floats alone"],
    method="rounding",
    source="derivation",
    mutants={"gain rounded up by a whole eps": {"slip": 2}},
)
def average_stays_in_the_unit_interval(slip=Fraction(1, 2)):
    proof = Derivation()
    for dtype, u in UNIT_ROUNDOFF.items():
        v = smt.value(u)
        b, c, p, q = smt.reals("beta 1-beta fl_beta fl_gain")
        e, r, x, y, z = smt.reals("ema raw fl_kept fl_added fl_ema")
        # Spacing below 1/2 is at most u/2, below 1 at most u; float32 rounds 1 - beta twice.
        err = smt.value(slip * u)
        proof.holds(
            f"{dtype}: fl(beta) + fl(1-beta) < 1 + u",
            p + q < 1 + v,
            sum=b + c == 1,
            pole=z3.And(b >= 0, b < 1),
            larger=z3.If(
                b >= c,
                z3.And(smt.within(-err, p - b, err), smt.within(-err * 2 / 3, q - c, err * 2 / 3)),
                z3.And(
                    smt.within(-err * 2 / 3, p - b, err * 2 / 3),
                    smt.within(-err, q - c, err * 11 / 10),
                ),
            ),
        )
        zero, one = smt.value(0), smt.value(1)
        proof.holds(
            f"{dtype}: 0 <= fl(fl(beta ema) + fl(gain raw)) <= 1",
            smt.within(0, z, 1),
            pole=z3.And(p >= 0, q >= 0, p + q < 1 + v),
            average=smt.within(0, e, 1),
            raw=smt.within(0, r, 1),
            kept=monotone(p * e, x, [zero, p]),
            added=monotone(q * r, y, [zero, q]),
            half_way=z3.Implies(x + y < 1 + v, z <= one),
            sign=z3.Implies(x + y >= 0, z >= 0),
        )
    for beta in (0.0, 0.1, 0.5, 0.9, 0.99, 0.9999, 1 - 2**-20):
        for number in (np.float32, np.float64):
            pole = number(beta)
            gain = number(1.0 - beta)
            top = number(1)
            for _ in range(100):
                top = pole * top + gain * number(1)
            proof.exact(
                f"{number.__name__}, beta = {beta}: 1 stays at most 1", top <= 1, {"beta": beta}
            )
    return proof.done()


@theorem(
    "ROUND-range",
    "For two tasks the float32 and float64 weights are in the exact range of each floor widened "
    "by 4 ulp; project and affine keep the lower end, the float m, exactly.",
    given=[
        "K = 2",
        "averages in [0, 1] (ROUND-unit), whatever their sum",
        "0 < m < 1/2",
        "ulp(x) >= u x; ulp(x) >= u for x >= 1/2",
    ],
    method="rounding",
    source=SOURCE,
    mutants={"no widening": {"ulps": 0}, "averages up to 1 + 8 eps": {"top": 16}},
)
def weights_stay_in_range(ulps=4, top=0):
    proof = Derivation()
    for dtype, u in UNIT_ROUNDOFF.items():
        v, wide = smt.value(u), smt.value(ulps * u)
        e1, e2, m, n, d1, d2 = smt.reals("ema_1 ema_2 m fl_m d_1 d_2")
        most = smt.value(1 + top * u)
        given = {
            "average": z3.And(smt.within(0, e1, most), smt.within(0, e2, most)),
            "floor": z3.And(m > 0, 2 * m < 1, smt.within(-v * m, n - m, v * m), n <= 1),
            "roundings": z3.And(smt.within(-v, d1, v), smt.within(-v, d2, v)),
        }
        x, y = smt.largest(e1, n), smt.largest(e2, n)
        w = x / ((x + y) * (1 + d1)) * (1 + d2)
        proof.holds(
            f"{dtype}, renormalise: w >= L - {ulps} ulp, L = m/(1+m)",
            w >= m / (1 + m) * (1 - wide),
            **given,
        )
        proof.holds(
            f"{dtype}, renormalise: w <= U + {ulps} ulp, U = 1/(1+m)",
            w <= 1 / (1 + m) * (1 + wide),
            **given,
        )
        _affine(proof, dtype, v, wide)
        _project(proof, dtype, v, wide, most)
    return proof.done()


def _affine(proof, dtype, v, wide):
    m, n, s, q, r, w, d1, d2 = smt.reals("m fl_m slope fl_share product fl_w d_1 d_2")
    zero = smt.value(0)
    given = {
        "floor": z3.And(m > 0, 2 * m < 1, smt.within(-v * m, n - m, v * m), 2 * n <= 1),
        "slope": z3.And(s >= 0, s <= (1 - 2 * n) * (1 + v)),
        "share (monotone: at most 1)": smt.within(0, q, 1),
        "product": z3.And(r >= 0, r <= s * q * (1 + d1)),
        "roundings": z3.And(smt.within(-v, d1, v), smt.within(-v, d2, v)),
    }
    proof.holds(
        f"{dtype}, affine: w >= fl(m)",
        w >= n,
        rounding=monotone(n + r, w, [zero, n]),
        product=r >= 0,
    )
    proof.holds(f"{dtype}, affine: w <= 1 - m + 4 ulp", (n + r) * (1 + d2) <= 1 - m + wide, **given)


def _project(proof, dtype, v, wide, most):
    """floor + max(excess - threshold, 0), each operation within u/2 (results below 1) or u."""
    e1, e2, m, n = smt.reals("ema_1 ema_2 m fl_m")
    x1, x2, budget, t1, t2, total, w = smt.reals("x_1 x_2 budget t_1 t_2 total w_1")
    half = v / 2

    def near(value, exact, by):
        return smt.within(-by, value - exact, by)

    given = {
        "average": z3.And(smt.within(0, e2, e1), e1 <= most),
        "floor": z3.And(m > 0, 2 * m < 1, near(n, m, half / 2)),
        "excess": z3.And(near(x1, e1 - n, half), near(x2, e2 - n, half)),
        "budget": near(budget, 1 - 2 * n, half),
        "thresholds": z3.And(
            near(t1, x1 - budget, half),
            # The averages need not sum to 1, so this sum can be above it.
            near(total, x1 + x2, v),
            near(2 * t2, total - budget, v),
        ),
    }
    zero = smt.value(0)
    kept, added = smt.reals("kept fl_w")
    proof.holds(
        f"{dtype}, project: w >= fl(m)",
        added >= n,
        kept=kept >= 0,
        rounding=monotone(n + kept, added, [zero, n]),
    )
    # The larger task keeps x_1 - t of the last active threshold; the second is active if x_2 > t_2.
    t = z3.If(x2 > t2, t2, t1)
    proof.holds(
        f"{dtype}, project: w <= 1 - m + 4 ulp",
        w <= 1 - m + wide,
        weight=w <= n + (x1 - t) + half + half,
        **given,
    )


@theorem(
    "ROUND-4ulp",
    "For every K the float64 weights stay within 4 ulp of the exact range.",
    given=["beta = 0.99, floor 0.001, renormalise, complement law, guard hold"],
    method="exact",
    expect="refuted",
    source="derivation",
    mutants={"two tasks": {"cases": ((2, (0, 1), 3300), (2, (2, 5), 3300))}},
)
def four_ulp_for_every_k(cases=((3, (0, 2, 5), 3227), (4, (0, 1, 1, 5), 3276))):
    proof = Derivation()
    for tasks, reading, steps in cases:
        controller = Controller(GabaSpec(tasks, floor=0.001, warmup=0))
        for _ in range(steps):
            weights = controller.observe(reading)
        m = Fraction(0.001)
        share = Fraction(1, tasks - 1)
        top = min(share, 1 / (1 + (tasks - 1) ** 2 * m))
        excess = (Fraction(float(weights[0])) - top) / ulp(float(top))
        proof.exact(
            f"K = {tasks}, g = {reading}, {steps} readings: {float(excess):.1f} ulp above the "
            "upper end",
            excess <= 4,
            {
                "K": tasks,
                "g": reading,
                "readings": steps,
                "w_1 over the end, in ulp": f"{float(excess):.1f}",
            },
        )
        if excess > 4:
            proof.replayed(
                (f"Controller, float64: w_1 = {float(weights[0])!r}, end {float(top)!r}",)
            )
    return proof.done()


@theorem(
    "ROUND-weights",
    "For every K = 2..8 the float weights (renormalise) are within (K + 2) k eps of the exact "
    "ones, so within that of the exact range.",
    given=[
        "averages within E = k eps, k >= 2 (ROUND-average)",
        "exact sum of the kept averages >= 1",
    ],
    method="rounding",
    source=SOURCE,
    mutants={"within k eps": {"times": 1}},
)
def weights_stay_close(times=None):
    proof = Derivation()
    x, y, t, r, e, f = smt.reals("kept fl_kept total fl_total E F")
    proof.holds(
        "abs(fl_kept total - kept fl_total) <= (E + F) total",
        smt.within(-(e + f) * t, y * t - x * r, (e + f) * t),
        kept=z3.And(x >= 0, x <= t, smt.within(-e, y - x, e)),
        total=smt.within(-f, r - t, f),
        signs=z3.And(e >= 0, f >= 0),
    )
    proof.argue("divided by total and fl_total: abs(q - w) fl_total <= E + F")
    w, q, d = smt.reals("w q d")
    u = smt.value(UNIT_ROUNDOFF["float32"])
    for tasks in range(2, 9):
        allowed = (tasks + 2 if times is None else times) * e
        proof.holds(
            f"K = {tasks}: fl(q) is within {tasks + 2} E of w",
            smt.within(-allowed, q * (1 + d) - w, allowed),
            quotient=z3.And(
                smt.within(-(e + f), (q - w) * r, e + f), r >= 1 - f, smt.within(0, w, 1)
            ),
            error=z3.And(e >= 4 * u, e <= smt.value(Fraction(1, 1000)), f == tasks * e),
            division=smt.within(-u, d, u),
        )
    return proof.done()


if __name__ == "__main__":
    raise SystemExit(main(__file__))
