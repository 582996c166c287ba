"""Many closed loops at once, of any kind: lanes in vector code, statistics in constant memory.

Every law, floor mode and guard, any number of tasks, numbers of any size; :mod:`bounded` is faster
where it applies.

A block of ``LANES`` loops advances together, so that the compiler turns every inner loop into
vector instructions; the last block is padded, so that a loop goes through the same instructions
whatever its place in whatever batch. Nothing is stored per step.

Two flat work spaces hold rows of ``LANES`` numbers: one for each loop as a whole (``lanes``), one
for each loop and task (``work``). Row numbers and lane counters are unsigned, because numba guards
signed indices against negative values and the guard would keep the loops scalar.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gabactl.loops.kernels.controller import (
    AFFINE,
    CLAMP_STATE,
    HOLD,
    INVERSE,
    RENORMALISE,
    project_into,
)
from gabactl.loops.kernels.elementary import exp_of_type, fma, log_of_type
from gabactl.loops.kernels.jit import compiled
from gabactl.loops.kernels.random import normal_pair, philox

__all__ = [
    "LANES",
    "PARAMETERS",
    "STATISTICS",
    "TASK_STATISTICS",
    "run_blocks",
]

#: Loops that advance together.
LANES = 64

#: Per-loop settings, in the order of the rows of ``parameters``; beta is beta**interval there.
PARAMETERS = ("beta", "floor", "warmup", "interval", "rho", "a", "noise", "amplitude")

#: What is kept per loop, in the order of the rows of ``statistics``.
STATISTICS = (
    "smallest_weight",
    "largest_weight",
    "saturated_steps",
    "active_steps",
    "integrated_error",
    "worst_log_spread",
    "final_log_spread",
    "early_peak",
    "late_peak",
    "last_outside_weights",
    "last_outside_contributions",
)

#: What is kept per loop and task. ``mean_weights`` and ``square_weights`` are the mean and the mean
#: square of w_i - 1/K over the late window.
TASK_STATISTICS = ("final_weights", "mean_weights", "square_weights")


def _row(number: int) -> Any:
    return np.uint64(number * LANES)


_N = np.uint64(LANES)
_POLE, _FLOOR, _WARMUP, _INTERVAL, _RHO, _A, _NOISE, _AMPLITUDE = (_row(i) for i in range(8))
_WAIT, _SUM, _DUE, _SCALE, _MEAN, _HIGH, _LOW = (_row(i) for i in range(8, 15))
_BELOW, _PEAK, _OUTSIDE, _GOAL_SPREAD, _BAND_WEIGHTS, _BAND_SPREAD = (
    _row(i) for i in range(15, 21)
)
_WORST, _LARGEST, _SATURATED, _ACTIVE, _ERROR, _WORST_SPREAD = (_row(i) for i in range(21, 27))
_FINAL_SPREAD, _EARLY, _LATE, _LAST_WEIGHTS, _LAST_SPREAD = (_row(i) for i in range(27, 32))
_LANE_ROWS = 32

_EMA, _LAG, _CLEAN, _NORM, _VALUE, _LOGS, _DRAW, _MEANS, _SQUARES, _GOAL = (
    _row(i) for i in range(10)
)
_TASK_ROWS = 10
_SPAN = _row(_TASK_ROWS)


@compiled
def _words(words: Any, step: int, group: int, loop: Any, k0: int, k1: int) -> None:
    for lane in range(_N):
        low = (loop + np.int64(lane)) & 0xFFFFFFFF
        w0, w1, w2, w3 = philox(step, group, low, loop >> 32, k0, k1)
        words[lane] = w0
        words[_N + lane] = w1
        words[_N + _N + lane] = w2
        words[_N + _N + _N + lane] = w3


@compiled
def _normals(work: Any, b: Any, words: Any, first: Any) -> None:
    for lane in range(_N):
        z0, z1 = normal_pair(words[first + lane], words[first + _N + lane])
        work[b + lane] = z0
        work[b + _SPAN + lane] = z1


@compiled
def _draw(work: Any, words: Any, k: int, step: int, first_loop: int, k0: int, k1: int) -> None:
    """Standard normal numbers of one step, four tasks at a time (the work space has room).

    In two passes, because one would be too long to be inlined and would stay scalar. A block
    starts on a multiple of ``LANES``, so its loops share the upper half of their number.
    """
    for group in range((k + 3) // 4):
        b = np.uint64(4 * group) * _SPAN + _DRAW
        _words(words, step, group, first_loop, k0, k1)
        _normals(work, b, words, np.uint64(0))
        if k - 4 * group > 2:
            _normals(work, b + _SPAN + _SPAN, words, _N + _N)


@compiled
def _begin_step(lanes: Any, zero: Any, infinity: Any) -> None:
    for lane in range(_N):
        lanes[_SUM + lane] = zero
        lanes[_MEAN + lane] = zero
        lanes[_HIGH + lane] = -infinity
        lanes[_LOW + lane] = infinity
        lanes[_BELOW + lane] = zero
        lanes[_PEAK + lane] = zero
        lanes[_OUTSIDE + lane] = zero


@compiled
def _sense(work: Any, lanes: Any, b: Any, d: Any, noisy: bool) -> None:
    """Plant and sensor of one task: norm without noise, reading with it, sum of the readings."""
    for lane in range(_N):
        level = fma(-lanes[_RHO + lane], work[b + _LAG + lane], lanes[_AMPLITUDE + lane] * d)
        g = exp_of_type(level)
        work[b + _CLEAN + lane] = g
        work[b + _NORM + lane] = g
        work[b + _LOGS + lane] = level
    if noisy:
        for lane in range(_N):
            level, noise = work[b + _LOGS + lane], lanes[_NOISE + lane]
            work[b + _NORM + lane] = exp_of_type(fma(noise, work[b + _DRAW + lane], level))
    for lane in range(_N):
        lanes[_SUM + lane] += work[b + _NORM + lane]


@compiled
def _lose(work: Any, lanes: Any, b: Any, nan: Any) -> None:
    for lane in range(_N):
        work[b + _NORM + lane] = nan
        lanes[_SUM + lane] = nan


@compiled
def _reciprocals(
    work: Any, lanes: Any, k: int, guard: int, zero: Any, infinity: Any, epsilon: Any
) -> None:
    """Inverse law: the norms become reciprocals, scaled by the smallest so that none overflows."""
    for i in range(k):
        b = np.uint64(i) * _SPAN
        if guard != HOLD:
            for lane in range(_N):
                work[b + _NORM + lane] += epsilon
        for lane in range(_N):
            g, low = work[b + _NORM + lane], lanes[_LOW + lane]
            lanes[_LOW + lane] = g if g < low else low
    for lane in range(_N):
        total, low = lanes[_SUM + lane], lanes[_LOW + lane]
        fine = (total < infinity) & (low > zero)
        # Not a number where a norm is 0 or not finite: the guard holds there.
        lanes[_SUM + lane] = zero if fine else infinity - infinity
    for i in range(k):
        b = np.uint64(i) * _SPAN
        for lane in range(_N):
            g = lanes[_LOW + lane] / work[b + _NORM + lane]
            work[b + _NORM + lane] = g
            lanes[_SUM + lane] += g
    for lane in range(_N):
        lanes[_LOW + lane] = infinity


@compiled
def _gate(
    lanes: Any, guard: int, law: int, zero: Any, one: Any, infinity: Any, epsilon: Any
) -> None:
    """Which lanes take a reading now, and whether they can use it."""
    if guard != HOLD and law != INVERSE:
        for lane in range(_N):
            lanes[_SUM + lane] += epsilon
    for lane in range(_N):
        wait, interval = lanes[_WAIT + lane], lanes[_INTERVAL + lane]
        due = wait <= zero
        lanes[_WAIT + lane] = (interval if due else wait) - one
        total = lanes[_SUM + lane]
        lanes[_SCALE + lane] = one / total
        lanes[_DUE + lane] = one if due else zero
    if guard == HOLD:
        for lane in range(_N):
            total, due = lanes[_SUM + lane], lanes[_DUE + lane]
            usable = (total > zero) & (total < infinity)
            lanes[_DUE + lane] = due if usable else zero


@compiled
def _smooth(work: Any, lanes: Any, b: Any, law: int, zero: Any, one: Any, gain: Any) -> None:
    """Proportional law and low-pass of one task."""
    if law == INVERSE:
        for lane in range(_N):
            raw = work[b + _NORM + lane] * lanes[_SCALE + lane]
            e, pole, due = work[b + _EMA + lane], lanes[_POLE + lane], lanes[_DUE + lane]
            new = fma(pole, e, (one - pole) * raw)
            work[b + _EMA + lane] = new if due > zero else e
    else:
        for lane in range(_N):
            raw = (lanes[_SUM + lane] - work[b + _NORM + lane]) * lanes[_SCALE + lane] * gain
            e, pole, due = work[b + _EMA + lane], lanes[_POLE + lane], lanes[_DUE + lane]
            new = fma(pole, e, (one - pole) * raw)
            work[b + _EMA + lane] = new if due > zero else e


@compiled
def _floor_affine(work: Any, lanes: Any, k: int, zero: Any, one: Any, count: Any) -> None:
    for lane in range(_N):
        lanes[_SCALE + lane] = zero
    for i in range(k):
        b = np.uint64(i) * _SPAN
        for lane in range(_N):
            lanes[_SCALE + lane] += work[b + _EMA + lane]
    for lane in range(_N):
        lanes[_SCALE + lane] = (one - count * lanes[_FLOOR + lane]) / lanes[_SCALE + lane]
    for i in range(k):
        b = np.uint64(i) * _SPAN
        for lane in range(_N):
            work[b + _VALUE + lane] = fma(
                work[b + _EMA + lane], lanes[_SCALE + lane], lanes[_FLOOR + lane]
            )


@compiled
def _floor_project(
    work: Any, lanes: Any, k: int, point: Any, scratch: Any, keep: bool, zero: Any
) -> None:
    for lane in range(_N):
        for i in range(k):
            point[i] = work[np.uint64(i) * _SPAN + _EMA + lane]
        project_into(point, point, lanes[_FLOOR + lane], scratch)
        due = lanes[_DUE + lane] > zero
        for i in range(k):
            work[np.uint64(i) * _SPAN + _VALUE + lane] = point[i]
            if keep and due:
                work[np.uint64(i) * _SPAN + _EMA + lane] = point[i]


@compiled
def _floor_renormalise(work: Any, lanes: Any, b: Any) -> None:
    """max(ema, floor); the division by the sum comes later."""
    for lane in range(_N):
        e, m = work[b + _EMA + lane], lanes[_FLOOR + lane]
        work[b + _VALUE + lane] = m if e < m else e


@compiled
def _sum_weights(work: Any, lanes: Any, b: Any, one: Any) -> None:
    """Sum of the weights, and whether the average is below the floor."""
    for lane in range(_N):
        e, m, below = work[b + _EMA + lane], lanes[_FLOOR + lane], lanes[_BELOW + lane]
        lanes[_BELOW + lane] = one if e < m else below
        lanes[_SCALE + lane] += work[b + _VALUE + lane]


@compiled
def _logarithm(work: Any, lanes: Any, b: Any, tiny: Any) -> None:
    """Logarithms of the weights and their sum, for the plant."""
    for lane in range(_N):
        v = work[b + _VALUE + lane]
        logs = log_of_type(v if v > tiny else tiny)
        work[b + _LOGS + lane] = logs
        lanes[_MEAN + lane] += logs


@compiled
def _warm(work: Any, lanes: Any, b: Any, now: Any, uniform: Any) -> None:
    for lane in range(_N):
        v, warmup = work[b + _VALUE + lane], lanes[_WARMUP + lane]
        work[b + _VALUE + lane] = uniform if now < warmup else v


@compiled
def _normalise(lanes: Any, one: Any, uniform: Any) -> None:
    for lane in range(_N):
        lanes[_SCALE + lane] = one / lanes[_SCALE + lane]
        lanes[_MEAN + lane] *= uniform


@compiled
def _apply(work: Any, lanes: Any, b: Any) -> None:
    """Applied weights of one task; extremes of weights and contributions."""
    for lane in range(_N):
        w = work[b + _VALUE + lane] * lanes[_SCALE + lane]
        work[b + _VALUE + lane] = w
        c = w * work[b + _CLEAN + lane]
        high, low = lanes[_HIGH + lane], lanes[_LOW + lane]
        lanes[_HIGH + lane] = c if c > high else high
        lanes[_LOW + lane] = c if c < low else low
        worst, largest = lanes[_WORST + lane], lanes[_LARGEST + lane]
        lanes[_WORST + lane] = w if w < worst else worst
        lanes[_LARGEST + lane] = w if w > largest else largest


@compiled
def _centre(work: Any, lanes: Any, b: Any) -> None:
    for lane in range(_N):
        work[b + _LOGS + lane] -= lanes[_MEAN + lane]


@compiled
def _delay(work: Any, queue: Any, b: Any, q: Any) -> None:
    """What the plant is told now goes into the queue; what has waited long enough comes out."""
    for lane in range(_N):
        told, waited = work[b + _LOGS + lane], queue[q + lane]
        queue[q + lane] = told
        work[b + _LOGS + lane] = waited


@compiled
def _lag(work: Any, lanes: Any, b: Any, one: Any) -> None:
    """The plant takes the centred log weights of one task."""
    for lane in range(_N):
        a = lanes[_A + lane]
        u = work[b + _LOGS + lane]
        work[b + _LAG + lane] = fma(a, work[b + _LAG + lane], (one - a) * u)


@compiled
def _watch(work: Any, lanes: Any, b: Any, late: bool, zero: Any, uniform: Any) -> None:
    """Peak distance from uniform weights, and in the late window the sums for mean and square."""
    for lane in range(_N):
        x = work[b + _VALUE + lane] - uniform
        peak = lanes[_PEAK + lane]
        size = x if x > zero else -x
        lanes[_PEAK + lane] = size if size > peak else peak
    if late:
        for lane in range(_N):
            x = work[b + _VALUE + lane] - uniform
            work[b + _MEANS + lane] += x
            work[b + _SQUARES + lane] = fma(x, x, work[b + _SQUARES + lane])


@compiled
def _compare_goal(work: Any, lanes: Any, b: Any, zero: Any, one: Any) -> None:
    for lane in range(_N):
        x = work[b + _VALUE + lane] - work[b + _GOAL + lane]
        size = x if x > zero else -x
        band, outside = lanes[_BAND_WEIGHTS + lane], lanes[_OUTSIDE + lane]
        lanes[_OUTSIDE + lane] = one if size > band else outside


@compiled
def _account(
    lanes: Any, now: Any, watching: int, settling: bool, warming: bool, zero: Any, one: Any
) -> None:
    """The statistics of one step that belong to no task."""
    for lane in range(_N):
        spread = log_of_type(lanes[_HIGH + lane] / lanes[_LOW + lane])
        lanes[_ERROR + lane] += spread
        worst = lanes[_WORST_SPREAD + lane]
        lanes[_WORST_SPREAD + lane] = spread if spread > worst else worst
        lanes[_FINAL_SPREAD + lane] = spread
    if warming:
        for lane in range(_N):
            started = one if now >= lanes[_WARMUP + lane] else zero
            lanes[_ACTIVE + lane] += started
            lanes[_SATURATED + lane] += started * lanes[_BELOW + lane]
    else:
        for lane in range(_N):
            lanes[_ACTIVE + lane] += one
            lanes[_SATURATED + lane] += lanes[_BELOW + lane]
    if watching == 1:
        for lane in range(_N):
            peak, largest = lanes[_PEAK + lane], lanes[_EARLY + lane]
            lanes[_EARLY + lane] = peak if peak > largest else largest
    if watching == 2:
        for lane in range(_N):
            peak, largest = lanes[_PEAK + lane], lanes[_LATE + lane]
            lanes[_LATE + lane] = peak if peak > largest else largest
    if settling:
        for lane in range(_N):
            far, last = lanes[_OUTSIDE + lane], lanes[_LAST_WEIGHTS + lane]
            lanes[_LAST_WEIGHTS + lane] = now if far > zero else last
            x = lanes[_FINAL_SPREAD + lane] - lanes[_GOAL_SPREAD + lane]
            size = x if x > zero else -x
            band, last_spread = lanes[_BAND_SPREAD + lane], lanes[_LAST_SPREAD + lane]
            lanes[_LAST_SPREAD + lane] = now if size > band else last_spread


@compiled
def _run_block(
    log_norms: Any,
    lost: Any,
    any_lost: bool,
    delay: int,
    law: int,
    floor_mode: int,
    guard: int,
    seed: int,
    first_loop: int,
    noisy: bool,
    feedback: bool,
    settling: bool,
    early: int,
    late: int,
    longest_warmup: int,
    lanes: Any,
    work: Any,
    queue: Any,
    constants: Any,
) -> None:
    """One block through all steps."""
    steps, k = log_norms.shape
    zero, one, infinity, tiny = constants[0], constants[1], constants[2], constants[3]
    gain, uniform, epsilon, count = constants[4], constants[5], constants[6], constants[7]
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    point, scratch = np.empty(k, dtype=work.dtype), np.empty(k, dtype=work.dtype)
    words = np.zeros(4 * LANES, dtype=np.int64)
    slot = 0
    now = zero
    for t in range(steps):
        if noisy:
            _draw(work, words, k, t, first_loop, k0, k1)
        _begin_step(lanes, zero, infinity)
        for i in range(k):
            b = np.uint64(i) * _SPAN
            _sense(work, lanes, b, log_norms[t, i], noisy)
            if any_lost and lost[t, i]:
                _lose(work, lanes, b, infinity - infinity)
        if law == INVERSE:
            _reciprocals(work, lanes, k, guard, zero, infinity, epsilon)
        _gate(lanes, guard, law, zero, one, infinity, epsilon)
        for i in range(k):
            _smooth(work, lanes, np.uint64(i) * _SPAN, law, zero, one, gain)
        if floor_mode == AFFINE:
            _floor_affine(work, lanes, k, zero, one, count)
        elif floor_mode != RENORMALISE:
            _floor_project(work, lanes, k, point, scratch, floor_mode == CLAMP_STATE, zero)
        for lane in range(_N):
            lanes[_SCALE + lane] = zero
        warming = t < longest_warmup
        for i in range(k):
            b = np.uint64(i) * _SPAN
            if floor_mode == RENORMALISE:
                _floor_renormalise(work, lanes, b)
            if warming:
                _warm(work, lanes, b, now, uniform)
            _sum_weights(work, lanes, b, one)
            if feedback:
                _logarithm(work, lanes, b, tiny)
        _normalise(lanes, one, uniform)
        for i in range(k):
            b = np.uint64(i) * _SPAN
            _apply(work, lanes, b)
            if feedback:
                _centre(work, lanes, b)
                if delay > 0:
                    _delay(work, queue, b, np.uint64(slot * k + i) * _N)
                _lag(work, lanes, b, one)
            if t >= early:
                _watch(work, lanes, b, t >= late, zero, uniform)
            if settling:
                _compare_goal(work, lanes, b, zero, one)
        watching = 0 if t < early else 1 if t < late else 2
        _account(lanes, now, watching, settling, warming, zero, one)
        if delay > 0:
            slot = (slot + 1) % delay
        now += one


@compiled
def run_blocks(
    log_norms: Any,
    lost: Any,
    any_lost: bool,
    parameters: Any,
    goals: Any,
    bands: Any,
    delay: int,
    law: int,
    floor_mode: int,
    guard: int,
    seed: int,
    first_loops: Any,
    noisy: bool,
    feedback: bool,
    settling: bool,
    early: int,
    late: int,
    constants: Any,
    statistics: Any,
    task_statistics: Any,
) -> None:
    """Blocks of ``LANES`` loops, one after another, through all steps.

    Parameters
    ----------
    log_norms : array, shape (steps, K)
        Disturbance, multiplied by each loop's amplitude.
    lost : array of bool, shape (steps, K)
        Sensor failures.
    any_lost : bool
        Whether there are any.
    parameters : array, shape (blocks, 8, LANES)
        Rows as in ``PARAMETERS``, ``beta`` already to the power of the interval.
    goals : array, shape (blocks, K + 1, LANES)
        Weights, and log spread, that settling is measured against.
    bands : array, shape (blocks, 2, LANES)
        Half width of the band around each.
    delay, law, floor_mode, guard : int
        Common to all loops.
    seed : int
        Of the noise.
    first_loops : array of int, shape (blocks,)
        Number of each block's first loop, which its noise depends on.
    noisy, feedback, settling : bool
        Whether any loop has noise, whether any plant answers (rho is not 0), and whether to look
        at settling. They save work and change no number.
    early, late : int
        First step (from 0) of the early and of the late window.
    constants : array
        ``runner.constants_of``, in the type of the computation.
    statistics, task_statistics : arrays, shapes (blocks, 11, LANES), (blocks, 3, K, LANES)
        Output, rows as in ``STATISTICS`` and ``TASK_STATISTICS``.
    """
    steps, k = log_norms.shape
    zero, one, infinity, uniform = constants[0], constants[1], constants[2], constants[5]
    lanes = np.empty(_LANE_ROWS * LANES, dtype=parameters.dtype)
    # Three spare tasks, because noise is drawn for four tasks at a time.
    work = np.empty((k + 3) * _TASK_ROWS * LANES, dtype=parameters.dtype)
    queue = np.empty(max(delay, 1) * k * LANES, dtype=parameters.dtype)
    window = max(steps - late, 1) * one
    for block in range(parameters.shape[0]):
        lanes[:] = zero
        work[:] = zero
        queue[:] = zero
        longest = zero
        for lane in range(_N):
            for row in range(8):
                lanes[np.uint64(row) * _N + lane] = parameters[block, row, lane]
            longest = max(longest, lanes[_WARMUP + lane])
            lanes[_WAIT + lane] = lanes[_WARMUP + lane]
            lanes[_WORST + lane] = infinity
            lanes[_LARGEST + lane] = -infinity
            lanes[_LAST_WEIGHTS + lane] = -one
            lanes[_LAST_SPREAD + lane] = -one
            lanes[_GOAL_SPREAD + lane] = goals[block, k, lane]
            lanes[_BAND_WEIGHTS + lane] = bands[block, 0, lane]
            lanes[_BAND_SPREAD + lane] = bands[block, 1, lane]
            for i in range(k):
                work[np.uint64(i) * _SPAN + _EMA + lane] = uniform
                work[np.uint64(i) * _SPAN + _GOAL + lane] = goals[block, i, lane]
        _run_block(
            log_norms,
            lost,
            any_lost,
            delay,
            law,
            floor_mode,
            guard,
            seed,
            first_loops[block],
            noisy,
            feedback,
            settling,
            early,
            late,
            int(longest),
            lanes,
            work,
            queue,
            constants,
        )
        for row in range(statistics.shape[1]):
            for lane in range(_N):
                statistics[block, row, lane] = lanes[_WORST + np.uint64(row) * _N + lane]
        for i in range(k):
            b = np.uint64(i) * _SPAN
            for lane in range(_N):
                task_statistics[block, 0, i, lane] = work[b + _VALUE + lane]
                task_statistics[block, 1, i, lane] = work[b + _MEANS + lane] / window
                task_statistics[block, 2, i, lane] = work[b + _SQUARES + lane] / window
