r"""
What does GABA do about a disturbance?
======================================

The literature reports an imbalance :math:`g_1/g_2` that starts near 50, peaks near 2,400 and ends
at 500. Here it comes as three levels, and the loop answers each of them with a step response.
"""

import matplotlib.pyplot as plt
import numpy as np

from gabactl import GabaSpec, published_disturbance, simulate
from gabactl.loops.profiles import levels, ramp

# %%
# The published setting
# ---------------------

result = simulate(GabaSpec(), published_disturbance())
print(result)
_ = result.figure(plt.figure(figsize=(7, 8), layout="constrained"))

# %%
# The weights settle within 390 updates, and at values that hardly differ: the floor holds them. The
# contributions (bottom) keep whatever the floor leaves of the imbalance, m (1 + R).
#
# A floor with room for the disturbance
# -------------------------------------

low = simulate(GabaSpec(floor=1e-4), published_disturbance())
print(low)
_ = low.plot(plt.subplots(figsize=(7, 4), layout="constrained")[1], what="contributions")

# %%
# Coming back from saturation
# ---------------------------
# While the floor holds the weight, the stored average falls on. When the imbalance ends, it has to
# climb back before any weight moves; a clamped state has no such dead time.

profile = levels([500, 4], [1500, 900])
for floor_mode in ("renormalise", "clamp_state"):
    response = simulate(GabaSpec(floor_mode=floor_mode), profile).responses[1]
    print(f"{floor_mode:12} settles after {response.settling_weights} updates")

# %%
# A ramp, and noise
# -----------------
# A slow ramp of the log ratio leaves about 99 steps' worth of it uncorrected. White noise on the
# readings reaches the weights through the average, 23 dB down in power.

noisy = simulate(GabaSpec(), ramp(1, 10, 1000, before=300, after=700), noise=0.35, seed=1)
residual = np.log(noisy.contributions[1290:1300, 0] / noisy.contributions[1290:1300, 1]).mean()
print(
    f"log contribution ratio at the end of the ramp: {residual:.2f} (slope {np.log(10) / 1000:.4f})"
)
_ = noisy.plot(plt.subplots(figsize=(7, 4), layout="constrained")[1])
