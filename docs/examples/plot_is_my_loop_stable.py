r"""
Is my loop stable?
==================

GABA is open-loop until the weights change the gradients they are computed from. How they do is a
property of the training, the *plant*: here the log-ratio plant

.. math:: y = P(z)\,u + d, \qquad P(z) = \frac{-\rho\,(1-a)\,z^{-(1+\text{delay})}}{1 - a z^{-1}},

with :math:`y = \log(g_1/g_2)` the imbalance and :math:`u = \log(w_1/w_2)` the weights. A positive
:math:`\rho` (weight trains its task's gradient down) is positive feedback; a negative one is
negative feedback. Never assume it: identify it from your own training.
"""

import matplotlib.pyplot as plt
import numpy as np

from gabactl import (
    GabaSpec,
    LogRatio,
    confirm_witnesses,
    equilibria,
    frequency_response,
    margins,
    open_loop,
    root_locus,
    step_response,
)
from gabactl.base import plots
from gabactl.control.nonlinear import simulate_log_ratio

spec = GabaSpec()

# %%
# The margins
# -----------
# Weak negative feedback, about what training of a small network showed, with a lag of ten steps:

loop = open_loop(spec, LogRatio(rho=-0.2, a=0.9))
print(margins(loop))

# %%
# That loop cannot be brought to oscillate by any realistic error. A stronger and later plant is
# more telling:

loop = open_loop(spec, LogRatio(rho=-20.0, delay=5))
result = margins(loop)
print(result)

# %%
# Every margin has a witness: the perturbation that takes stability away. Applied a thousandth
# smaller the loop is stable, a thousandth larger it is not.

print(confirm_witnesses(loop, result))

# %%
# The pictures
# ------------
# The Nyquist curve runs over the whole circle, from z = 1 to z = -1; with a short delay the critical
# crossing *is* z = -1, which a grid that ends early never sees.

with plots.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    frequency_response(loop).plot_nyquist(left)
    root_locus(spec, LogRatio(rho=-1.0, delay=5)).plot(right)

# %%
# And the answer to a lasting step of the imbalance: the weights settle, and the contributions
# :math:`w_1 g_1` and :math:`w_2 g_2` become equal (q returns to 0), while the share of the
# gradient norms never returns to one half. It is not what the loop controls.

response = step_response(loop, steps=200)
print(response)
with plots.style():
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    response.plot(ax)

# %%
# How strong may the feedback be?
# -------------------------------
# Without extra delay the loop is stable for
# :math:`-\frac{(1+a)(1+\beta)}{(1-a)(1-\beta)} < \rho < 1`; every step of delay costs range.

print(f"{'delay':>6} {'stable for rho from':>20} {'to':>4}")
for delay in (0, 1, 5, 50):
    ((low, high),) = root_locus(spec, LogRatio(0.0, delay=delay)).stable_ranges
    print(f"{delay:>6} {low:>20.2f} {high:>4.2f}")

# %%
# Beyond the linear loop
# ----------------------
# At :math:`\rho = 1` any weights can stay: the loop is *neutral*, which is not stable. Above 1 the
# balance in the middle is unstable, and only the floor catches the weights, with one task starved.

for rho in (0.9, 1.0, 1.1):
    print(equilibria(spec, LogRatio(rho)), "\n")

# %%
# Simulated from three starts, with the balance points as dashed lines:

with plots.style():
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
    starts = np.array([0.3, 0.499, 0.6])
    for ax, rho in zip(axes, (0.9, 1.0, 1.1), strict=True):
        _, y = simulate_log_ratio(spec, LogRatio(rho), 0.0, starts, 6000)
        ax.plot(y)
        for point in equilibria(spec, LogRatio(rho)).points:
            ax.axhline(point.log_ratio, color="0.4", linestyle="--", linewidth=0.8)
        ax.set_title(f"ρ = {rho}")
        ax.set_xlabel("steps")
    axes[0].set_ylabel("imbalance y = log g₁/g₂")

plt.show()
