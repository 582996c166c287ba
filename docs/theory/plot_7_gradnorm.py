r"""
7. GradNorm is a relay
======================

GradNorm treats the weights as parameters of an auxiliary loss
:math:`a\sum_i |w_i g_i - T_i|`, with targets :math:`T_i` held constant, and descends it. Its gradient
in a weight has a size that does not depend on the error:
"""

import sympy as sp

from gabactl.balancers import GradNorm

w, g, T, a, eta = sp.symbols("w g T a eta", positive=True)
pull = sp.diff(a * sp.Abs(w * g - T), w)
size = sp.simplify(sp.Abs(pull.subs({w: 2, g: 3, T: 1, a: 1})))
print("gradient in w:", sp.simplify(pull), "   its size at one point:", size)
assert size == 3

# %%
# So each step moves the weight by :math:`\eta\,a\,g_i`, one way or the other: a relay. It cannot
# settle, but chatters across its target by about that step; and where the step exceeds the weight it
# makes it negative. With the norms of a small network (76.5 and 0.37), a learning rate of 0.05 and no
# renormalisation, one step takes the first weight from 1 to -2.83:

step = float((eta * a * g).subs({eta: sp.Rational(1, 20), a: 1, g: sp.Float("76.5335")}))
print("step", step, "   weight after it", 1 - step)
assert abs(1 - step + 2.8267) < 1e-4
rule = GradNorm("textbook", lr=0.05, auxiliary_weight=1.0)
assert abs(rule.relay_step([76.5335, 0.36654])[0] - step) < 1e-3

# %%
# Where it does settle on average, :math:`w_i g_i` equals its target. At :math:`\alpha=0` the targets
# are all the mean, so :math:`w_i \propto 1/g_i`: for two tasks that is GABA's raw law, for three it is
# not, but it is the inverse law (``law="inverse"``):

g1, g2, g3 = sp.symbols("g_1 g_2 g_3", positive=True)
inverse2 = (1 / g1) / (1 / g1 + 1 / g2)
complement2 = g2 / (g1 + g2)
assert sp.simplify(inverse2 - complement2) == 0
inverse3 = (1 / g1) / (1 / g1 + 1 / g2 + 1 / g3)
complement3 = (g2 + g3) / (2 * (g1 + g2 + g3))
example = {g1: 1, g2: 2, g3: 7}
print("three tasks:", inverse3.subs(example), "against", complement3.subs(example))
assert inverse3.subs(example) != complement3.subs(example)
