"""Numbers that hold one lane of several loops each: vector code that says what it computes.

A compiler turns a loop over lanes into vector instructions only when it feels sure; a step of a
closed loop is too long for that. Inside a numba intrinsic, :class:`Vector` writes the vector
instructions itself: ``a * b + c`` on Vectors is one multiplication and one addition in every lane,
in that order, and nothing is reassociated or fused unless :meth:`Vector.fma` says so.

exp2 and log2 look a first guess up in a table of 16 numbers (32 in float32), which is as much as
two registers of 512 bits hold: one instruction there, single loads elsewhere, the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils

from gabactl.loops.kernels import elementary as el

__all__ = ["Lanes", "Vector", "cos_sin_turn", "exp2", "log2", "together", "use_wide_vectors"]

_INT = {64: ir.IntType(64), 32: ir.IntType(32)}
_WIDEST = 512


def use_wide_vectors(builder: Any) -> None:
    """Let the function being built use 512-bit vectors where the machine has them.

    Some processors are told to prefer 256 bits, because short bursts of wider ones lower the clock;
    these loops run for long enough. The attribute belongs to this function alone.
    """
    # llvmlite knows no attribute with a value, but writes what is in the set.
    set.add(builder.function.attributes, '"prefer-vector-width"="512"')


class Lanes:
    """How many lanes a vector has, of which float, and where its instructions go.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where instructions go.
    width : int
        Lanes of one part.
    bits : {64, 32}
        Size of the float.
    parts : int
        Parts of a vector. Every operation is written for one part after another, so that one works
        while others wait.
    features : str
        What the machine can do, as LLVM names it: ``"+avx512f,+avx512dq"``.
    """

    def __init__(
        self, builder: Any, width: int, bits: int = 64, parts: int = 1, features: str = ""
    ) -> None:
        self.builder = builder
        self.width = width
        self.bits = bits
        self.parts = parts
        self.features = features
        self.scalar = ir.DoubleType() if bits == 64 else ir.FloatType()
        self.float = ir.VectorType(self.scalar, width)
        self.integer = ir.VectorType(_INT[bits], width)

    def of(self, bits: int) -> Lanes:
        """The same lanes in floats of another size."""
        return Lanes(self.builder, self.width, bits, self.parts, self.features)

    def has(self, feature: str) -> bool:
        """Whether the machine can do that."""
        return f"+{feature}" in self.features.split(",")

    def _same(self, value: Any) -> Vector:
        return Vector(self, [value] * self.parts)

    def constant(self, value: float) -> Vector:
        """One number in every lane."""
        return self._same(ir.Constant(self.float, [float(value)] * self.width))

    def whole(self, value: int) -> Vector:
        """One integer in every lane."""
        return self._same(ir.Constant(self.integer, [int(value)] * self.width))

    def spread(self, scalar: Any) -> Vector:
        """A number (or integer, or truth value) of the program in every lane."""
        kind = ir.VectorType(scalar.type, self.width)
        one = self.builder.insert_element(
            ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_INT[32], 0)
        )
        every = ir.Constant(ir.VectorType(_INT[32], self.width), [0] * self.width)
        return self._same(self.builder.shuffle_vector(one, one, every))

    def _places(self, base: Any, offset: Any, kind: Any) -> list[Any]:
        build = self.builder
        offsets = [
            build.add(offset, ir.Constant(offset.type, part * self.width))
            for part in range(self.parts)
        ]
        return [build.bitcast(build.gep(base, [o]), kind.as_pointer()) for o in offsets]

    def load(self, base: Any, offset: Any, whole: bool = False) -> Vector:
        """The numbers (integers, if ``whole``) from ``offset`` on."""
        places = self._places(base, offset, self.integer if whole else self.float)
        return Vector(self, [self.builder.load(p, align=self.bits // 8) for p in places])

    def store(self, value: Vector, base: Any, offset: Any) -> None:
        """Put them there."""
        for part, place in zip(value.values, self._places(base, offset, self.float), strict=True):
            self.builder.store(part, place, align=self.bits // 8)


class Vector:
    """One number per lane. Python numbers mix with it; comparisons give a mask."""

    def __init__(self, lanes: Lanes, values: Sequence[Any]) -> None:
        self.lanes = lanes
        self.values = list(values)

    @property
    def _is_float(self) -> bool:
        return isinstance(self.values[0].type.element, (ir.DoubleType, ir.FloatType))

    def _others(self, other: Vector | float | int) -> list[Any]:
        if isinstance(other, Vector):
            return other.values
        kind = self.values[0].type
        return [ir.Constant(kind, [other] * self.lanes.width)] * len(self.values)

    def _each(self, operation: Callable[..., Any], *others: Any, swap: bool = False) -> Vector:
        rows = [self.values, *(self._others(o) for o in others)]
        if swap:
            rows.reverse()
        return Vector(self.lanes, [operation(*parts) for parts in zip(*rows, strict=True)])

    def _do(self, for_floats: str, for_integers: str, other: Any, swap: bool = False) -> Vector:
        operation = getattr(self.lanes.builder, for_floats if self._is_float else for_integers)
        return self._each(operation, other, swap=swap)

    def __add__(self, other: Any) -> Vector:
        return self._do("fadd", "add", other)

    def __sub__(self, other: Any) -> Vector:
        return self._do("fsub", "sub", other)

    def __rsub__(self, other: Any) -> Vector:
        return self._do("fsub", "sub", other, swap=True)

    def __mul__(self, other: Any) -> Vector:
        return self._do("fmul", "mul", other)

    def __truediv__(self, other: Any) -> Vector:
        return self._do("fdiv", "sdiv", other)

    def __rtruediv__(self, other: Any) -> Vector:
        return self._do("fdiv", "sdiv", other, swap=True)

    def __neg__(self) -> Vector:
        return self._each(self.lanes.builder.fneg)

    def __and__(self, other: Any) -> Vector:
        return self._do("and_", "and_", other)

    def __or__(self, other: Any) -> Vector:
        return self._do("or_", "or_", other)

    def __xor__(self, other: Any) -> Vector:
        return self._do("xor", "xor", other)

    def __lshift__(self, other: Any) -> Vector:
        return self._do("shl", "shl", other)

    def __rshift__(self, other: Any) -> Vector:
        """Arithmetic: the sign is kept."""
        return self._do("ashr", "ashr", other)

    def __lt__(self, other: Any) -> Vector:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Vector:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Vector:
        return self._compare(">", other)

    def differs(self, other: Any) -> Vector:
        """Where the integers differ."""
        return self._compare("!=", other)

    def _compare(self, sign: str, other: Any) -> Vector:
        build = self.lanes.builder
        compare = build.fcmp_ordered if self._is_float else build.icmp_signed
        return self._each(lambda a, b: compare(sign, a, b), other)

    def where(self, yes: Vector, no: Vector) -> Vector:
        """A mask's choice."""
        return self._each(self.lanes.builder.select, yes, no)

    def largest(self, other: Vector) -> Vector:
        """The larger of two numbers; ``other`` where the comparison is not true."""
        return (self > other).where(self, other)

    def least(self, other: Vector) -> Vector:
        """The smaller of two numbers; ``other`` where the comparison is not true."""
        return (self < other).where(self, other)

    def fma(self, factor: Any, term: Any) -> Vector:
        """self * factor + term, rounded once."""
        return self._call("fma", factor, term)

    def sqrt(self) -> Vector:
        """Square root, correctly rounded."""
        return self._call("sqrt")

    def _call(self, name: str, *others: Any) -> Vector:
        kind = self.values[0].type
        full = f"llvm.{name}.v{self.lanes.width}f{self.lanes.bits}"
        signature = ir.FunctionType(kind, [kind] * (1 + len(others)))
        function = cgutils.get_or_insert_function(self.lanes.builder.module, signature, full)
        return self._each(lambda *parts: self.lanes.builder.call(function, parts), *others)

    def bits(self) -> Vector:
        """The floats' bits, as integers."""
        return self._each(lambda v: self.lanes.builder.bitcast(v, self.lanes.integer))

    def as_float(self) -> Vector:
        """The floats that have these bits."""
        return self._each(lambda v: self.lanes.builder.bitcast(v, self.lanes.float))

    def to_float(self) -> Vector:
        """The integers as floats, exact below 2^31 and for few digits (see :func:`log2`)."""
        return self._each(lambda v: self.lanes.builder.sitofp(v, self.lanes.float))

    def rounded_to(self, lanes: Lanes) -> Vector:
        """The same numbers in floats of another size."""
        if lanes.bits == self.lanes.bits:
            return self
        build = self.lanes.builder
        change = build.fptrunc if lanes.bits < self.lanes.bits else build.fpext
        return Vector(lanes, [change(v, lanes.float) for v in self.values])

    def pick(self, table: Sequence[float]) -> Vector:
        """Of each lane's integer the low bits, and of the table the number they stand for.

        The table has 16 numbers (32 in float32).
        """
        choose = _permute if self.lanes.has("avx512f") else _look_up
        return self._each(lambda v: choose(self.lanes, v, table))


