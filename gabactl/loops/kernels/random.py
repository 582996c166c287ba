"""Counter-based random numbers: the draw of a loop, step and task is a function of the seed.

Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011. The counter holds (step, group of four tasks, loop), the key the seed, so that no draw
depends on which other loops are simulated, in which batch, or on which thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.loops.kernels.elementary import as_float, cos_sin_turn, log
from gabactl.loops.kernels.jit import compiled, inlined

_MASK = 0xFFFFFFFF

#: Multipliers and key increments of Philox4x32, and its rounds.
PHILOX, WEYL, PHILOX_ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10

#: No draw is larger: sqrt(-2 ln 2^-33) = 6.764.
LARGEST_NORMAL = 6.77


def philox_round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """One round, of whole numbers or of arrays of them.

    Examples
    --------
    >>> philox_round(1, 0, 0, 0, 0, 0)
    (0, 0, 0, 3528531795)
    """
    # A product may wrap at 2^64; its two halves are right all the same.
    p0, p1 = c0 * PHILOX[0], c2 * PHILOX[1]
    return ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK


_round = inlined(philox_round)


@inlined
def philox(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> Any:
    """Four random 32-bit words (as int64) of a counter of four words and a key of two.

    Examples
    --------
    >>> [f"{word:08x}" for word in philox(0, 0, 0, 0, 0, 0)]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    # Written out, because a loop in here would keep the loop over lanes scalar.
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 0 * WEYL[0]) & _MASK, (k1 + 0 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 1 * WEYL[0]) & _MASK, (k1 + 1 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 2 * WEYL[0]) & _MASK, (k1 + 2 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 3 * WEYL[0]) & _MASK, (k1 + 3 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 4 * WEYL[0]) & _MASK, (k1 + 4 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 5 * WEYL[0]) & _MASK, (k1 + 5 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 6 * WEYL[0]) & _MASK, (k1 + 6 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 7 * WEYL[0]) & _MASK, (k1 + 7 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 8 * WEYL[0]) & _MASK, (k1 + 8 * WEYL[1]) & _MASK)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + 9 * WEYL[0]) & _MASK, (k1 + 9 * WEYL[1]) & _MASK)
    return c0, c1, c2, c3


@inlined
def normal_pair(radius_word: int, angle_word: int) -> Any:
    """Two independent standard normal numbers of two random words (Box and Muller 1958).

    Examples
    --------
    >>> [round(x, 6) for x in normal_pair(0x80000000, 0)]
    [1.17741, 0.0]
    """
    # (word + 1/2) / 2^32, the middle of one of 2^32 intervals: never 0 or 1; largest radius 6.76.
    # The word goes into the low bits of 2^20, and that is taken off again: no conversion.
    uniform = as_float(radius_word | 0x4130000000000000) - (1048576.0 - 2.0**-33)
    radius = np.sqrt(-2.0 * log(uniform))
    cosine, sine = cos_sin_turn(angle_word)
    return radius * cosine, radius * sine


@compiled
def fill_normals(out: Any, seed: int, loop: int, first_step: int) -> None:
    """Standard normal numbers of one loop, shape (steps, K), from step ``first_step`` on.

    Examples
    --------
    >>> out = np.empty((2, 3)); fill_normals(out, 1, 0, 0)
    >>> later = np.empty((1, 3)); fill_normals(later, 1, 0, 1)
    >>> bool((out[1] == later[0]).all())
    True
    """
    steps, k = out.shape
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    l0, l1 = loop & _MASK, (loop >> 32) & _MASK
    for t in range(steps):
        for group in range((k + 3) // 4):
            w0, w1, w2, w3 = philox(first_step + t, group, l0, l1, k0, k1)
            a, b = normal_pair(w0, w1)
            c, d = normal_pair(w2, w3)
            for i, x in enumerate((a, b, c, d)):
                if 4 * group + i < k:
                    out[t, 4 * group + i] = x


def normals(seed: int, loop: int, steps: int, n_tasks: int) -> NDArray[np.float64]:
    """The standard normal numbers a loop of a simulation sees, shape (steps, K).

    Parameters
    ----------
    seed : int in [0, 2^63)
        Of the simulation.
    loop : int
        Number of the loop in its batch, from 0.
    steps, n_tasks : int
        Shape.

    Examples
    --------
    >>> normals(0, 0, 3, 2).shape
    (3, 2)
    """
    out = np.empty((steps, n_tasks))
    fill_normals(out, check_seed(seed), loop, 0)
    return out


def check_seed(seed: int) -> int:
    """A seed in [0, 2^63), or an error that says so.

    Examples
    --------
    >>> check_seed(7)
    7
    """
    from gabactl.base.errors import InputError

    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise InputError(f"seed = {seed!r} is not a whole number from 0 to 2^63 - 1: choose one")
    return int(seed)
