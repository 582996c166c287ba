r"""
How do my gradients answer to the weights?
==========================================

Whether the loop is stable, and whether it is feedback at all, depends on what a loss weight does to
the gradient norms it is computed from. In log-ratio coordinates

.. math:: y = \frac{-\rho\,(1-a)\,z^{-(1+\text{delay})}}{1 - a z^{-1}}\,u + \text{drift} + \text{noise},

with :math:`y = \log(g_1/g_2)` and :math:`u = \log(w_1/w_2)`. A positive :math:`\rho` is positive
feedback (more weight makes that task's gradient smaller, and the louder task is starved), a negative
one is negative feedback. Do not guess it: record a run with a known push on the weights,

.. code-block:: console

   gabactl cmapss train ... --excite prbs:amplitude=0.5,period=50,seed=1
   gabactl cmapss train ... --excite prbs:amplitude=0.5,period=50,seed=1,inverted

and ask ``gabactl identify``.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt

import gabactl
from gabactl import InputError, identify, identify_paired, load_bundled
from gabactl.base import plots
from gabactl.identification import simulate_excited

# %%
# A recorded training run
# -----------------------
# A small CNN-BiLSTM on C-MAPSS FD001, AdamW, weights 0.05 and 0.95 pushed by half a nat in random
# blocks of 50 steps:

run = load_bundled("fd001-excited-adamw-w005-seed0")
alone = identify(run)
print(alone)

# %%
# The interval excludes 0, but it is wide: one reading carries noise of 0.4 nats and the ratio
# drifts, while the effect is 0.1 to 0.2 nats per nat. A twin run with the same seed and batches and
# the inverted push shares the drift; subtracted, the response doubles and the drift cancels.

twin = load_bundled("fd001-excited-adamw-w005-seed0-inverted")
paired = identify_paired(run, twin)
print(paired)

# %%
# The average response to a switch of the push, measured and fitted:

with plots.style():
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    paired.plot(ax)

# %%
# More weight makes the gradient *larger*: weak negative feedback, the opposite sign of noise-free
# gradient descent on two quadratic bowls. Plain SGD with momentum, at the same weights:

sgd = [load_bundled(f"fd001-excited-sgd-w005-seed0{twin}") for twin in ("", "-inverted")]
print(identify_paired(*sgd))

# %%
# Without a push there is no answer
# ---------------------------------
# Under its own controller the weights follow the gradients, and every :math:`\rho` fits the data
# with a suitable disturbance. So the answer is a refusal:

try:
    identify(load_bundled("fd001-gaba"))
except InputError as error:
    print(error)

# %%
# Planning an experiment
# ----------------------
# On synthetic runs the truth is known. How long must a single run be to see :math:`\rho = -0.15`?

for steps in (1000, 2000, 4000, 8000):
    runs = simulate_excited(rho=-0.15, a=0.9, steps=steps, runs=1, seed=2)
    found = identify(runs.run(0), draws=399)
    low, high = found.rho_interval
    print(f"{steps:>5} steps: rho {found.rho:6.3f} [{low:6.3f}, {high:6.3f}]  {found.sign}")

# %%
# The intervals are calibrated: in closed loop, with noise of 0.5 nats and drift, those from 4,000
# steps cover the truth in 93.8 to 95.9 % of 2,000 runs per plant, for :math:`\rho` from -5 to 0.95
# (``benchmarks/identification_coverage.py``):

root = Path(gabactl.__file__).parent
places = (root.parent / "simulations", root / "_simulations")
table = next(f for p in places if (f := p / "results" / "identification_coverage.json").exists())
for row in json.loads(table.read_text())["plants"]:
    low, high = row["coverage_interval"]
    print(
        f"rho {row['rho']:5.2f}: {100 * row['coverage']:.2f} % [{100 * low:.1f}, {100 * high:.1f}]"
        f"  median width {row['median_width']:.3f}"
    )
