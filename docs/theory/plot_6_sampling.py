r"""
6. Reading the norms less often
===============================

A reading costs a backward pass per task. With one every :math:`N` steps, the average takes the pole
:math:`\beta^N` at each: ``interval=N``.
"""

import matplotlib.pyplot as plt
import sympy as sp

from gabactl import GabaSpec, sampling_trade

b, N = sp.symbols("beta N", positive=True)

# %%
# The pace is kept: after :math:`n` readings the memory has faded by :math:`\beta^{nN}`, as it would
# have in :math:`nN` steps. But there are fewer readings to average over, so more noise comes through:

pole = b**N
noise = (1 - pole) / (1 + pole)
print("noise power:", noise)

# %%
# The lag behind a slow ramp is that of the filter, in steps, plus half the steps for which a weight is
# held:

lag = N * pole / (1 - pole) + (N - 1) / 2
print("lag:", lag)
trade = sampling_trade(GabaSpec(), (1, 10, 50))
for n in (1, 10, 50):
    at = {b: sp.Rational(99, 100), N: n}
    print(f"N = {n:2}: noise x {float(noise.subs(at)):.4f}, lag {float(lag.subs(at)):.2f} steps")
assert [round(float(lag.subs({b: sp.Rational(99, 100), N: n})), 2) for n in (1, 10, 50)] == [
    99.0,
    99.08,
    101.08,
]
print(trade)

# %%
# Ten times fewer readings mean ten times the noise power, and next to no lag. As long as that noise is
# far below what matters, sample.

_ = sampling_trade(GabaSpec()).plot(plt.subplots(figsize=(7, 3.6), layout="constrained")[1])
