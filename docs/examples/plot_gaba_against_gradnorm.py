r"""
GABA against GradNorm
=====================

Seen as controllers, the two could hardly differ more: GABA feeds a measured disturbance forward
through a low-pass, GradNorm moves each weight by a relay whose step grows with the gradient norm.
"""

import matplotlib.pyplot as plt

from gabactl import GabaSpec, compare, published_disturbance
from gabactl.balancers import GradNorm
from gabactl.loops.profiles import levels

# %%
# A mild imbalance
# ----------------
# At 4x and small norms GradNorm's step is a fraction of a weight. It balances, and chatters.

mild = levels([4, 2], [800, 800], quiet_norm=0.05).with_losses([20, 2], [10, 1], 800)
result = compare(
    {"GABA": GabaSpec(), "GradNorm": GradNorm(alpha=0.0), "fixed": "fixed"}, mild, noise=0.1
)
print(result)
_ = result.figure(plt.figure(figsize=(7, 8), layout="constrained"))

# %%
# The published imbalance
# -----------------------
# At 50x to 2,400x the relay step, learning rate times gradient norm, exceeds the weight itself: the
# weight of the loud task changes sign at nearly every step.

rules = {
    "GABA": GabaSpec(),
    "GABA, floor 1e-4": GabaSpec(floor=1e-4),
    "GradNorm": GradNorm(),
    "GradNorm, textbook": GradNorm("textbook"),
    "fixed": "fixed",
}
result = compare(rules, published_disturbance(), noise=0.35, seeds=range(4))
print(result)
_ = result.figure(plt.figure(figsize=(7, 8), layout="constrained"))

# %%
# How large may the step be? One update moves a weight by ``lr * a * g``:

for norm in (25.0, 250.0, 1200.0):
    print(f"gradient norm {norm:6.0f}: step {GradNorm().relay_step([norm, 0.5])[0]:.3f}")
