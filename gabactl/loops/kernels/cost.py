"""What a step of the fast kernel costs, read off the machine code that is written for it."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import typeof

from gabactl.loops.kernels.rows import LIMITS, layout
from gabactl.loops.kernels.step import Step
from gabactl.loops.kernels.vectors import Lanes, use_wide_vectors

__all__ = ["operations"]

#: Moves and loads run on ports of their own.
_FREE = ("vmov", "vbroadcast", "vpbroadcast", "vzero", "mov", "ret", "push", "pop", "sub", "add")

#: A division or a root of 512 bits takes three places, and the divider.
_SLOW = ("vdiv", "vsqrt")
_PLACES_OF_SLOW = 3

_FLOATING = ("fadd", "fsub", "fmul", "fdiv", "fneg")
_INT64 = ir.IntType(64)


def operations(
    n_tasks: int, feedback: bool, noisy: bool, dtype: str = "float64", moving: bool = True
) -> dict[str, float]:
    """What one step of one loop costs where every loop takes a reading.

    Parameters
    ----------
    n_tasks, feedback, noisy, dtype
        Kind of loop.
    moving : bool
        Whether the disturbance changes at every step.

    Returns
    -------
    dict
        ``flop``: floating-point operations as written (a fused multiply-add is two, a division or
        a root one; comparisons and work on integers none). ``instructions``: vector instructions of
        the machine code that need an arithmetic port, loads and stores not among them; those of 512
        bits, or twice as many of 256 bits counted by halves. ``divisions``: how many of them are
        divisions or roots.

    Examples
    --------
    >>> operations(3, True, False)["flop"] > operations(3, False, False, moving=False)["flop"] > 10
    True
    """
    shape = typeof(layout(n_tasks, feedback, False, noisy, False))
    totals = dict.fromkeys(("flop", "instructions", "divisions"), 0.0)
    for part, share in (
        ("disturb", float(moving)),
        ("draw", 1.0),
        ("sense", 1.0),
        ("smooth", 1.0),
        ("answer", 1.0),
        ("watch", 0.25),
        ("fold", 1 / LIMITS[dtype][2]),
    ):
        for name, number in _of_part(shape, part, 64 if dtype == "float64" else 32).items():
            totals[name] += share * number
    return totals


def _of_part(shape: Any, part: str, bits: int) -> dict[str, float]:
    features = binding.get_host_cpu_features().flatten()
    scalar = ir.DoubleType() if bits == 64 else ir.FloatType()
    kinds = [scalar.as_pointer(), scalar.as_pointer(), _INT64.as_pointer(), scalar, _INT64]
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "part")
    builder = ir.IRBuilder(function.append_basic_block())
    use_wide_vectors(builder)
    rows, logs, loops, now, whole = function.args
    inputs = {
        "state": rows,
        "lane": ir.Constant(_INT64, 0),
        "logs": lambda i: builder.load(builder.gep(logs, [ir.Constant(_INT64, i)])),
        "now": now,
        "t": whole,
        "usable": ir.Constant(ir.IntType(1), 1),
        "loops": loops,
        "key": (whole, whole),
    }
    step = Step(Lanes(builder, 512 // bits, bits, 1, features), shape, inputs)
    getattr(step, part)(*((0,) if part == "smooth" else ()))
    builder.ret_void()
    flop = 0.0
    for instruction in builder.block.instructions:
        if isinstance(instruction.type, ir.VectorType):
            called = instruction.callee.name if instruction.opname == "call" else ""
            flop += 2 * called.startswith("llvm.fma") + called.startswith("llvm.sqrt")
            flop += instruction.opname in _FLOATING
    names = _machine_code(module, features)
    arithmetic = [name for name in names if name.startswith("v") and not name.startswith(_FREE)]
    slow = sum(name.startswith(_SLOW) for name in arithmetic)
    per = 1 if "+avx512f" in features.split(",") else 2
    return {
        "flop": flop,
        "instructions": (len(arithmetic) + (_PLACES_OF_SLOW - 1) * slow) / per,
        "divisions": slow / per,
    }


def _machine_code(module: Any, features: str) -> list[str]:
    """Names of the instructions."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3
    )
    parsed = binding.parse_assembly(str(module))
    options = binding.create_pipeline_tuning_options(speed_level=3)
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    lines = machine.emit_assembly(parsed).split("part:", 1)[1].splitlines()
    words = [line.split()[0] for line in lines if line.strip()]
    return [word for word in words if word[0] not in ".#" and not word.endswith(":")]
