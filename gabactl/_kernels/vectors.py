"""Numbers that hold one lane of several loops each: vector code that says what it computes.

A compiler turns a loop over lanes into vector instructions only when it feels sure; a step of a
closed loop is too long for that. Inside a numba intrinsic, :class:`Vector` writes the vector
instructions itself: ``a * b + c`` on Vectors is one multiplication and one addition in every lane,
in that order, and nothing is reassociated or fused unless :meth:`Vector.fma` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils

from gabactl._kernels import elementary as el

__all__ = ["Lanes", "Vector", "cos_sin_turn", "exp_bounded", "inverse", "log", "use_wide_vectors"]

_SHIFTER = 6755399441055744.0
_INT = {64: ir.IntType(64), 32: ir.IntType(32)}


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
        Lanes of one vector.
    bits : {64, 32}
        Size of the float.
    """

    def __init__(self, builder: Any, width: int, bits: int = 64) -> None:
        self.builder = builder
        self.width = width
        self.bits = bits
        self.scalar = ir.DoubleType() if bits == 64 else ir.FloatType()
        self.float = ir.VectorType(self.scalar, width)
        self.integer = ir.VectorType(_INT[bits], width)

    def of(self, bits: int) -> Lanes:
        """The same lanes in floats of another size."""
        return Lanes(self.builder, self.width, bits)

    def constant(self, value: float) -> Vector:
        """One number in every lane."""
        return Vector(self, ir.Constant(self.float, [float(value)] * self.width))

    def whole(self, value: int) -> Vector:
        """One integer in every lane."""
        return Vector(self, ir.Constant(self.integer, [int(value)] * self.width))

    def counting(self) -> Vector:
        """0, 1, 2, ... as integers."""
        return Vector(self, ir.Constant(self.integer, list(range(self.width))))

    def spread(self, scalar: Any) -> Vector:
        """A number (or integer, or truth value) of the program in every lane."""
        kind = ir.VectorType(scalar.type, self.width)
        one = self.builder.insert_element(
            ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_INT[32], 0)
        )
        every = ir.Constant(ir.VectorType(_INT[32], self.width), [0] * self.width)
        return Vector(self, self.builder.shuffle_vector(one, one, every))

    def _at(self, base: Any, offset: Any) -> Any:
        pointer = self.builder.gep(base, [offset])
        return self.builder.bitcast(pointer, self.float.as_pointer())

    def load(self, base: Any, offset: Any) -> Vector:
        """The numbers from ``offset`` on."""
        return Vector(self, self.builder.load(self._at(base, offset), align=self.bits // 8))

    def store(self, value: Vector, base: Any, offset: Any) -> None:
        """Put them there."""
        self.builder.store(value.value, self._at(base, offset), align=self.bits // 8)


class Vector:
    """One number per lane. Python numbers mix with it; comparisons give a mask."""

    def __init__(self, lanes: Lanes, value: Any) -> None:
        self.lanes = lanes
        self.value = value

    @property
    def _is_float(self) -> bool:
        return isinstance(self.value.type.element, (ir.DoubleType, ir.FloatType))

    def _other(self, other: Vector | float | int) -> Any:
        if isinstance(other, Vector):
            return other.value
        return ir.Constant(self.value.type, [other] * self.lanes.width)

    def _do(self, for_floats: str, for_integers: str, other: Any, swap: bool = False) -> Vector:
        a, b = self.value, self._other(other)
        operation = getattr(self.lanes.builder, for_floats if self._is_float else for_integers)
        return Vector(self.lanes, operation(b, a) if swap else operation(a, b))

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
        return Vector(self.lanes, self.lanes.builder.fneg(self.value))

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
        return Vector(self.lanes, compare(sign, self.value, self._other(other)))

    def where(self, yes: Vector, no: Vector) -> Vector:
        """A mask's choice."""
        return Vector(self.lanes, self.lanes.builder.select(self.value, yes.value, no.value))

    def largest(self, other: Vector) -> Vector:
        """The larger of two numbers; ``other`` where the comparison is not true."""
        return (self > other).where(self, other)

    def least(self, other: Vector) -> Vector:
        """The smaller of two numbers; ``other`` where the comparison is not true."""
        return (self < other).where(self, other)

    def fma(self, factor: Any, term: Any) -> Vector:
        """self * factor + term, rounded once."""
        return self._call("fma", self._other(factor), self._other(term))

    def sqrt(self) -> Vector:
        """Square root, correctly rounded."""
        return self._call("sqrt")

    def _call(self, name: str, *others: Any) -> Vector:
        kind = self.value.type
        full = f"llvm.{name}.v{self.lanes.width}f{self.lanes.bits}"
        signature = ir.FunctionType(kind, [kind] * (1 + len(others)))
        function = cgutils.get_or_insert_function(self.lanes.builder.module, signature, full)
        return Vector(self.lanes, self.lanes.builder.call(function, [self.value, *others]))

    def bits(self) -> Vector:
        """The floats' bits, as integers."""
        return Vector(self.lanes, self.lanes.builder.bitcast(self.value, self.lanes.integer))

    def as_float(self) -> Vector:
        """The floats that have these bits."""
        return Vector(self.lanes, self.lanes.builder.bitcast(self.value, self.lanes.float))

    def rounded_to(self, lanes: Lanes) -> Vector:
        """The same numbers in floats of another size."""
        if lanes.bits == self.lanes.bits:
            return self
        build = self.lanes.builder
        change = build.fptrunc if lanes.bits < self.lanes.bits else build.fpext
        return Vector(lanes, change(self.value, lanes.float))


def _polynomial(x: Vector, coefficients: Sequence[Any]) -> Vector:
    """Horner's rule, highest power first."""
    p = x.lanes.constant(coefficients[0])
    for c in coefficients[1:]:
        p = p.fma(x, c)
    return p


def inverse(x: Vector) -> Vector:
    """1/x of a positive number whose inverse is normal, within 1 ulp.

    In float64 by two steps of fourth order from a guess on the bits, because a vector division
    takes as long as sixteen multiplications.
    """
    if x.lanes.bits == 32:
        return 1.0 / x
    r = (0x7FDE6238502484BA - x.bits()).as_float()  # within 5.1 %
    one = x.lanes.constant(1.0)
    for _ in range(2):
        error = (-x).fma(r, one)
        r = r.fma(error, r)
        r = r.fma(error * error, r)
    return r


def exp_bounded(x: Vector) -> Vector:
    """e^x of numbers within +-700 (+-80 in float32): the same bits as :func:`elementary.exp`."""
    half = x.lanes.bits == 32
    high, low = (el.LN2_HIGH_32, el.LN2_LOW_32) if half else (el.LN2_HIGH, el.LN2_LOW)
    shifter = el.SHIFTER_32 if half else _SHIFTER
    t = x.fma(el.LOG2E, x.lanes.constant(shifter))
    n = t - shifter
    r = n.fma(-low, n.fma(-high, x))
    y = (r * r).fma(_polynomial(r, el.EXP_32 if half else el.EXP), r) + 1.0
    # y is near 1, so that 2^n goes straight into its exponent.
    return (y.bits() + (t.bits() << (23 if half else 52))).as_float()


def log(x: Vector) -> Vector:
    """Natural logarithm of positive normal finite numbers, within 1.5 ulp (2 in float32)."""
    half = x.lanes.bits == 32
    high, low = (el.LN2_HIGH_32, el.LN2_LOW_32) if half else (el.LN2_HIGH, el.LN2_LOW)
    shifter, shifter_bits = (
        (el.SHIFTER_32, el.SHIFTER_BITS_32) if half else (_SHIFTER, el.SHIFTER_BITS)
    )
    mantissa = 23 if half else 52
    bits = x.bits()
    k = (bits - (el.SQRT_HALF_BITS_32 if half else el.SQRT_HALF_BITS)) >> mantissa
    f = (bits - (k << mantissa)).as_float() - 1.0
    n = (k + shifter_bits).as_float() - shifter
    s = f * inverse(f + 2.0)
    z = s * s
    p = _polynomial(z, el.LOG_32 if half else el.LOG)
    tail = n.fma(low, -s * (-z).fma(p, f))
    return n.fma(high, f) + tail


def cos_sin_turn(word: Vector) -> tuple[Vector, Vector]:
    """Cosine and sine of 2 pi word / 2^32: the same bits as :func:`elementary.cos_sin_turn`."""
    quarter = (word + 0x20000000) >> 30
    x = ((word - (quarter << 30)) + el.SHIFTER_BITS).as_float() - _SHIFTER
    x = x * el.TURN
    z = x * x
    sine = (x * z).fma(_polynomial(z, el.SINE), x)
    cosine = (z * z).fma(_polynomial(z, el.COSINE), z.fma(-0.5, z.lanes.constant(1.0)))
    swap = (quarter & 1).differs(0)
    a, b = swap.where(sine, cosine), swap.where(cosine, sine)
    a = ((quarter + 1) & 2).differs(0).where(-a, a)
    b = (quarter & 2).differs(0).where(-b, b)
    return a + 0.0, b + 0.0
