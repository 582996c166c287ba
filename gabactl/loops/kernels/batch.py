"""Many closed loops at once: some tens side by side, statistics in constant memory.

Every law, floor mode and guard, any number of tasks, numbers of any size. A block of loops goes
through all steps before the next begins, so that its numbers stay in the fastest cache. They lie
in rows, one number per loop: ``loop`` holds the rows of a loop as a whole, ``task`` those of each
of its tasks. A step is a sequence of passes; each is a loop over the block, one loop beside the
other, which the compiler turns into vector instructions. For that,

* a pass calls nothing and has no branch: a choice is made between two numbers;
* counters and row numbers are unsigned, because numba guards signed indices against negative
  values;
* how many loops a block has is no constant: the compiler would write the pass out, loop by loop;
* rows begin on a line of the cache, so that no vector lies across two.

Numbers that no step can change are not computed anew: without feedback and noise, what a
disturbance that stays makes of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gabactl.loops.kernels.controller import (
    AFFINE,
    CLAMP_STATE,
    COMPLEMENT,
    HOLD,
    INVERSE,
    RENORMALISE,
    project_into,
)
from gabactl.loops.kernels.elementary import exp_of_type, fma, log_of_type, split
from gabactl.loops.kernels.jit import compiled, inlined
from gabactl.loops.kernels.random import normal_pair, philox

#: A loop's settings. ``pole`` is beta**interval, ``keep`` is 1 - pole (of the complement law by
#: K - 1), ``next`` the step of the first reading; beyond the edges a spread has not settled.
SETTINGS = (
    *("pole", "keep", "floor", "interval", "rho", "a", "noise", "amplitude", "next"),
    *("spread_above", "spread_below"),
)

#: Rows of a loop: settings, statistics, and what a step needs. A spread is a ratio, and the sum of
#: their logarithms ``error`` octaves and the logarithm of ``product``.
LOOP_ROWS = (
    *SETTINGS,
    *("saturated_steps", "smallest_weight", "largest_weight", "early_peak", "late_peak", "start"),
    *("sum", "square", "error", "product", "worst_spread", "spread"),
    *("last_outside_weights", "last_outside_contributions"),
    *("norms", "due", "scale", "total", "least", "bottom", "top", "high", "low", "mean"),
    *("window_smallest", "window_largest"),
)

#: Rows of a task.
TASK_ROWS = (
    *("ema", "lag", "level", "clean", "norm", "draw", "drive", "value", "state"),
    *("weight_above", "weight_below"),
)

#: Bytes of a row in use, and numbers from one row to the next: rows a multiple of 4 kB apart look
#: like one to the processor.
_BYTES, _STRIDE = 1024, 272

#: Steps whose ratios share a product of mantissas, each below 2.
_SHARING = 64


class Numbers(NamedTuple):
    """Numbers in the type of a computation, where a bare literal would turn float32 into float64.

    Given to compiled code and not written in it: a comparison with a known infinity becomes a
    dozen instructions on integers.
    """

    zero: Any
    one: Any
    infinity: Any
    #: Smallest normal number.
    tiny: Any
    #: 1/K and K.
    uniform: Any
    count: Any
    #: Published addition to the norms, 0 where the guard holds instead.
    epsilon: Any


def _rows(names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(np.uint64(n * _STRIDE) for n in range(len(names)))


_POLE, _KEEP, _FLOOR, _INTERVAL, _RHO, _A, _NOISE, _AMPLITUDE, _NEXT = _rows(LOOP_ROWS)[:9]
_ABOVE, _BELOW, _SATURATED, _SMALLEST, _LARGEST, _EARLY, _LATE = _rows(LOOP_ROWS)[9:16]
_START, _SUM, _SQUARE, _ERROR, _PRODUCT, _WORST, _SPREAD = _rows(LOOP_ROWS)[16:23]
_LAST_WEIGHTS, _LAST_SPREAD, _NORMS, _DUE, _SCALE, _TOTAL, _LEAST = _rows(LOOP_ROWS)[23:30]
_BOTTOM, _TOP, _HIGH, _LOW, _MEAN, _W_SMALLEST, _W_LARGEST = _rows(LOOP_ROWS)[30:]
_EMA, _LAG, _LEVEL, _CLEAN, _NORM, _DRAW, _DRIVE, _VALUE, _STATE = _rows(TASK_ROWS)[:9]
_W_ABOVE, _W_BELOW = _rows(TASK_ROWS)[9:]
#: From one task to the next.
_SPAN = np.uint64(len(TASK_ROWS) * _STRIDE)


@inlined
def _least(x: Any, y: Any) -> Any:
    return x if x < y else y


@inlined
def _most(x: Any, y: Any) -> Any:
    return x if x > y else y


@compiled
def _fill(many: Any, rows: Any, row: Any, value: Any) -> None:
    for n in range(many):
        rows[row + n] = value


@compiled
def _draw(many: Any, task: Any, words: Any, numbers: Any, k: int, t: int, key: Any) -> None:
    """Standard normal numbers of one step, four tasks at a time (there is room for them)."""
    row = np.uint64(_STRIDE)
    for group in range((k + 3) // 4):
        for n in range(many):
            who = numbers[n]
            some = philox(t, group, who & 0xFFFFFFFF, who >> 32, key[0], key[1])
            words[n], words[row + n], words[row + row + n], words[row + row + row + n] = some
        for pair in range(min(2, (k - 4 * group + 1) // 2)):
            b = np.uint64(4 * group + 2 * pair) * _SPAN + _DRAW
            first = np.uint64(2 * pair) * row
            for n in range(many):
                task[b + n], task[b + _SPAN + n] = normal_pair(
                    words[first + n], words[first + row + n]
                )


@compiled
def _sense(many: Any, task: Any, loop: Any, b: Any, d: Any) -> None:
    """Plant and sensor of one task: log norm, norm, reading, sum of the readings."""
    for n in range(many):
        lag = task[b + _LAG + n] - loop[_MEAN + n]
        x = fma(-loop[_RHO + n], lag, loop[_AMPLITUDE + n] * d)
        g = exp_of_type(x)
        task[b + _LEVEL + n], task[b + _CLEAN + n], task[b + _NORM + n] = x, g, g
        loop[_NORMS + n] += g


@compiled
def _disturb(many: Any, task: Any, loop: Any, b: Any) -> None:
    """The reading of one task with noise, sum of the readings."""
    for n in range(many):
        g = exp_of_type(fma(loop[_NOISE + n], task[b + _DRAW + n], task[b + _LEVEL + n]))
        task[b + _NORM + n] = g
        loop[_NORMS + n] += g


@compiled
def _reciprocals(many: Any, c: Any, task: Any, loop: Any, k: int) -> None:
    """Inverse law: the norms become reciprocals, scaled by the smallest so that none overflows."""
    _fill(many, loop, _SCALE, c.infinity)
    for i in range(k):
        b = np.uint64(i) * _SPAN
        for n in range(many):
            g = task[b + _NORM + n] + c.epsilon
            task[b + _NORM + n] = g
            loop[_SCALE + n] = _least(g, loop[_SCALE + n])
    for n in range(many):
        # Not a number where a norm is 0 or not finite: the guard holds there.
        fine = (loop[_NORMS + n] < c.infinity) & (loop[_SCALE + n] > c.zero)
        loop[_NORMS + n] = c.zero if fine else c.infinity - c.infinity
    for i in range(k):
        b = np.uint64(i) * _SPAN
        for n in range(many):
            g = loop[_SCALE + n] / task[b + _NORM + n]
            task[b + _NORM + n] = g
            loop[_NORMS + n] += g


@compiled
def _gate(many: Any, c: Any, loop: Any, now: Any, guarded: bool) -> None:
    """Which loops take a reading now, and whether they can use it."""
    for n in range(many):
        coming, total = loop[_NEXT + n], loop[_NORMS + n]
        due = coming <= now
        usable = ((total > c.zero) & (total < c.infinity)) | (not guarded)
        loop[_NEXT + n] = now + loop[_INTERVAL + n] if due else coming
        loop[_DUE + n] = c.one if due & usable else c.zero
        loop[_SCALE + n] = loop[_KEEP + n] / total


@compiled
def _take(many: Any, c: Any, task: Any, loop: Any, b: Any, law: int) -> None:
    """A reading of one task: (1 - pole) times the raw weight, average, that lifted to the floor."""
    for n in range(many):
        g, e, m = task[b + _NORM + n], task[b + _EMA + n], loop[_FLOOR + n]
        drive = (loop[_NORMS + n] - g if law == COMPLEMENT else g) * loop[_SCALE + n]
        new = fma(loop[_POLE + n], e, drive)
        e = new if loop[_DUE + n] > c.zero else e
        task[b + _DRIVE + n], task[b + _EMA + n] = drive, e
        task[b + _VALUE + n] = m if e < m else e


@compiled
def _take_again(many: Any, c: Any, task: Any, loop: Any, b: Any) -> None:
    """The same where the reading has not changed."""
    for n in range(many):
        e, m = task[b + _EMA + n], loop[_FLOOR + n]
        new = fma(loop[_POLE + n], e, task[b + _DRIVE + n])
        e = new if loop[_DUE + n] > c.zero else e
        task[b + _EMA + n] = e
        task[b + _VALUE + n] = m if e < m else e


@compiled
def _affine(many: Any, c: Any, task: Any, loop: Any, k: int) -> None:
    _fill(many, loop, _TOTAL, c.zero)
    for i in range(k):
        b = np.uint64(i) * _SPAN
        for n in range(many):
            loop[_TOTAL + n] += task[b + _EMA + n]
    for n in range(many):
        loop[_SCALE + n] = (c.one - c.count * loop[_FLOOR + n]) / loop[_TOTAL + n]
    for i in range(k):
        b = np.uint64(i) * _SPAN
        for n in range(many):
            task[b + _VALUE + n] = fma(task[b + _EMA + n], loop[_SCALE + n], loop[_FLOOR + n])


@compiled
def _project(many: Any, c: Any, task: Any, loop: Any, k: int, keep: bool) -> None:
    """Loop by loop: the projection sorts."""
    point, scratch = np.empty(k, task.dtype), np.empty(k, task.dtype)
    for n in range(many):
        for i in range(k):
            point[i] = task[np.uint64(i) * _SPAN + _EMA + n]
        project_into(point, point, loop[_FLOOR + n], scratch)
        due = keep and loop[_DUE + n] > 0
        for i in range(k):
            task[np.uint64(i) * _SPAN + _VALUE + n] = point[i]
            if due:
                task[np.uint64(i) * _SPAN + _EMA + n] = point[i]


@compiled
def _weigh(many: Any, task: Any, loop: Any, b: Any) -> None:
    """One task in sum and extremes of averages, weights and contributions."""
    for n in range(many):
        e, v = task[b + _EMA + n], task[b + _VALUE + n]
        x = v * task[b + _CLEAN + n]
        loop[_TOTAL + n] += v
        loop[_LEAST + n] = _least(e, loop[_LEAST + n])
        loop[_BOTTOM + n] = _least(v, loop[_BOTTOM + n])
        loop[_TOP + n] = _most(v, loop[_TOP + n])
        loop[_LOW + n] = _least(x, loop[_LOW + n])
        loop[_HIGH + n] = _most(x, loop[_HIGH + n])


@compiled
def _begin(many: Any, task: Any, loop: Any) -> None:
    """:func:`_weigh` for task 0, of whose numbers sum and extremes begin."""
    for n in range(many):
        e, v = task[_EMA + n], task[_VALUE + n]
        x = v * task[_CLEAN + n]
        loop[_TOTAL + n], loop[_LEAST + n], loop[_BOTTOM + n], loop[_TOP + n] = v, e, v, v
        loop[_LOW + n], loop[_HIGH + n] = x, x


@compiled
def _answer(many: Any, c: Any, task: Any, loop: Any, b: Any) -> None:
    """The plant takes the log weight of one task; how it answers is centred when it is used."""
    for n in range(many):
        a, u = loop[_A + n], log_of_type(_most(task[b + _VALUE + n], c.tiny))
        x = fma(a, task[b + _STATE + n], (c.one - a) * u)
        task[b + _STATE + n], task[b + _LAG + n] = x, x
        loop[_MEAN + n] += x * c.uniform


@compiled
def _account(many: Any, c: Any, loop: Any) -> None:
    """Statistics of one step, from the sum and the extremes."""
    for n in range(many):
        scale = c.one / loop[_TOTAL + n]
        loop[_SCALE + n] = scale
        loop[_SATURATED + n] += c.one if loop[_LEAST + n] < loop[_FLOOR + n] else c.zero
        loop[_W_SMALLEST + n] = _least(loop[_BOTTOM + n] * scale, loop[_W_SMALLEST + n])
        loop[_W_LARGEST + n] = _most(loop[_TOP + n] * scale, loop[_W_LARGEST + n])
    for n in range(many):
        # The sum of the logarithms is that of a product: exponents and mantissas apart.
        ratio = loop[_HIGH + n] / loop[_LOW + n]
        octaves, mantissa = split(ratio)
        loop[_SPREAD + n] = ratio
        loop[_ERROR + n] += octaves if ratio < c.infinity else ratio
        loop[_PRODUCT + n] *= mantissa
        loop[_WORST + n] = _most(ratio, loop[_WORST + n])


@compiled
def _fold(many: Any, loop: Any) -> None:
    for n in range(many):
        octaves, loop[_PRODUCT + n] = split(loop[_PRODUCT + n])
        loop[_ERROR + n] += octaves


@compiled
def _wait(many: Any, rows: Any, row: Any, queue: Any, q: Any) -> None:
    """A row goes into the queue, and what has waited long enough comes out."""
    for n in range(many):
        rows[row + n], queue[q + n] = queue[q + n], rows[row + n]


@compiled
def _watch(many: Any, task: Any, loop: Any) -> None:
    """Sums for mean and variance of the weight of task 0."""
    for n in range(many):
        x = task[_VALUE + n] * loop[_SCALE + n] - loop[_START + n]
        loop[_SUM + n] += x
        loop[_SQUARE + n] = fma(x, x, loop[_SQUARE + n])


@compiled
def _compare(many: Any, task: Any, loop: Any, k: int, now: Any) -> None:
    """The last step outside the bands."""
    for i in range(k):
        b = np.uint64(i) * _SPAN
        for n in range(many):
            w, last = task[b + _VALUE + n] * loop[_SCALE + n], loop[_LAST_WEIGHTS + n]
            far = (w > task[b + _W_ABOVE + n]) | (w < task[b + _W_BELOW + n])
            loop[_LAST_WEIGHTS + n] = now if far else last
    for n in range(many):
        spread, last = loop[_SPREAD + n], loop[_LAST_SPREAD + n]
        far = (spread > loop[_ABOVE + n]) | (spread < loop[_BELOW + n])
        loop[_LAST_SPREAD + n] = now if far else last


@compiled
def _close_window(many: Any, c: Any, loop: Any, peak: Any) -> None:
    """Extremes of the weights so far; of the window that ends, the peak distance from 1/K."""
    for n in range(many):
        low, high = loop[_W_SMALLEST + n], loop[_W_LARGEST + n]
        loop[_SMALLEST + n] = _least(low, loop[_SMALLEST + n])
        loop[_LARGEST + n] = _most(high, loop[_LARGEST + n])
        loop[_W_SMALLEST + n], loop[_W_LARGEST + n] = c.infinity, -c.infinity
        loop[peak + n] = _most(_most(high - c.uniform, c.uniform - low), c.zero)


@compiled
def _aligned(count: int, like: Any) -> Any:
    """Zeros that begin on a line of the cache."""
    extra = 64 // like.itemsize
    memory = np.zeros(count + extra, dtype=like.dtype)
    skip = (-(memory.ctypes.data // like.itemsize)) % extra
    return memory[skip : skip + count]


@compiled
def run_blocks(
    log_norms: Any,
    fresh: Any,
    lost: Any,
    codes: Any,
    kind: Any,
    delay: int,
    seed: int,
    c: Any,
    initial: Any,
    given: Any,
    settings: Any,
    numbers: Any,
    wanted: Any,
    out: Any,
) -> None:
    """Blocks of loops, one after another, through all steps.

    Parameters
    ----------
    log_norms : array, shape (steps, K)
        Disturbance, multiplied by each loop's amplitude.
    fresh : array of bool, shape (steps,)
        Where it differs from the step before, or what the sensor loses does.
    lost : array of bool, shape (steps,)
        Steps without a reading of some task: they have no sum.
    codes : tuple (law, floor_mode, guard)
        Common to all loops.
    kind : tuple of bool (feedback, noisy, settling)
        Whether the plants answer, whether readings have noise, whether settling is looked at.
    delay : int
        Of the plant.
    seed : int
        Of the noise.
    c : Numbers
        In the type of the computation.
    initial : array, shape (rows,)
        What the rows hold before the first step, where no setting says otherwise: the rows of a
        loop, then those of each task.
    given, settings : arrays, shapes (m,) and (m, loops)
        Rows that hold the settings, and these.
    numbers : array of int, shape (loops,)
        The loops' own, which their noise depends on.
    wanted, out : arrays, shapes (m,) and (m, loops)
        Rows that come back, and what they hold at last.
    """
    (steps, k), loops = log_norms.shape, settings.shape[1]
    law, floor_mode, guard = codes
    feedback, noisy, settling = kind
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    size = _BYTES // settings.itemsize
    many = np.uint64(size)
    # Three spare tasks, because noise is drawn for four tasks at a time.
    rows = _aligned((len(initial) + 3 * len(TASK_ROWS)) * _STRIDE, settings)
    loop, task = rows[: len(LOOP_ROWS) * _STRIDE], rows[len(LOOP_ROWS) * _STRIDE :]
    queue = _aligned(delay * (k + 1) * _STRIDE, settings)
    who, words = _aligned(_STRIDE, numbers), _aligned(4 * _STRIDE, numbers)
    early, late = steps // 2, 3 * steps // 4
    for first in range(0, loops, size):
        for row in range(len(initial)):
            _fill(many, rows, np.uint64(row * _STRIDE), initial[row])
        queue[:] = c.zero
        # Places without a loop of their own repeat the last one.
        for n in range(size):
            mine = min(first + n, loops - 1)
            who[n] = numbers[mine]
            for j in range(len(given)):
                rows[given[j] * _STRIDE + n] = settings[j, mine]
        steady = c.zero
        for n in range(many):
            every = loop[_INTERVAL + n] == c.one
            steady = _most(loop[_NEXT + n] if every else c.infinity, steady)
        now, slot = c.zero, 0
        for t in range(steps):
            if t == early:
                _close_window(many, c, loop, _EARLY)
            if t == late:
                _close_window(many, c, loop, _EARLY)
                for n in range(many):
                    loop[_START + n] = task[_VALUE + n] * loop[_SCALE + n]
            if noisy:
                _draw(many, task, words, who, k, t, key)
            moved = fresh[t] or feedback
            if moved or noisy:
                total = c.epsilon if law == COMPLEMENT else c.zero
                _fill(many, loop, _NORMS, total)
                if moved:
                    for i in range(k):
                        _sense(many, task, loop, np.uint64(i) * _SPAN, log_norms[t, i])
                if noisy:
                    _fill(many, loop, _NORMS, total)
                    for i in range(k):
                        _disturb(many, task, loop, np.uint64(i) * _SPAN)
                if lost[t]:
                    _fill(many, loop, _NORMS, c.infinity - c.infinity)
                if law == INVERSE:
                    _reciprocals(many, c, task, loop, k)
            if moved or noisy or now <= steady:
                _gate(many, c, loop, now, guard == HOLD)
            for i in range(k):
                b = np.uint64(i) * _SPAN
                if moved or noisy:
                    _take(many, c, task, loop, b, law)
                else:
                    _take_again(many, c, task, loop, b)
            if floor_mode == AFFINE:
                _affine(many, c, task, loop, k)
            elif floor_mode != RENORMALISE:
                _project(many, c, task, loop, k, floor_mode == CLAMP_STATE)
            _fill(many, loop, _MEAN, c.zero)
            for i in range(k):
                b = np.uint64(i) * _SPAN
                if i == 0:
                    _begin(many, task, loop)
                else:
                    _weigh(many, task, loop, b)
                if feedback:
                    _answer(many, c, task, loop, b)
            _account(many, c, loop)
            if feedback and delay:
                q = np.uint64(slot * (k + 1) * _STRIDE)
                _wait(many, loop, _MEAN, queue, q)
                for i in range(k):
                    q += np.uint64(_STRIDE)
                    _wait(many, task, np.uint64(i) * _SPAN + _LAG, queue, q)
                slot = (slot + 1) % delay
            if t % _SHARING == _SHARING - 1:
                _fold(many, loop)
            if t >= late:
                _watch(many, task, loop)
            if settling:
                _compare(many, task, loop, k, now)
            now += c.one
        _close_window(many, c, loop, _LATE)
        for j in range(len(wanted)):
            for n in range(min(size, loops - first)):
                out[j, first + n] = rows[wanted[j] * _STRIDE + n]
