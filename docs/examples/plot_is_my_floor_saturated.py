r"""
Is my floor saturated?
======================

The floor :math:`m` bounds how far the weights can follow an imbalance :math:`R = g_1/g_2`. Past the
knee at :math:`(1-m)/m` the loop is open: the weights stand still whatever the gradients do.
"""

import matplotlib.pyplot as plt
import numpy as np

from gabactl import Controller, GabaSpec, authority, required_floor, weight_bounds
from gabactl.base import plots
from gabactl.law.authority import dead_time, residual_ratio

# %%
# The published setting in its own regime
# ---------------------------------------
# The literature reports imbalances of 50 to 2,400. With :math:`m = 0.05` the knee is at 19:

print(authority(GabaSpec()))

# %%
# So from 50x to 2,400x the settled weights differ by less than 0.001, and the louder task still
# contributes 2.5 to 120 times more. What the floor costs over the imbalance, for four floors:

ratios = np.geomspace(1, 1e4, 300)
with plots.style():
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    ax.loglog(ratios, ratios, color="0.6", linestyle="--", label="equal weights")
    for floor in (0.05, 0.01, 0.001, 1e-4):
        ax.loglog(ratios, residual_ratio(GabaSpec(floor=floor), ratios), label=f"floor {floor:g}")
    ax.axvspan(50, 2400, color=plots.PALETTE[4], alpha=0.15, linewidth=0)
    ax.annotate("published regime", (347, 4000), ha="center")
    ax.set_xlabel("imbalance g₁/g₂")
    ax.set_ylabel("residual w₁g₁ / w₂g₂")
    ax.legend(loc="upper left")

# %%
# The floor that leaves the loop its authority is :math:`1/(1+R)`:

for ratio in (50, 500, 2400):
    print(f"{ratio:>5}x needs a floor <= {float(required_floor(ratio)):.2e}")

# %%
# Before lowering it: an imbalance of hundreds is mostly a matter of units. Dividing the targets of
# a regression loss by their range changes it more than any controller can.
#
# What the floor really guarantees
# --------------------------------
# Clamping and then renormalising does not keep :math:`w_i \ge m`; the other modes do.

for mode in ("renormalise", "affine", "project", "clamp_state"):
    bounds = weight_bounds(GabaSpec(floor_mode=mode))
    says = "keeps" if bounds.lower_holds else "breaks"
    print(
        f"{mode:>12}: [{bounds.lower:.6f}, {bounds.upper:.6f}] {says} the stated lower bound 0.05"
    )

# %%
# Is it anti-windup?
# ------------------
# No: the *output* is clamped and the stored average is not, so after a long saturation the average
# has to climb back before the weight moves. When the imbalance vanishes:

for mode in ("renormalise", "clamp_state"):
    spec = GabaSpec(floor_mode=mode)
    print(f"{mode:>12}: dead time {dead_time(spec, 0.002, 0.1):.0f} steps")

# %%
# The same, simulated: 500x for 600 steps, then 9x (a raw weight of 0.1).

norms = np.concatenate([np.full(600, 500.0), np.full(400, 9.0)])
with plots.style():
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for mode in ("renormalise", "clamp_state"):
        controller = Controller(GabaSpec(floor_mode=mode, warmup=0))
        weights = [controller.observe([g, 1.0])[0] for g in norms]
        ax.plot(weights, label=mode)
    ax.axvline(600, color="0.4", linestyle=":", label="imbalance falls to 9x")
    ax.set_xlim(500, 1000)
    ax.set_ylim(0.04, 0.105)
    ax.set_xlabel("steps")
    ax.set_ylabel("weight of the loud task")
    ax.legend()

plt.show()
