r"""
How much noise reaches the weights?
===================================

Per-step gradient norms are noisy: a standard deviation of 0.44 to 0.60 nats of the log ratio was
measured on C-MAPSS. The moving average :math:`F(z) = (1-\beta)/(1-\beta z^{-1})` takes most of it
away, at the price of a lag.
"""

import matplotlib.pyplot as plt
import numpy as np

from gabactl import (
    Controller,
    GabaSpec,
    LogRatio,
    filter_facts,
    noise_gain,
    noise_report,
    open_loop,
    sampling_trade,
)
from gabactl.base import plots
from gabactl.control.noise import jensen_bias

# %%
# The filter alone
# ----------------
# White noise is reduced by :math:`(1-\beta)/(1+\beta)` in power: -23 dB for the published 0.99, not
# the "30 dB and more" that holds only at high frequencies.

print(filter_facts(GabaSpec()))

# %%
# Noise against lag
# -----------------
# No setting has both. Each point is one :math:`\beta`:

betas = 1.0 - np.geomspace(1e-3, 0.5, 40)
facts = [filter_facts(GabaSpec(beta=float(beta))) for beta in betas]
with plots.style():
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    lag = [f.group_delay_dc_steps for f in facts]
    noise = [0.5 * np.sqrt(f.noise_power_gain) for f in facts]
    ax.loglog(lag, noise)
    for beta in (0.9, 0.99, 0.999):
        f = filter_facts(GabaSpec(beta=beta))
        x, y = f.group_delay_dc_steps, 0.5 * np.sqrt(f.noise_power_gain)
        ax.plot(x, y, "o", color=plots.PALETTE[1])
        ax.annotate(f" β = {beta}", (x, y), va="bottom")
    ax.set_xlabel("lag behind a slow ramp, steps")
    ax.set_ylabel("noise of log w₁/w₂, nats")
    ax.set_title("0.5 nats of white noise on every reading")

# %%
# With the loop closed
# --------------------
# Negative feedback widens the loop's bandwidth and lowers its gain; positive feedback lets more
# noise through.

for rho in (-1.0, -0.2, 0.0, 0.5, 0.9):
    gain = noise_gain(open_loop(GabaSpec(), LogRatio(rho)))
    print(f"rho = {rho:5.1f}: noise power x {gain:.5f} ({10 * np.log10(gain):.2f} dB)")

# %%
# Simulated, to see it: the stored average under noise around a steady imbalance of 5.

random = np.random.default_rng(1)
readings = np.exp(np.log(5.0) + 0.5 * random.standard_normal(3000))
with plots.style():
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for beta in (0.9, 0.99):
        controller = Controller(GabaSpec(beta=beta, warmup=0))
        ema = [controller.observe([g, 1.0])[0] for g in readings]
        ax.plot(ema, label=f"β = {beta}", linewidth=1)
    ax.axhline(1 / 6, color="0.3", linestyle="--", linewidth=0.8, label="noise-free 1/6")
    ax.set_xlabel("steps")
    ax.set_ylabel("weight w₁")
    ax.legend()

# %%
# Averaging weights is not averaging imbalances
# ---------------------------------------------
# The average settles a little above the weight of the average reading (Jensen's inequality):

print(jensen_bias(np.log(5.0), 0.5))
with plots.style():
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    mu = np.linspace(0, 8, 81)
    for std in (0.25, 0.5, 1.0):
        ax.plot(mu, [jensen_bias(m, std).log_bias for m in mu], label=f"noise {std} nats")
    ax.set_xlabel("mean imbalance log g₁/g₂")
    ax.set_ylabel("shift of log w₁/w₂, nats")
    ax.legend()

# %%
# A reading every N steps
# -----------------------
# The gradient norms are the costly part. Reading them less often saves in proportion, keeps the
# time constant, and lets more noise through:

trade = sampling_trade(GabaSpec())
print(trade)

# %%
# All in one, for a plant of your own:

print(noise_report(open_loop(GabaSpec(), LogRatio(-0.2, a=0.9)), noise_std=0.5, log_ratio=1.6))

plt.show()
