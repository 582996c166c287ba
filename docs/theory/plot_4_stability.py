r"""
4. Plants, and when the loop is stable
======================================

Training answers to the weights. To first order, around some operating point, with
:math:`y=\ln(g_1/g_2)` and :math:`u=\ln(w_1/w_2)`,

.. math:: y = P(z)\,u + d,\qquad P(z)=\frac{-\rho\,(1-a)\,z^{-1}}{1-a z^{-1}},

and the controller closes the loop with :math:`u=-F(z)\,y`.
"""

import matplotlib.pyplot as plt
import sympy as sp

from gabactl import GabaSpec, LogRatio, open_loop

z, a, b, rho = sp.symbols("z a beta rho", real=True)
F = (1 - b) / (1 - b / z)
P = -rho * (1 - a) / z / (1 - a / z)

# %%
# The closed loop's poles are the roots of :math:`1+P F=0`:

characteristic = sp.Poly(sp.expand(sp.numer(sp.together(1 + P * F))), z)
print(characteristic.as_expr())
leading = characteristic.LC()
one, zero = (sp.factor(characteristic.as_expr().subs(z, value) / leading) for value in (1, 0))
minus = sp.factor(characteristic.as_expr().subs(z, -1) / leading)
print("p(1) =", one, "   p(-1) =", minus, "   p(0) =", zero)

# %%
# A quadratic has both roots inside the unit circle when :math:`p(1)>0`, :math:`p(-1)>0` and
# :math:`|p(0)|<1` (the last holds here). The first two are linear in :math:`\rho`:

above = sp.solve(one, rho)[0]
below = sp.simplify(sp.solve(minus, rho)[0])
print("stable for ", sp.factor(below), "< rho <", above)
assert above == 1
assert sp.simplify(below + (1 + a) * (1 + b) / ((1 - a) * (1 - b))) == 0
assert sp.simplify(zero - a * b) == 0
limit = float(below.subs({a: 0, b: sp.Rational(99, 100)}))
print("for a = 0 and beta = 0.99: rho >", limit)
for value, verdict in ((-198.9, True), (-199.1, False), (0.99, True), (1.01, False)):
    assert open_loop(GabaSpec(), LogRatio(rho=value)).closed.stable is verdict

# %%
# A positive :math:`\rho` is positive feedback: more weight trains its task's gradient down, and the
# louder task is starved. At 1 a pole sits at :math:`z=1`, and beyond it only the floor bounds
# what happens. A negative one is negative feedback. Measured on C-MAPSS with AdamW it was -0.04 to
# -0.3; noise-free gradient descent on two bowls gives the other sign. So do not assume it:
# ``gabactl identify``.
#
# At rest the contributions are equal, whatever the plant, as long as the floor leaves the loop closed:
# :math:`q=(1-F)/(1+PF)\,d` is zero at :math:`z=1`, since the filter's gain is 1 there.

q = sp.simplify(((1 - F) / (1 + P * F)).subs(z, 1))
print("q/d at rest:", q)
assert q == 0
_ = open_loop(GabaSpec(), LogRatio(rho=-20.0, delay=5)).plot(
    plt.subplots(figsize=(5, 4.4), layout="constrained")[1]
)
