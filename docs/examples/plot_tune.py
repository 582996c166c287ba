r"""
Which settings should I use?
============================

Four things pull in different directions: noise in the weights asks for a long memory, drift of the
imbalance for a short one, authority over a large imbalance for a low floor, and cost for few
readings. ``gabactl tune`` puts numbers on each and says which one binds. First of all it says what a
constant factor on the loud loss would do, since that is worth more than any setting.
"""

import matplotlib.pyplot as plt

from gabactl import Workload, load_bundled, tune, workload_of
from gabactl.base import plots

# %%
# From a range of ratios
# ----------------------
# The imbalance that the literature reports, 50x to 2,400x, with noise of 0.5 nats per step:

found = tune(Workload(50.0, 2400.0, noise_std=0.5))
print(found)

# %%
# The published floor of 0.05 would leave a ratio of up to 120 between the contributions. And reading
# the norms at every step more than doubles the cost of training; within 10 % more time a reading
# every 11 steps is what one can have.
#
# The trade-off at that interval:

with plots.style():
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    found.plot(ax)

# %%
# After rescaling the loud loss
# -----------------------------
# With its units mended the same run spans 0.14 to 6.9, and needs no floor to speak of:

rescaled = tune(Workload(50.0 / 346.0, 2400.0 / 346.0))
print(rescaled.advice)
print(f"floor {rescaled.spec.floor:g}")

# %%
# From a recorded run
# -------------------
# A trace gives the range, the noise, the drift and the length of the start-up transient:

trace = load_bundled("fd001-gaba")
measured = tune(workload_of(trace))
print(measured)

# %%
# Written as TOML, any command takes it with ``--spec``:

print(measured.to_toml())
