"""Products of float32 on Intel's matrix unit, AMX, which multiplies bfloat16 and adds in float32.

A number is split into two of bfloat16, x = h + l, which hold its first 16 bits; then

    x w = h_x h_w + l_x h_w + h_x l_w

but for l_x l_w, so three products do for one. Their error is some 2^-16 of what is multiplied,
where a single one's is 2^-9; they take less than half of what vectors take for one in float32.

Every sum has one order, whatever the number of rows and threads.

Shape suffixes: M rows, I inputs, O outputs.
"""

from typing import Any

import torch
from llvmlite import ir
from numba import carray, types

from das_lib.adml.cpu.openmp import fields, kernel, run, thread, threads
from das_lib.adml.cpu.rows import floats
from das_lib.adml.cpu.vectors import I16, I32, I64, LANES, VECTOR, Memory, intrinsic, phi

if LANES != 16 or not (torch.cpu.get_capabilities().get("amx_bf16") and torch.cpu._init_amx()):
    raise ImportError("the CPU has no matrix unit for bfloat16, or the system keeps it back")

SIDE = 32
"""Rows and columns that are multiplied at once, over as many inputs: four sums of two tiles by two,
which leaves four of the eight for what is multiplied."""
STEP = 4 * SIDE * SIDE
"""Bytes of a factor for one such block: the upper parts of two tiles, then the lower ones."""
CHUNK = 128
"""Rows that are split and kept: 1 MB at 2048 inputs, which the core's own cache holds."""
TILE = 1024
LINE = 64
"""Bytes of a tile, and of one of its 16 lines."""
SPLIT = fields("count inputs outputs x x_m w bias y a c config")


def fits(weight_OI: torch.Tensor) -> bool:
    """Whether `pack_split` takes such a matrix."""
    return all(size % SIDE == 0 for size in weight_OI.shape)


