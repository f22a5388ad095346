"""What is computed along a row of numbers: the largest, and exponentials.

exp(x) = 2^n 2^f with n whole and f at most 1/2: 2^n is written into the exponent of a float32, 2^f
is its Taylor series, whose error is below float32's rounding. Every sum has one order, whatever the
number of rows and threads.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from das_lib.adml.cpu.vectors import (
    F32,
    I32,
    I64,
    LANES,
    VECTOR,
    Memory,
    call,
    constant,
    intrinsic,
    phi,
    spread,
)

WIDTH = 4 * LANES
"""Numbers of a row that are under way at once."""
TERMS = 7
LEAST = -126.0  # the exponent of the smallest float32


@intrinsic
def floats(_: Any, address: Any) -> Any:
    """An address as one of float32."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], F32.as_pointer())

    return types.CPointer(types.float32)(types.int64), emit


@intrinsic
def largest(_: Any, address: Any, count: Any) -> Any:
    """The largest of ``count`` float32, a positive multiple of WIDTH."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        def most(one: Any, other: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", other, one), other, one)

        address, count = args
        return _reduce(builder, address, count, -math.inf, lambda value, x, _: most(value, x), most)

    return types.float32(types.int64, types.int64), emit


@intrinsic
def exponentials(_: Any, address: Any, count: Any, top: Any) -> Any:
    """The sum of exp(x - top) over ``count`` float32, a positive multiple of WIDTH."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        address, count, top = args
        tops = spread(builder, top)

        def step(total: Any, x: Any, _: Any) -> Any:
            return builder.fadd(total, _exp(builder, builder.fsub(x, tops)))

        return _reduce(builder, address, count, 0.0, step, builder.fadd)

    return types.float32(types.int64, types.int64, types.float32), emit


@intrinsic
def exponentiate(_: Any, address: Any, count: Any, top: Any, scale: Any) -> Any:
    """Write exp(scale (x - top)) in the place of each x, and give their sum; see `exponentials`."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        address, count, top, scale = args
        tops, scales, memory = spread(builder, top), spread(builder, scale), Memory(builder)

        def step(total: Any, x: Any, at: Any) -> Any:
            value = _exp(builder, builder.fmul(builder.fsub(x, tops), scales))
            memory.store(value, at)
            return builder.fadd(total, value)

        return _reduce(builder, address, count, 0.0, step, builder.fadd)

    return types.float32(types.int64, types.int64, types.float32, types.float32), emit


def _exp(builder: Any, x: Any) -> Any:
    """Of numbers of at most 0; what is below 2^LEAST becomes that."""
    x = builder.fmul(x, constant(math.log2(math.e)))
    least = constant(LEAST)
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    whole = call(builder, "rint", x)
    part = builder.fsub(x, whole)
    series = constant(math.log(2) ** TERMS / math.factorial(TERMS))
    for power in reversed(range(TERMS)):
        term = constant(math.log(2) ** power / math.factorial(power))
        series = call(builder, "fmuladd", series, part, term)
    integers = ir.VectorType(I32, LANES)
    exponent = builder.add(builder.fptosi(whole, integers), ir.Constant(integers, [127] * LANES))
    bits = builder.shl(exponent, ir.Constant(integers, [23] * LANES))
    return builder.fmul(series, builder.bitcast(bits, VECTOR))


def _reduce(
    builder: Any,
    address: Any,
    count: Any,
    first: float,
    step: Callable[[Any, Any, Any], Any],
    join: Callable[[Any, Any], Any],
) -> Any:
    """Run ``step`` over registers and their addresses, four results at a time, and join those."""
    memory, start = Memory(builder), builder.block
    body, done = builder.append_basic_block("reduce"), builder.append_basic_block("reduced")
    builder.branch(body)
    builder.position_at_end(body)
    i = phi(builder, I64, {start: I64(0)})
    before = [phi(builder, VECTOR, {start: constant(first)}) for _ in range(WIDTH // LANES)]
    at = builder.add(address, builder.mul(i, I64(4)))
    places = [builder.add(at, I64(4 * LANES * v)) for v in range(len(before))]
    after = [
        step(value, memory.load(place), place) for value, place in zip(before, places, strict=True)
    ]
    following = builder.add(i, I64(WIDTH))
    for value, new in zip([i, *before], [following, *after], strict=True):
        value.add_incoming(new, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), body, done)
    builder.position_at_end(done)
    lanes = [builder.extract_element(functools.reduce(join, after), I32(i)) for i in range(LANES)]
    return functools.reduce(join, lanes)
