"""
Every kind of picture
=====================

Each result object has ``plot(ax=None)``: it draws on your axes, or on new ones, and returns them.
``gabactl.base.plots.style(dark=True)`` around it is for dark pages; ``gabactl.base.plots.save`` writes SVG
and PDF. A result that is words and figures draws its table.
"""

import matplotlib.pyplot as plt

from gabactl import (
    GabaSpec,
    LogRatio,
    Workload,
    authority,
    check,
    compare,
    equilibria,
    filter_facts,
    frequency_response,
    fuzz_bounds,
    load_bundled,
    margins,
    noise_report,
    open_loop,
    published_disturbance,
    region_of_attraction,
    root_locus,
    sampling_trade,
    saturation,
    simulate,
    step_response,
    trace_info,
    tune,
    unit_advice,
    weight_bounds,
)
from gabactl.base import plots
from gabactl.loops.profiles import levels

spec = GabaSpec()
trace = load_bundled("fd001-gaba")


def show(*results):
    """Each result on a pair of axes: light above, dark below."""
    for dark in (False, True):
        with plots.style(dark=dark):
            _, axes = plt.subplots(
                1, len(results), figsize=(5.4 * len(results), 3.9), layout="constrained"
            )
            for ax, result in zip(axes, results, strict=True):
                result.plot(ax)


# %%
# A recorded run
# --------------

show(trace_info("fd001-gaba"), saturation(trace))

# %%

show(unit_advice(trace, spec), check(trace))

# %%
# The controller alone
# --------------------

show(weight_bounds(spec), authority(spec))

# %%

show(filter_facts(spec), sampling_trade(spec))

# %%
# The loop
# --------

loop = open_loop(spec, LogRatio(rho=-20.0, delay=5))
show(frequency_response(loop), margins(loop))

# %%

show(loop, root_locus(spec, LogRatio(rho=-2.0, delay=5)))

# %%

show(step_response(loop), noise_report(open_loop(spec, LogRatio(rho=-0.2)), noise_std=0.5))

# %%
# Where it rests, and what leads there
# ------------------------------------

low = GabaSpec(floor=0.01, beta=0.9, warmup=0)
show(equilibria(low, LogRatio(rho=1.1)), region_of_attraction(low, LogRatio(rho=1.1)))

# %%
# Simulation, comparison, search
# ------------------------------

disturbance = published_disturbance()
show(
    simulate(spec, disturbance),
    compare({"GABA": spec, "equal": "fixed"}, levels([4, 2], [800, 800]), noise=0.1),
)

# %%

show(tune(Workload(50.0, 2400.0, noise_std=0.5)), fuzz_bounds(spec, steps=100_000, seed=0))