def pack_split(weight_OI: torch.Tensor) -> torch.Tensor:
    """W^T as `split_linear` reads it: of SIDE outputs all inputs, then of the next outputs.

    Two inputs of an output stand side by side, as the unit takes its second factor.
    """
    high_OI = weight_OI.bfloat16()
    low_OI = (weight_OI - high_OI.float()).bfloat16()
    # [O, I] -> [outputs / SIDE, inputs / SIDE, part, tile, pair of inputs, output, input of it]
    parts = torch.stack([high_OI, low_OI]).unflatten(2, (-1, SIDE // 2, 2))
    return parts.unflatten(1, (-1, 2, SIDE // 2)).permute(1, 4, 0, 2, 5, 3, 6).contiguous()


def split_linear(x: torch.Tensor, packed: torch.Tensor, bias_O: torch.Tensor) -> torch.Tensor:
    """X W^T + b over the last axis.

    Args:
        x: float32.
        packed: W as `pack_split` gives it.
        bias_O: float32, contiguous.
    """
    x_MI, outputs = x.reshape(-1, x.shape[-1]), len(bias_O)
    if x_MI.stride(1) != 1:
        x_MI = x_MI.contiguous()
    count, inputs = x_MI.shape
    workers = torch.get_num_threads()
    y = x.new_empty(*x.shape[:-1], outputs)
    a = x.new_empty(workers, CHUNK, inputs)
    c = x.new_empty(workers, 2, SIDE, SIDE)  # a block's sums, and the unit's state as it was found
    task = (count, inputs, outputs, x_MI.data_ptr(), x_MI.stride(0), packed.data_ptr())
    task += (bias_O.data_ptr(), y.data_ptr(), a.data_ptr(), c.data_ptr(), _CONFIG.data_ptr())
    run(_split_linear, task, -(-count // SIDE))
    return y


_CONFIG = torch.zeros(64, dtype=torch.uint8)
"""What the unit is told: eight tiles of 16 lines of 64 bytes."""
_CONFIG[0] = 1
_CONFIG[16:32:2] = LINE
_CONFIG[48:56] = TILE // LINE


def _pointer(builder: Any, address: Any, kind: Any = None) -> Any:
    return builder.inttoptr(address, (kind or ir.IntType(8)).as_pointer())


def _unit(builder: Any, name: str, *values: Any) -> None:
    """One of the unit's instructions; tiles are named by constants of 8 bits."""
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    name = f"llvm.x86.{name}"
    found = builder.module.globals.get(name)
    builder.call(found or ir.Function(builder.module, kind, name), values)


@intrinsic
def configure(_: Any, saved: Any, config: Any) -> Any:
    """Keep the unit's state at the first address, and set it from the second."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        saved, config = (_pointer(builder, address) for address in args)
        _unit(builder, "sttilecfg", saved)
        _unit(builder, "ldtilecfg", config)
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(types.int64, types.int64), emit


@intrinsic
def restore(_: Any, saved: Any) -> Any:
    """Set the unit as it was: others who use it in this thread may count on that."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _unit(builder, "ldtilecfg", _pointer(builder, args[0]))
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(types.int64), emit


@intrinsic
def split(_: Any, x: Any, high: Any) -> Any:
    """Split SIDE float32 at ``x``: upper parts go to ``high``, lower ones half a STEP behind."""
    wide, narrow = ir.VectorType(I32, LANES), ir.VectorType(I16, LANES)

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        x, high = args

        def all_of(number: int) -> Any:
            return ir.Constant(wide, [number] * LANES)

        def rounded(value: Any) -> Any:
            """The nearest bfloat16, in the upper half of each lane; of two the even one."""
            bits = builder.bitcast(value, wide)
            odd = builder.and_(builder.lshr(bits, all_of(16)), all_of(1))
            bits = builder.add(bits, builder.add(odd, all_of(0x7FFF)))
            return builder.and_(bits, all_of(0xFFFF0000))

        def keep(bits: Any, at: Any) -> None:
            half = builder.trunc(builder.lshr(bits, all_of(16)), narrow)
            builder.store(half, _pointer(builder, at, narrow), align=2)

        for v in range(0, SIDE, LANES):
            value = Memory(builder).load(builder.add(x, I64(4 * v)))
            upper = rounded(value)
            keep(upper, builder.add(high, I64(2 * v)))
            lower = rounded(builder.fsub(value, builder.bitcast(upper, VECTOR)))
            keep(lower, builder.add(high, I64(STEP // 2 + 2 * v)))
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(types.int64, types.int64), emit


@intrinsic
def multiply(_: Any, a: Any, w: Any, steps: Any, bias: Any, y: Any, y_row: Any) -> Any:
    """y[m, :] = bias + sum over ``steps`` times SIDE inputs, for SIDE rows and columns.

    Addresses, and the step from row to row of y in bytes; all int64.
    """

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        a, w, steps, bias, y, y_row = args
        tile, line = ir.IntType(8), I64(LINE)

        def load(number: int, at: Any, index: int) -> None:
            address = _pointer(builder, builder.add(at, I64(TILE * index)))
            _unit(builder, "tileloadd64", tile(number), address, line)

        def product() -> None:
            for c in range(4):
                _unit(builder, "tdpbf16ps", tile(c), tile(4 + c // 2), tile(6 + c % 2))

        def place(first: Any, row: Any, number: int) -> Any:
            """Where one of the four tiles stands."""
            at = builder.add(first, builder.mul(row, I64(number // 2 * SIDE // 2)))
            return _pointer(builder, builder.add(at, I64(number % 2 * LINE)))

        for number in range(4):
            _unit(builder, "tileloadd64", tile(number), place(bias, I64(0), number), I64(0))
        entry = builder.block
        head, done = builder.append_basic_block("step"), builder.append_basic_block("done")
        builder.branch(head)
        builder.position_at_end(head)
        step, at, of_w = (phi(builder, I64, {entry: value}) for value in (I64(0), a, w))
        for number, index in ((4, 0), (5, 1)):
            load(number, at, index)
        for number, index in ((6, 2), (7, 3)):
            load(number, of_w, index)
        product()
        for number, index in ((6, 0), (7, 1)):
            load(number, of_w, index)
        product()
        for number, index in ((4, 2), (5, 3)):
            load(number, at, index)
        product()
        following = builder.add(step, I64(1))
        for value, new in (
            (step, following),
            (at, builder.add(at, I64(STEP))),
            (of_w, builder.add(of_w, I64(STEP))),
        ):
            value.add_incoming(new, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, steps), head, done)
        builder.position_at_end(done)
        for number in range(4):
            _unit(builder, "tilestored64", tile(number), place(y, y_row, number), y_row)
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(*[types.int64] * 6), emit


@kernel
def _split_linear(pointer: Any) -> None:
    t = carray(pointer, 1, SPLIT)[0]
    first, end = t.count * thread() // threads(), t.count * (thread() + 1) // threads()
    steps = t.inputs // SIDE
    a = t.a + thread() * CHUNK * t.inputs * 4
    c = t.c + thread() * 2 * STEP
    panel, y_row = 4 * t.inputs, 4 * t.outputs
    configure(c + STEP, t.config)
    for start in range(first, end, CHUNK):
        few = min(CHUNK, end - start)
        for m in range(few):
            x, at = t.x + 4 * (start + m) * t.x_m, a + m // SIDE * steps * STEP + m % SIDE * LINE
            for i in range(steps):
                split(x + 4 * SIDE * i, at + STEP * i)
        for o in range(0, t.outputs, SIDE):
            w, bias, y = t.w + o * panel, t.bias + 4 * o, t.y + 4 * (start * t.outputs + o)
            for m in range(0, few, SIDE):
                at = y + m * y_row
                if few - m < SIDE:
                    multiply(a + m * panel, w, steps, bias, c, 4 * SIDE)
                    for row in range(few - m):
                        sums = carray(floats(c + 4 * SIDE * row), SIDE)
                        kept = carray(floats(at + y_row * row), SIDE)
                        for j in range(SIDE):
                            kept[j] = sums[j]
                else:
                    multiply(a + m * panel, w, steps, bias, at, y_row)
    restore(c + STEP)
