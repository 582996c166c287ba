"""Readings that cannot be used: what they do to the published average, and what the guard keeps."""

import itertools
import math
from fractions import Fraction

import numpy as np
import z3

from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.law.stages import raw_weights, usable
from gabactl.proving import Outcome, main, replay, smt, theorem
from gabactl.proving.rounding import UNIT_ROUNDOFF, monotone
from gabactl.proving.symbolic import Derivation

#: Floats at the edges: zero, the smallest and largest, the published 1e-12, and no numbers.
EDGES = (0.0, 5e-324, 1e-300, 1e-12, 1.0, 1e154, 1e300, 1.7e308, math.inf, math.nan)


@theorem(
    "C15",
    "The average never becomes NaN, whatever floats the norms are.",
    given=["published settings", "float64 (the module: float32)"],
    method="exact",
    expect="refuted",
    source="GABA textbook, section 17.4",
    mutants={"guard hold": {"guard": "hold"}},
)
def published_average_never_nan(guard="none", module=False):
    proof = Derivation()
    for k in (2, 3):
        for law in CHOICES["law"]:
            readings = list(itertools.product(EDGES, repeat=k))
            bad = [
                g
                for g in readings
                if not np.isfinite(
                    _after(g, GabaSpec(k, 0.99, warmup=0, guard=guard, law=law))
                ).all()
            ]
            # The most telling first: finite norms whose sum is not.
            bad.sort(key=lambda g: not np.isfinite(g).all())
            proof.exact(
                f"K = {k}, {law} law: {len(readings)} readings of edge values",
                not bad,
                {"K": k, "law": law, "g": bad[0] if bad else "", "ema": "NaN for ever"},
            )
    if guard == "none":
        lines = []
        for g in ((1.7e308, 1.7e308), (math.nan, 1.0)):
            ema = _after(g, GabaSpec.published(warmup=0))
            if not np.isnan(ema).all():
                return Outcome("unknown", reason=f"Controller does not show it at {g}")
            lines.append(f"Controller, float64: g = {g}, then (1, 1): ema {ema.tolist()}")
        weights = (
            replay.through_loss(GabaSpec.published(warmup=0), [[3 * 10**19, 1], [1, 1]])
            if module
            else None
        )
        if weights is not None:
            if not np.isnan(weights).all():
                return Outcome("unknown", reason="GABALoss does not show it")
            lines.append("GABALoss, float32: norm 3e19, then (1, 1): weights NaN")
        elif module:
            lines.append("GABALoss: not run (torch is not installed)")
        proof.replayed(tuple(lines))
        return proof.done()
    proof.include("every float", _held_average_in_unit_interval())
    return proof.done()


def _after(reading, spec):
    controller = Controller(spec)
    controller.observe(reading)
    controller.observe([1.0] * spec.n_tasks)
    return controller.ema_weights


def _held_average_in_unit_interval(stale=False, least=0):
    """Every rounded operation, by monotone rounding to nearest; u = 2^-53."""
    u = smt.value(UNIT_ROUNDOFF["float64"])
    proof = Derivation()
    part, g, total = smt.reals("partial g_i fl_sum")
    proof.holds(
        "a rounded sum is at least each summand (partial sums by induction)",
        z3.And(total >= part, total >= g),
        rounding=monotone(part + g, total, [part, g]),
        signs=z3.And(part >= 0, g >= 0),
    )
    s, d, q = smt.reals("S fl_difference fl_quotient")
    above = s > 0 if stale else z3.And(s > 0, s >= g)
    proof.holds(
        "0 <= fl(S - g_i) <= S",
        smt.within(0, d, s),
        sum=above,
        norm=g >= 0,
        rounding=monotone(s - g, d, [smt.value(0), s]),
    )
    proof.holds(
        "0 <= fl(d/S) <= 1",
        smt.within(0, q, 1),
        difference=smt.within(0, d, s),
        sum=s > 0,
        rounding=monotone(d / s, q, [smt.value(0), smt.value(1)]),
    )
    k, r = smt.reals("K fl_raw")
    proof.holds(
        "0 <= fl(q/(K-1)) <= 1",
        smt.within(0, r, 1),
        quotient=smt.within(0, q, 1),
        tasks=k >= 2,
        rounding=monotone(q / (k - 1), r, [smt.value(0), smt.value(1)]),
    )
    b, c, e, x, y, z = smt.reals("beta fl_gain ema fl_kept fl_added fl_ema")
    proof.holds(
        "fl(1 - beta) is within u/2 of it, so beta + fl(1 - beta) <= 1 + u",
        b + c <= 1 + u,
        gain=smt.within(-u / 2, c - (1 - b), u / 2),
    )
    proof.holds(
        "0 <= fl(fl(beta e) + fl(c raw)) <= 1",
        smt.within(0, z, 1),
        pole=smt.within(least, b, 1),
        gain=z3.And(c >= 0, b + c <= 1 + u),
        average=smt.within(0, e, 1),
        raw=smt.within(0, r, 1),
        kept=monotone(b * e, x, [smt.value(0), b]),
        added=monotone(c * r, y, [smt.value(0), c]),
        # 1 + u lies half way between 1 and the next float and goes to the even 1.
        sum=z3.And(z3.Implies(x + y <= 1 + u, z <= 1), z3.Implies(x + y >= 0, z >= 0)),
    )
    return proof.done()


