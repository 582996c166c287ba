r"""
2. The moving average is a low-pass filter
==========================================

The average follows :math:`x_t=\beta x_{t-1}+(1-\beta)\,r_t`. In the z-domain that is

.. math:: F(z)=\frac{1-\beta}{1-\beta z^{-1}},

a first-order low-pass: the reading of a step acts at that step.
"""

import matplotlib.pyplot as plt
import sympy as sp

from gabactl import GabaSpec, filter_facts

# %%
# From the recurrence to the step response
# ----------------------------------------

n = sp.symbols("n", integer=True, nonnegative=True)
b, c, x0 = sp.symbols("beta c x_0", positive=True)
x = sp.Function("x")
solution = sp.rsolve(x(n + 1) - b * x(n) - (1 - b) * c, x(n), {x(0): x0})
print("x_n =", sp.simplify(solution))
assert sp.simplify(solution - (c + (x0 - c) * b**n)) == 0

# %%
# The distance to the target shrinks by :math:`\beta` a step: a time constant of
# :math:`-1/\ln\beta`, 99.499 steps for 0.99. The "100 steps" of the literature is the approximation
# :math:`1/(1-\beta)`. From 1/2 towards 0 the average passes the floor of 0.05 after 230 readings:

facts = filter_facts(GabaSpec())
exact = sp.Rational(99, 100)
assert abs(facts.time_constant_steps - float(-1 / sp.log(exact))) < 1e-9
passed = sp.log(sp.Rational(1, 10)) / sp.log(exact)
print("time constant", facts.time_constant_steps, "  below 0.05 after", float(passed))
assert 229 < passed < 230

# %%
# White noise, and the highest frequency
# --------------------------------------
# Power gain for white noise is the sum of the squared impulse response, and the amplitude at
# :math:`z=-1` is that for a reading that alternates. Both are the same fraction, squared or not:

k = sp.symbols("k", integer=True, nonnegative=True)
beta = sp.symbols("b", positive=True)
power = sp.simplify((1 - beta) ** 2 / (1 - beta**2))  # the geometric series of beta**(2 k)
partial = sp.summation(((1 - exact) * exact**k) ** 2, (k, 0, sp.oo))
assert sp.simplify(power - (1 - beta) / (1 + beta)) == 0
assert partial == power.subs(beta, exact) == sp.Rational(1, 199)
print("white noise:", partial, "in power,", facts.noise_power_gain_db, "dB")
assert abs(facts.noise_power_gain - 1 / 199) < 1e-15

# %%
# That is -22.99 dB. The "30 dB and more" of the literature holds above 0.32 rad/step only, and
# -45.98 dB at the very end. The price is the lag behind a slow ramp, the group delay at 0:

w = sp.symbols("omega", real=True)
phase = sp.atan2(-beta * sp.sin(w), 1 - beta * sp.cos(w))
delay = sp.simplify(-sp.diff(phase, w).subs(w, 0))
print("lag:", delay, "=", delay.subs(beta, exact), "steps")
assert sp.simplify(delay - beta / (1 - beta)) == 0
assert abs(facts.group_delay_dc_steps - 99) < 1e-9

_ = facts.plot(plt.subplots(figsize=(7, 3.6), layout="constrained")[1])
