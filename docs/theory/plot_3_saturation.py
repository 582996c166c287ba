r"""
3. Saturation and authority
===========================

For two tasks the right coordinates are logarithms: the imbalance :math:`y=\ln(g_1/g_2)`, the
actuation :math:`u=\ln(w_1/w_2)` and what is left of the imbalance, :math:`q=y+u`.
"""

import matplotlib.pyplot as plt
import sympy as sp

from gabactl import GabaSpec, authority, required_floor, settled_weights
from gabactl.law.authority import dead_time

# %%
# Without a floor the settled weights undo the imbalance exactly, :math:`u=-y`. With it they cannot
# go beyond the knee, where the settled average :math:`1/(1+R)` reaches the floor:

R, m = sp.symbols("R m", positive=True)
knee = sp.solve(sp.Eq(1 / (1 + R), m), R)[0]
print("knee at R =", sp.simplify(knee), "=", knee.subs(m, sp.Rational(1, 20)), "for m = 0.05")
assert knee.subs(m, sp.Rational(1, 20)) == 19

# %%
# Past the knee the loud task's average is clamped to :math:`m`, the other one is :math:`R/(1+R)`,
# and the contributions stay :math:`m(1+R)` to 1 apart:

w1 = m / (m + R / (1 + R))
left = sp.simplify(R * w1 / (1 - w1))
print("residual ratio:", left)
assert sp.simplify(left - m * (1 + R)) == 0
spec = GabaSpec()
for ratio in (50, 500, 2400):
    by_formula = float(left.subs({m: sp.Rational(1, 20), R: ratio}))
    weights = settled_weights(spec, float(ratio))
    assert abs(ratio * weights[0] / weights[1] - by_formula) < 1e-9 * by_formula
    print(f"{ratio:>5}x: weight {weights[0]:.5f}, contributions {by_formula:.2f} to 1")

# %%
# Between 50x and 2,400x, the range that the literature reports, the weights differ by less than
# 0.001: they are constants, and the loop is open. Authority over a ratio R takes a floor of
# :math:`1/(1+R)`, 4.2e-4 for 2,400.

print("floor for 2,400x:", float(required_floor(2400.0)))
assert abs(float(required_floor(2400.0)) - 1 / 2401) < 1e-15

# %%
# Dead time
# ---------
# The stored average is not clamped. It goes on falling to some :math:`\epsilon`, and when the
# imbalance ends it has to climb back to the floor, in whole readings, before any weight moves:

eps, c, b, n = sp.symbols("epsilon c beta n", positive=True)
steps = sp.solve(sp.Eq(c + (eps - c) * b**n, m), n)[0]
numbers = {eps: 0.002, c: 0.5, b: 0.99, m: 0.05}
print("dead time", sp.simplify(steps), "=", float(steps.subs(numbers)), "steps")
assert dead_time(spec, 0.002, 0.5) == int(sp.ceiling(steps.subs(numbers))) == 11
_ = authority(spec).plot(plt.subplots(figsize=(7, 4), layout="constrained")[1])