@theorem(
    "C15-hold",
    "With guard hold, every usable float reading keeps the average finite and in [0, 1], for "
    "every K.",
    given=[
        "complement law",
        "usable: norms finite, their rounded sum finite and positive",
        "rounding to nearest is monotone and leaves floats alone (IEEE 754)",
    ],
    method="rounding",
    source="derivation",
    mutants={"the sum of an earlier reading": {"stale": True}, "a negative pole": {"least": -1}},
)
def held_average_is_finite(stale=False, least=0):
    return _held_average_in_unit_interval(stale, least)


@theorem(
    "C15-usable",
    "The guard lets through just the readings with finite norms and a finite positive sum "
    "(inverse law: and no zero), and then the raw weights are finite and in [0, 1].",
    given=["all readings of edge values, K = 2, 3"],
    method="exact",
    source="gabactl.law.stages",
    mutants={"guard none": {"guard": "none"}},
)
def guard_lets_through(guard="hold"):
    proof = Derivation()
    for k in (2, 3):
        readings = np.array(list(itertools.product(EDGES, repeat=k)))
        for law in CHOICES["law"]:
            want = np.isfinite(readings).all(axis=1)
            with np.errstate(all="ignore"):
                total = readings.sum(axis=1)
            want &= np.isfinite(total) & (total > 0)
            if law == "inverse":
                want &= (readings > 0).all(axis=1)
            raw = raw_weights(readings, law, guard)
            passed = usable(readings, law) if guard == "hold" else np.ones(len(readings), bool)
            good = ((raw >= 0) & (raw <= 1)).all(axis=1)
            proof.exact(
                f"K = {k}, {law} law: {len(readings)} readings, {int(want.sum())} usable",
                np.array_equal(passed, want) and bool(good[passed].all()),
                {"K": k, "law": law, "reading": readings[passed & ~good][:1].tolist()},
            )
    return proof.done()


@theorem(
    "C16",
    "A reading of zeros leaves the average on the simplex.",
    given=["K = 2..8", "published settings"],
    method="exact",
    expect="refuted",
    source="GABA textbook, section 17.4",
    mutants={"guard hold": {"guard": "hold"}},
)
def zeros_are_harmless(guard="none"):
    proof = Derivation()
    beta = Fraction(99, 100)
    if guard == "hold":
        for k in range(2, 9):
            controller = Controller(GabaSpec(k, warmup=0, guard="hold"))
            controller.observe(np.arange(1.0, k + 1))
            before = controller.ema_weights.copy()
            controller.observe([0.0] * k)
            proof.exact(
                f"K = {k}: held",
                np.array_equal(before, controller.ema_weights) and not usable([0.0] * k),
            )
        return proof.done()
    for k in range(2, 9):
        run = replay.exact([[0] * k], beta=beta, floor=Fraction(1, 20), guard="none")
        proof.exact(
            f"K = {k}: sum of the average",
            sum(run[-1].ema) == 1,
            {
                "K": k,
                "g": "all 0",
                "raw_i": f"1/{k - 1}" if k > 2 else "1",
                "sum of ema": sum(run[-1].ema),
            },
        )
    controller = Controller(GabaSpec.published(warmup=0))
    for _ in range(3000):
        weights = controller.observe([0.0, 0.0])
    proof.replayed(
        (
            f"Controller, float64, 3000 readings of (0, 0): ema "
            f"{controller.ema_weights.round(6).tolist()}, weights {weights.tolist()}",
        )
    )
    return proof.done()


@theorem(
    "GUARD-agrees",
    "The guarded raw weights are within 1e-12/S of the published ones.",
    given=["K >= 2", "0 <= g_i <= S", "S > 0", "exact arithmetic"],
    method="SMT",
    source="derivation",
    mutants={"within 1e-13/S": {"bound": Fraction(1, 10**13)}},
)
def guard_agrees_with_published(bound=Fraction(1, 10**12)):
    k, g, s = smt.reals("K g S")
    t = s + smt.value(Fraction(1, 10**12))
    gap = (t - g) / ((k - 1) * t) - (s - g) / ((k - 1) * s)
    return smt.decide(
        smt.within(0, gap * s, smt.value(bound)), tasks=k >= 2, norm=smt.within(0, g, s), sum=s > 0
    )


if __name__ == "__main__":
    raise SystemExit(main(__file__))
