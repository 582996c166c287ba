r"""
5. Noise, and averaging weights instead of logits
=================================================

Per-step norms are noisy: a standard deviation of 0.44 to 0.60 nats of the log ratio was measured on
C-MAPSS, nearly white. The average sees the *weights* :math:`1/(1+e^{y})`, not their logarithms.
"""

import numpy as np
import sympy as sp

from gabactl import GabaSpec, LogRatio, noise_gain, open_loop
from gabactl.control.noise import jensen_bias

# %%
# What of it reaches the weights
# ------------------------------
# For small signals :math:`u=-F y`, so the variance is multiplied by :math:`(1-\beta)/(1+\beta)`. A
# plant closes the loop around the noise and changes the pole: for :math:`a=0` and no delay
# :math:`u_t=p\,u_{t-1}-(1-\beta)\,n_t` with :math:`p=\beta+(1-\beta)\rho`:

b, rho = sp.symbols("beta rho", real=True)
pole = b + (1 - b) * rho
gain = sp.factor((1 - b) ** 2 / (1 - pole**2))
print("power gain:", gain)
for value in (-0.2, 0.0, 0.5):
    expected = float(gain.subs({b: sp.Rational(99, 100), rho: sp.nsimplify(value)}))
    found = noise_gain(open_loop(GabaSpec(), LogRatio(rho=value)))
    print(f"rho = {value:4}: {found:.6f}")
    assert abs(found - expected) < 1e-9

# %%
# Averaging a convex function
# ---------------------------
# Far from balance the weight is about :math:`e^{-y}`. With :math:`y=\mu+s\,\xi`, :math:`\xi` standard
# normal, its mean is larger than the weight at the mean (Jensen):

mu, xi = sp.symbols("mu xi", real=True)
s = sp.symbols("s", positive=True)
density = sp.exp(-(xi**2) / 2) / sp.sqrt(2 * sp.pi)
mean = sp.simplify(sp.integrate(sp.exp(-(mu + s * xi)) * density, (xi, -sp.oo, sp.oo)))
print("mean of exp(-y):", mean)
assert sp.simplify(mean - sp.exp(-mu + s**2 / 2)) == 0
found = jensen_bias(6.0, 0.5)
print("at mu = 6, s = 0.5:", found.mean_ema, "against", float(np.exp(-6 + 0.125)))
assert abs(found.mean_ema / np.exp(-6 + 0.125) - 1) < 0.01
