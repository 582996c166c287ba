r"""
1. The law, and what its floor guarantees
=========================================

Each step measures the gradient norm :math:`g_i` of every task on the shared parameters. Three
stages follow: the *raw* weights, their moving average (*ema*), and the floor that makes the applied
*weights*. With :math:`K` tasks and :math:`S=\sum_j g_j` the published, complementary law is

.. math:: r_i = \frac{S-g_i}{(K-1)\,S}.
"""

import matplotlib.pyplot as plt
import sympy as sp

from gabactl import GabaSpec, weight_bounds
from gabactl.law.stages import raw_weights

# %%
# A proportional controller
# -------------------------
# Take the share :math:`s_i=g_i/S`, its reference :math:`1/K` and the error :math:`e_i=1/K-s_i`. The
# law is then :math:`1/K + K_p e_i` with :math:`K_p = 1/(K-1)`, and the weights sum to 1:

g1, g2, K, S, gi = sp.symbols("g_1 g_2 K S g_i", positive=True)
raw = (S - gi) / ((K - 1) * S)
assert sp.simplify(raw - (1 / K + (1 / K - gi / S) / (K - 1))) == 0
# Summed over the tasks, sum g_i = S and there are K of them:
total = sp.simplify((K * S - S) / ((K - 1) * S))
print("sum of the raw weights:", total)
assert total == 1

# %%
# Two tasks are balanced, three are not
# -------------------------------------
# For :math:`K=2` the contributions :math:`w_i g_i` are equal whatever the norms:

two = [raw.subs({K: 2, S: g1 + g2, gi: g}) for g in (g1, g2)]
print("w_1 g_1 =", sp.simplify(two[0] * g1), "   w_2 g_2 =", sp.simplify(two[1] * g2))
assert sp.simplify(two[0] * g1 - two[1] * g2) == 0

# %%
# For more they are proportional to :math:`g_i (S-g_i)`, which is not constant. The norms (1, 2, 7):

norms = [1, 2, 7]
three = [raw.subs({K: 3, S: 10, gi: g}) for g in norms]
contributions = [float(w * g) for w, g in zip(three, norms, strict=True)]
print("weights", [float(w) for w in three], "contributions", contributions)
assert [round(float(w), 12) for w in raw_weights([1.0, 2.0, 7.0])] == [0.45, 0.4, 0.15]
assert max(contributions) > 2 * min(contributions)

# %%
# The floor
# ---------
# The average :math:`x` of one of two tasks is clamped at :math:`m`, and both are divided by their
# sum. The smallest weight arises at :math:`x=0`, the largest at :math:`x=1`:

m, x = sp.symbols("m x", positive=True)
weight = sp.Max(x, m) / (sp.Max(x, m) + sp.Max(1 - x, m))
# Max(1, m) is 1 for a floor below 1/2, and Max(0, m) is m.
lower, upper = (sp.simplify(weight.subs(x, end).subs(sp.Max(1, m), 1)) for end in (0, 1))
assert sp.simplify(lower - m / (1 + m)) == 0
assert sp.simplify(upper - 1 / (1 + m)) == 0
print("lowest", lower, "  highest", upper, "  at m = 1/20:", lower.subs(m, sp.Rational(1, 20)))
bounds = weight_bounds(GabaSpec())
assert abs(bounds.lower - 1 / 21) < 1e-15
assert abs(bounds.upper - 20 / 21) < 1e-15

# %%
# So the stated range [0.05, 0.95] is left on both sides: clamping pushes the sum above 1, and
# dividing takes the clamped weight below the floor again. ``floor_mode="project"`` keeps the promise.

print(weight_bounds(GabaSpec(floor_mode="project")))
_ = bounds.plot(plt.subplots(figsize=(7, 2.6), layout="constrained")[1])
