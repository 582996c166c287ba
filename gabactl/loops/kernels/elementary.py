"""exp, log, cosine and sine without branches, so that loops over lanes become vector code.

The polynomials are minimax (Remez exchange in 60 digits; the error of each is in its comment).
Fused multiply-add is asked for by name and never left to the compiler, so that a number does not
depend on how a loop was blocked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, overload

from gabactl.loops.kernels.jit import OPTIONS, compiled, inlined


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), generate


def _bitcast(source: Any, target: Any, llvm_target: Any) -> Any:
    @intrinsic
    def cast(typing_context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], llvm_target)

        return target(source), generate

    return cast


_bits = _bitcast(types.float64, types.int64, ir.IntType(64))
as_float = _bitcast(types.int64, types.float64, ir.DoubleType())
_bits32 = _bitcast(types.float32, types.int32, ir.IntType(32))
_float32 = _bitcast(types.int32, types.float32, ir.FloatType())

_INF = np.inf
LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
LN2_HIGH = 0.6931471803691238  # 33 bits of ln 2, so that a multiple by an exponent is exact
LN2_LOW = 1.9082149292705877e-10
LN2_HIGH_32, LN2_LOW_32 = 0.693359375, -2.1219444e-4
SHIFTER = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to an integer, held in the low bits
SHIFTER_BITS = 0x4338000000000000
SHIFTER_32, SHIFTER_BITS_32 = 12582912.0, 0x4B400000
SQRT_HALF_BITS, SQRT_HALF_BITS_32 = 0x3FE6A09E667F3BCD, 0x3F3504F3
TURN = 1.4629180792671596e-09  # 2 pi / 2^32
#: Below, :func:`exp` is 0 (no subnormal results), above it is infinite.
EXP_RANGE, EXP_RANGE_32 = (-708.0, 709.782712893384), (-87.0, 88.72283)
# (e^r - 1 - r)/r^2 on |r| <= ln(2)/2, error 4e-18; highest power first, like all of these.
EXP = (
    2.5117612563384870207e-8,
    2.7630856289671150589e-7,
    2.7557217186455629952e-6,
    0.000024801491260282492708,
    0.00019841269916241056643,
    0.0013888888945574087203,
    0.0083333333333078307788,
    0.04166666666652185127,
    0.16666666666666697858,
    0.50000000000000117901,
)
# (2 atanh(s)/s - 2)/z with z = s^2 on sqrt(1/2) <= m < sqrt(2), error 4e-18.
LOG = (
    0.14756583302881050914,
    0.15318224776851117315,
    0.18183389646324359215,
    0.22222202216172608812,
    0.28571428703231597789,
    0.39999999999614148192,
    0.66666666666666987034,
)
# The same for float32, errors 3e-9 and 2e-9.
EXP_32 = (
    np.float32(0.001395033686046274779),
    np.float32(0.008368821924052333828),
    np.float32(0.04166620887539900985),
    np.float32(0.16666519566745024862),
    np.float32(0.50000000937200279461),
)
LOG_32 = (
    np.float32(0.29846620928992738346),
    np.float32(0.39978643400386227724),
    np.float32(0.66666765148247324777),
)
# (sin(x)/x - 1)/z and (cos(x) - 1 + z/2)/z^2 with z = x^2 on |x| <= pi/4, errors 4e-18, 3e-19.
SINE = (
    1.5897004833039393441e-10,
    -2.5050762098713826697e-8,
    2.7557313720585321773e-6,
    -0.00019841269829903719147,
    0.0083333333333225592523,
    -0.16666666666666632798,
)
COSINE = (
    -1.1369416695867847103e-11,
    2.0875914950882717674e-9,
    -2.7557315781546632828e-7,
    0.000024801587294477227149,
    -0.0013888888888882148859,
    0.041666666666666645478,
)


@inlined
def exp(x: float) -> float:
    """e^x in float64, within 1 ulp; 0 below -708 (no subnormal results), infinite above 709.78.

    Examples
    --------
    >>> round(exp(1.0), 14), exp(-1e9), exp(1e9)
    (2.71828182845905, 0.0, inf)
    """
    t = fma(x, LOG2E, SHIFTER)
    n = t - SHIFTER
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    # Near 1, and below it where n is 1024: n goes straight into its exponent.
    y = as_float(_bits(fma(r * r, _exp_series(r), r) + 1.0) + (_bits(t) << 52))
    if x < EXP_RANGE[0]:
        y = 0.0
    # Too large, or not a number, whose bits are of no use.
    return y if x <= EXP_RANGE[1] else x + _INF


@inlined
def _exp_series(r: float) -> float:
    """(e^r - 1 - r)/r^2 in pairs of terms, so that no term waits long for another."""
    r2 = r * r
    r4 = r2 * r2
    low = fma(fma(r, EXP[6], EXP[7]), r2, fma(r, EXP[8], EXP[9]))
    high = fma(fma(r, EXP[2], EXP[3]), r2, fma(r, EXP[4], EXP[5]))
    return fma(fma(fma(r, EXP[0], EXP[1]), r4, high), r4, low)


@inlined
def _reduced(x: float) -> tuple[float, float, float]:
    """n, f and s = f/(2 + f) with x = 2^n (1 + f) and sqrt(1/2) <= 1 + f < sqrt(2)."""
    bits = _bits(x)
    k = (bits - SQRT_HALF_BITS) >> 52
    f = as_float(bits - (k << 52)) - 1.0
    return as_float(k + SHIFTER_BITS) - SHIFTER, f, f / (f + 2.0)


@inlined
def _log_series(z: float) -> float:
    """(2 atanh(s)/s - 2)/z with z = s^2, likewise."""
    z2 = z * z
    low = fma(fma(z, LOG[3], LOG[4]), z2, fma(z, LOG[5], LOG[6]))
    return fma(fma(LOG[0], z2, fma(z, LOG[1], LOG[2])), z2 * z2, low)


@inlined
def log(x: float) -> float:
    """Natural logarithm in float64 of a positive normal number, within 1 ulp.

    NaN and infinity are returned as they are; 0, negative and subnormal numbers are the caller's
    to keep out.

    Examples
    --------
    >>> round(log(10.0), 14)
    2.30258509299405
    """
    return _log(x) if x < _INF else x


@inlined
def _log(x: float) -> float:
    n, f, s = _reduced(x)
    z = s * s
    p = _log_series(z)
    # log(1+f) = f - s (f - z p): f carries the leading digits exactly.
    tail = fma(n, LN2_LOW, -s * fma(-z, p, f))
    return fma(n, LN2_HIGH, f) + tail


@compiled
def quick_exp(x: float) -> float:
    """:func:`exp` for one number that others wait for: shorter chains, other last bits; 1.5 ulp.

    Examples
    --------
    >>> round(quick_exp(1.0), 14), quick_exp(-1e9), quick_exp(1e9)
    (2.71828182845905, 0.0, inf)
    """
    if not abs(x) <= 700.0:
        return exp(x)
    t = fma(x, LOG2E, SHIFTER)
    n = t - SHIFTER
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    # Near 1, so that 2^n goes straight into its exponent.
    return as_float(_bits(fma(r * r, _exp_series(r), r + 1.0)) + (_bits(t) << 52))


@compiled
def quick_log(x: float) -> float:
    """:func:`log` for one number that others wait for: shorter chains, other last bits; 1.5 ulp.

    Only for positive normal finite numbers.

    Examples
    --------
    >>> round(quick_log(10.0), 14)
    2.30258509299405
    """
    n, f, s = _reduced(x)
    z = s * s
    return fma(-s, fma(-z, _log_series(z), f), fma(n, LN2, f))


@inlined
def exp32(x: Any) -> Any:
    """e^x in float32, within 2 ulp; 0 below -87, infinite above 88.72.

    Examples
    --------
    >>> float(exp32(np.float32(0.0)))
    1.0
    """
    shifter = np.float32(SHIFTER_32)
    t = fma(x, np.float32(LOG2E), shifter)
    n = t - shifter
    r = fma(n, np.float32(-LN2_LOW_32), fma(n, np.float32(-LN2_HIGH_32), x))
    p = fma(fma(EXP_32[0], r, EXP_32[1]), r, EXP_32[2])
    p = fma(fma(p, r, EXP_32[3]), r, EXP_32[4])
    y = fma(r * r, p, r) + np.float32(1.0)
    y = _float32(np.int32(_bits32(y) + np.int32(_bits32(t) << np.int32(23))))
    if x < np.float32(EXP_RANGE_32[0]):
        y = np.float32(0.0)
    return y if x <= np.float32(EXP_RANGE_32[1]) else x + np.float32(_INF)


@inlined
def log32(x: Any) -> Any:
    """Natural logarithm in float32 of a positive normal number, within 2 ulp; as :func:`log`.

    Examples
    --------
    >>> float(log32(np.float32(1.0)))
    0.0
    """
    return _log32(x) if x < np.float32(_INF) else x


@inlined
def _log32(x: Any) -> Any:
    bits = _bits32(x)
    k = np.int32(np.int32(bits - np.int32(SQRT_HALF_BITS_32)) >> np.int32(23))
    f = _float32(np.int32(bits - np.int32(k << np.int32(23)))) - np.float32(1.0)
    n = _float32(np.int32(k + np.int32(SHIFTER_BITS_32))) - np.float32(SHIFTER_32)
    s = f / (f + np.float32(2.0))
    z = s * s
    p = fma(fma(LOG_32[0], z, LOG_32[1]), z, LOG_32[2])
    tail = fma(n, np.float32(LN2_LOW_32), -s * fma(-z, p, f))
    return fma(n, np.float32(LN2_HIGH_32), f) + tail


@inlined
def _quintic(x: float, c: Any) -> float:
    p = fma(fma(fma(c[0], x, c[1]), x, c[2]), x, c[3])
    return fma(fma(p, x, c[4]), x, c[5])


@inlined
def cos_sin_turn(word: Any) -> Any:
    """Cosine and sine of 2 pi word / 2^32, for an integer 0 <= word < 2^32 (int64).

    Examples
    --------
    >>> cos_sin_turn(1 << 30), cos_sin_turn(1 << 31)
    ((0.0, 1.0), (-1.0, 0.0))
    """
    quarter = (word + 0x20000000) >> 30
    x = as_float((word - (quarter << 30)) + SHIFTER_BITS) - SHIFTER
    x = x * TURN
    z = x * x
    sine = fma(x * z, _quintic(z, SINE), x)
    cosine = fma(z * z, _quintic(z, COSINE), fma(z, -0.5, 1.0))
    swap = quarter & 1
    a = sine if swap else cosine
    b = cosine if swap else sine
    a = -a if (quarter + 1) & 2 else a
    b = -b if quarter & 2 else b
    return a + 0.0, b + 0.0


def exp_of_type(x: Any) -> Any:
    """:func:`exp` or :func:`exp32`, in compiled code, by the type of ``x``."""
    return np.exp(x)


def log_of_type(x: Any) -> Any:
    """:func:`log` or :func:`log32` of a finite number, in compiled code, by the type of ``x``."""
    return np.log(x)


def split(x: Any) -> Any:
    """n and m with x = 2^n m and 1 <= m < 2, in compiled code, for a positive normal number."""
    m, n = np.frexp(x)
    return n - 1, 2 * m


@inlined
def _split(x: float) -> tuple[float, float]:
    bits = _bits(x)
    mantissa = as_float((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    return as_float((bits >> 52) + (SHIFTER_BITS - 1023)) - SHIFTER, mantissa


@inlined
def _split32(x: Any) -> Any:
    bits = _bits32(x)
    mantissa = _float32(np.int32(np.int32(bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)))
    n = np.int32(np.int32(bits >> np.int32(23)) + np.int32(SHIFTER_BITS_32 - 127))
    return _float32(n) - np.float32(SHIFTER_32), mantissa


def _by_type(function: Any, double: Any, single: Any) -> None:
    """What ``function`` is in compiled code: one of two, by the type of its argument."""

    def choose(x: Any) -> Any:
        chosen = single if x == types.float32 else double
        return lambda x: chosen(x)

    overload(function, strict=False, jit_options={**OPTIONS, "forceinline": True})(choose)


_by_type(exp_of_type, exp, exp32)
_by_type(log_of_type, _log, _log32)
_by_type(split, _split, _split32)