def _permute(lanes: Lanes, index: Any, table: Sequence[float]) -> Any:
    """Two registers hold the table; one instruction takes from both."""
    build, at_once = lanes.builder, _WIDEST // lanes.bits
    kind, whole = ir.VectorType(lanes.scalar, at_once), ir.VectorType(_INT[lanes.bits], at_once)
    name = f"llvm.x86.avx512.vpermi2var.p{'d' if lanes.bits == 64 else 's'}.512"
    function = cgutils.get_or_insert_function(
        build.module, ir.FunctionType(kind, [kind, whole, kind]), name
    )
    halves = [ir.Constant(kind, [float(x) for x in h]) for h in np.split(np.array(table), 2)]

    def places(start: int, count: int) -> Any:
        return ir.Constant(ir.VectorType(_INT[32], count), list(range(start, start + count)))

    pieces = []
    for start in range(0, lanes.width, at_once):
        piece = index
        if lanes.width > at_once:
            piece = build.shuffle_vector(index, index, places(start, at_once))
        pieces.append(build.call(function, [halves[0], piece, halves[1]]))
    while len(pieces) > 1:
        count = 2 * pieces[0].type.count
        pieces = [
            build.shuffle_vector(a, b, places(0, count))
            for a, b in zip(pieces[::2], pieces[1::2], strict=True)
        ]
    return pieces[0]


