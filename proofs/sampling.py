"""A sensor read every N steps and held between: what it costs."""

from fractions import Fraction

import numpy as np
import sympy as sp

from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import smooth
from gabactl.proving import main, theorem
from gabactl.proving.symbolic import Derivation

BETA = sp.Symbol("beta", positive=True)
N, J = sp.symbols("N j", integer=True, positive=True)
BETA_PUBLISHED = Fraction(99, 100)


@theorem(
    "SAMPLE-pole",
    "A reading every N steps that enters with pole beta^N gives at the readings what N steps of "
    "the published average give on the held raw weight.",
    given=["0 < beta < 1", "N >= 1", "raw held between readings"],
    source="derivation",
    mutants={"pole beta at every reading": {"pole": BETA}},
)
def sampled_pole(pole=BETA**N):
    e, r = sp.symbols("e raw")
    proof = Derivation()

    def held(n):
        return BETA**n * e + (1 - BETA**n) * r

    proof.equal("no step", held(0), e)
    proof.equal("one step more", BETA * held(J) + (1 - BETA) * r, held(J + 1))
    proof.equal("N steps", held(N), pole * e + (1 - pole) * r)
    start, raw = (
        np.array(v, dtype=object) for v in ([Fraction(1, 2)] * 2, [Fraction(1, 5), Fraction(4, 5)])
    )
    for n in (1, 3, 10):
        steps = start
        for _ in range(n):
            steps = smooth(steps, raw, BETA_PUBLISHED)
        proof.exact(
            f"stage function smooth, N = {n}",
            (steps == smooth(start, raw, BETA_PUBLISHED, n)).all(),
        )
    return proof.done()


@theorem(
    "SAMPLE-noise",
    "Read every N steps, white noise of the readings enters with power (1-beta^N)/(1+beta^N): "
    "1/199 at N = 1, 0.0502 at N = 10 (beta = 0.99).",
    given=["independent noise of equal variance at the readings"],
    source="derivation: variance v = p^2 v + (1-p)^2, p = beta^N",
    mutants={"noise gain of N = 1 kept": {"pole": BETA}},
)
def sampled_noise(pole=BETA**N):
    v = sp.Symbol("v", positive=True)
    proof = Derivation()
    p = BETA**N
    (power,) = sp.solve(sp.Eq(v, pole**2 * v + (1 - pole) ** 2), v)
    proof.equal("stationary variance", power, (1 - p) / (1 + p))
    for n, low, high in ((1, "0.005025", "0.005026"), (10, "0.0502", "0.0503")):
        x = BETA_PUBLISHED**n
        gain = (1 - x) / (1 + x)
        proof.exact(f"N = {n}: {float(gain):.6f}", Fraction(low) <= gain <= Fraction(high))
    return proof.done()


@theorem(
    "SAMPLE-lag",
    "The average follows a ramp late by N p/(1-p) + (N-1)/2 steps, p = beta^N: 99.00, 99.08, "
    "101.08 at N = 1, 10, 50.",
    given=["raw weight v t at step t", "readings at j N, held, so on average (N-1)/2 steps older"],
    source="derivation",
    mutants={"without the hold": {"hold": 0}, "pole beta": {"pole": BETA}},
)
def sampled_lag(hold=1, pole=BETA**N):
    v = sp.Symbol("v", positive=True)
    proof = Derivation()
    p = BETA**N
    lag = N * p / (1 - p)

    def settled(j):
        return v * (N * j - lag)

    proof.equal(
        "settled ramp at the readings", pole * settled(J - 1) + (1 - pole) * v * N * J, settled(J)
    )
    i = sp.Symbol("i", integer=True)
    held = sp.summation(i, (i, 0, N - 1)) / N * hold
    proof.equal("mean age of a held value", held, (N - 1) / 2)
    for n, want in ((1, "99.00"), (10, "99.08"), (50, "101.08")):
        x = BETA_PUBLISHED**n
        total = n * x / (1 - x) + Fraction(n - 1, 2)
        proof.exact(f"N = {n}: {want} steps", f"{float(total):.2f}" == want, {"lag": float(total)})
    return proof.done()


@theorem(
    "SAMPLE-steps",
    "Readings are taken at steps W + 1, W + 1 + N, W + 1 + 2N, ... and at no other.",
    given=["W = 0, 3", "N = 1, 2, 5", "30 steps"],
    method="exact",
    source="derivation",
    mutants={"at steps W + N, W + 2N, ...": {"first": 0}},
)
def reading_steps(first=1):
    proof = Derivation()
    for warmup in (0, 3):
        for n in (1, 2, 5):
            controller = Controller(GabaSpec(warmup=warmup, interval=n))
            taken = []
            for t in range(1, 31):
                before = controller.ema_weights.copy()
                controller.observe([float(t), 1.0 / t])
                if t == 1 or not np.array_equal(before, controller.ema_weights):
                    taken.append(t)
            start = warmup + 1 if first else warmup + n
            want = list(range(start, 31, n))
            # The first reading at t = 1 is of equal norms and moves nothing.
            proof.exact(
                f"W = {warmup}, N = {n}",
                [t for t in taken if t > warmup] == want,
                {"W": warmup, "N": n, "readings": taken},
            )
    return proof.done()


if __name__ == "__main__":
    raise SystemExit(main(__file__))
