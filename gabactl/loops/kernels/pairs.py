"""Two numbers side by side in one vector: the work of a single loop of two tasks, halved.

Every operation rounds as the scalar one does; nothing is reassociated or fused that does not say
so. Neighbouring calls keep their numbers in vectors, because the compiler cancels taking a vector
apart and putting it together again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from gabactl.loops.kernels import elementary as el
from gabactl.loops.kernels.vectors import Lanes, Vector

__all__ = ["clamped", "exp_pair", "grown_pair", "quotients", "smoothed"]

_PAIR = types.UniTuple(types.float64, 2)
_SERIES = types.UniTuple(types.float64, 8)
_INDEX = ir.IntType(32)


def _join(lanes: Lanes, first: Any, second: Any) -> Vector:
    vector = ir.Constant(lanes.float, ir.Undefined)
    for place, number in enumerate((first, second)):
        vector = lanes.builder.insert_element(vector, number, ir.Constant(_INDEX, place))
    return Vector(lanes, [vector])


def _unpack(lanes: Lanes, pair: Any) -> list[Any]:
    count = pair.type.count
    return [lanes.builder.extract_value(pair, place) for place in range(count)]


def _pack(context: Any, lanes: Lanes, vector: Vector) -> Any:
    build = lanes.builder
    numbers = [
        build.extract_element(vector.values[0], ir.Constant(_INDEX, place)) for place in (0, 1)
    ]
    return context.make_tuple(build, _PAIR, numbers)


def _on_pairs(context: Any, builder: Any, arguments: Any, work: Callable[..., Vector]) -> Any:
    """Pairs become vectors, single numbers a vector of two, series as many vectors as they have."""
    lanes = Lanes(builder, 2)
    given: list[Any] = []
    for argument in arguments:
        if isinstance(argument.type, ir.DoubleType):
            given.append(lanes.spread(argument))
        else:
            given.append(_join(lanes, *_unpack(lanes, argument)))
    return _pack(context, lanes, work(*given))


@intrinsic
def exp_pair(typing_context: Any, x: Any) -> Any:
    """e^x of two numbers within +-700: the same bits as :func:`elementary.quick_exp`."""

    def work(x: Vector) -> Vector:
        def constant(place: int) -> Vector:
            return x.lanes.constant(el.EXP[place])

        def two(place: int) -> Vector:
            return x_.fma(constant(place), constant(place + 1))

        t = x.fma(el.LOG2E, x.lanes.constant(el.SHIFTER))
        n = t - el.SHIFTER
        x_ = n.fma(-el.LN2_LOW, n.fma(-el.LN2_HIGH, x))
        r2 = x_ * x_
        r4 = r2 * r2
        low = two(6).fma(r2, two(8))
        high = two(2).fma(r2, two(4))
        p = two(0).fma(r4, high).fma(r4, low)
        y = r2.fma(p, x_ + 1.0)
        return (y.bits() + (t.bits() << 52)).as_float()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _on_pairs(context, builder, arguments, work)

    return _PAIR(_PAIR), generate


@intrinsic
def grown_pair(typing_context: Any, x: Any, base: Any, first: Any, second: Any) -> Any:
    """base (1 + c_1 x + ... + c_8 x^8) of two numbers and two series of coefficients c.

    In pairs of terms, so that no term waits long for another; ``base`` may come late.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(builder, 2)
        x_, base_ = lanes.spread(arguments[0]), _join(lanes, *_unpack(lanes, arguments[1]))
        series = zip(*(_unpack(lanes, c) for c in arguments[2:]), strict=True)
        c = [_join(lanes, a, b) for a, b in series]
        x2 = x_ * x_
        low = x_.fma(c[3], c[2]).fma(x2, x_.fma(c[1], c[0]))
        high = x_.fma(c[7], c[6]).fma(x2, x_.fma(c[5], c[4]))
        grown = (base_ * x_).fma(high.fma(x2 * x2, low), base_)
        return _pack(context, lanes, grown)

    return _PAIR(types.float64, _PAIR, _SERIES, _SERIES), generate


@intrinsic
def smoothed(typing_context: Any, e: Any, raw: Any, pole: Any, keep: Any) -> Any:
    """pole e + keep raw, of two numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _on_pairs(
            context, builder, arguments, lambda e, raw, pole, keep: pole * e + keep * raw
        )

    return _PAIR(_PAIR, _PAIR, types.float64, types.float64), generate


@intrinsic
def clamped(typing_context: Any, e: Any, floor: Any) -> Any:
    """The floor where a number is below it, else the number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _on_pairs(context, builder, arguments, lambda e, floor: (e < floor).where(floor, e))

    return _PAIR(_PAIR, types.float64), generate


@intrinsic
def quotients(typing_context: Any, above: Any, below: Any) -> Any:
    """Two divisions at once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _on_pairs(context, builder, arguments, lambda above, below: above / below)

    return _PAIR(_PAIR, _PAIR), generate