def _look_up(lanes: Lanes, index: Any, table: Sequence[float]) -> Any:
    build = lanes.builder
    row = ir.Constant(ir.ArrayType(lanes.scalar, len(table)), [float(x) for x in table])
    held = cgutils.global_constant(build.module, "table", row)
    zero, low = ir.Constant(_INT[32], 0), ir.Constant(index.type.element, len(table) - 1)
    out = ir.Constant(lanes.float, ir.Undefined)
    for n in range(lanes.width):
        lane = ir.Constant(_INT[32], n)
        place = build.and_(build.extract_element(index, lane), low)
        out = build.insert_element(out, build.load(build.gep(held, [zero, place])), lane)
    return out


def together(function: Callable[[Vector], Vector], given: Sequence[Vector]) -> list[Vector]:
    """A function of several vectors, two at a time, so that one works while the other waits."""
    out: list[Vector] = []
    for n in range(0, len(given), 2):
        some = given[n : n + 2]
        done = function(Vector(some[0].lanes, [part for v in some for part in v.values])).values
        size = len(some[0].values)
        out += [Vector(v.lanes, done[i * size : (i + 1) * size]) for i, v in enumerate(some)]
    return out


def _polynomial(x: Vector, coefficients: Sequence[Any]) -> Vector:
    """Horner's rule, highest power first."""
    p = x.fma(coefficients[0], coefficients[1])
    for c in coefficients[2:]:
        p = p.fma(x, c)
    return p


# (2^r - 1)/r on |r| <= 1/32 (1/64), error of 2^r 7e-18 (1e-10); highest power first, as below.
_EXP2 = (
    0.00015403814364659654489,
    0.0013333818775076688502,
    0.0096181291057180836071,
    0.05550410865209917462,
    0.24022650695910110059,
    0.69314718055994686137,
)
_EXP2_32 = (0.055504569030110754159, 0.24022845225851225961, 0.69314718052702586164)
# log2(1 + r)/r on |r| <= 1/32 (1/64), error 1.1e-15 (3e-7).
_LOG2 = (
    -0.18068958120565067984,
    0.20641272863358905522,
    -0.24044888057854970448,
    0.28853881679923645485,
    -0.36067376031480376242,
    0.48089834700037344836,
    -0.72134752044447348496,
    1.4426950408889622663,
)
_LOG2_32 = (0.48098641895224113592, -0.72141357077712312202, 1.4426950365882777014)


class _Format:
    """What exp2 and log2 take from the layout of a float type, and their tables."""

    def __init__(self, bits: int) -> None:
        real, whole = (np.float64, np.int64) if bits == 64 else (np.float32, np.int32)
        mantissa = int(np.finfo(real).nmant)
        digits = 4 if bits == 64 else 5
        count, step = 1 << digits, 1 << (mantissa - digits)

        def bits_of(x: float) -> int:
            return int(np.asarray(x, dtype=real).view(whole))

        def number(x: int) -> float:
            return float(np.array(x, dtype=whole).view(real))

        self.mantissa, self.step_bits = mantissa, mantissa - digits
        self.exp2: tuple[float, ...] = _EXP2 if bits == 64 else _EXP2_32
        self.log2: tuple[float, ...] = _LOG2 if bits == 64 else _LOG2_32
        #: Adding it rounds to a multiple of 1/count, which is then held in the low bits.
        self.shifter = 1.5 * 2.0 ** (mantissa - digits)
        #: 2^(j/count), less the j that comes along where the low bits are put into the exponent.
        roots = [Decimal(2) ** (Decimal(j) / count) for j in range(count)]
        self.powers = [number(bits_of(float(x)) - j * step) for j, x in enumerate(roots)]
        #: Numbers from here to twice this are split into ``count`` intervals. 1 lies within one, so
        #: that a logarithm near 0 keeps its digits.
        self.lowest = bits_of(0.5) + (6 if bits == 64 else 13) * step + step // 2
        ends = [number(self.lowest + j * step) for j in range(count + 1)]
        middles = [1.0 if a < 1 < b else (a + b) / 2 for a, b in pairwise(ends)]
        self.inverses = [float(real(1.0 / m)) for m in middles]
        two = Decimal(2).ln()
        self.logs = [float(-Decimal(x).ln() / two) for x in self.inverses]


_FORMATS = {bits: _Format(bits) for bits in (64, 32)}


def exp2(x: Vector) -> Vector:
    """2^x of numbers whose power is normal, within 1 ulp (1.5 in float32)."""
    form = _FORMATS[x.lanes.bits]
    t = x + form.shifter
    r = x - (t - form.shifter)
    t = t.bits()
    power = (t.pick(form.powers).bits() + (t << form.step_bits)).as_float()
    return (power * r).fma(_polynomial(r, form.exp2), power)


def log2(x: Vector) -> Vector:
    """Binary logarithm of positive normal finite numbers, within 1.5 ulp or 1.2e-16 (2e-8).

    Where it is small, within 1.2e-15 (5e-7 in float32) of itself; of 1 it is 0.
    """
    form, lanes = _FORMATS[x.lanes.bits], x.lanes
    bits = x.bits()
    above = bits - form.lowest
    exponent = above & (-1 << form.mantissa)
    place = above >> form.step_bits
    r = (bits - exponent).as_float().fma(place.pick(form.inverses), -1.0)
    start = place.pick(form.logs)
    if lanes.bits == 32 or lanes.has("avx512dq"):
        whole = exponent.to_float().fma(2.0**-form.mantissa, start)
    else:  # no instruction for it: in the low bits of a float, and the rest of that taken off
        n = (exponent >> form.mantissa) + el.SHIFTER_BITS
        whole = n.as_float() - el.SHIFTER + start
    return r.fma(_polynomial(r, form.log2), whole)


def cos_sin_turn(word: Vector) -> tuple[Vector, Vector]:
    """Cosine and sine of 2 pi word / 2^32: the numbers of :func:`elementary.cos_sin_turn`."""
    quarter = (word + 0x20000000) >> 30
    rest = word - (quarter << 30)
    if word.lanes.has("avx512dq"):
        x = rest.to_float()
    else:
        x = (rest + el.SHIFTER_BITS).as_float() - el.SHIFTER
    x = x * el.TURN
    z = x * x
    sine = (x * z).fma(_polynomial(z, el.SINE), x)
    cosine = (z * z).fma(_polynomial(z, el.COSINE), z.fma(-0.5, 1.0))
    swap = (quarter & 1).differs(0)
    a, b = swap.where(sine, cosine), swap.where(cosine, sine)
    sign = -1 << 63
    a = (a.bits() ^ (((quarter + 1) << 62) & sign)).as_float()
    b = (b.bits() ^ ((quarter << 62) & sign)).as_float()
    return a, b
