"""The innermost loop of `products`: one tile of a product, kept in the processor's registers.

Some vectors x_m times some columns of W: every number of a line of W is read once and used for all
of the vectors, and no sum leaves its register before it is complete. A compiler's own vector loop
writes each sum back on every line; so this loop is written out for LLVM, once for every size of
tile that the registers hold.
"""

from itertools import product
from typing import Any

from llvmlite import ir
from numba import types

from das_lib.adml.cpu.vectors import (
    F32,
    I64,
    LANES,
    REGISTERS,
    VECTOR,
    Memory,
    call,
    constant,
    intrinsic,
    phi,
    prefetch,
    spread,
)

WIDE = 4 if REGISTERS == 32 else 2
"""Registers that the columns of the widest tile take."""
TALL = 6
"""Vectors of the widest tile: WIDE (TALL + 1) + 1 registers."""
THIN_TALL = 8
"""Vectors of the narrower tiles, so that enough sums are under way at once."""
COLUMNS = WIDE * LANES
CACHE_LINE = 64
"""Bytes that are read from memory at once."""


@intrinsic
def tile(
    _: Any,
    rows: Any,
    columns: Any,
    x: Any,
    x_row: Any,
    w: Any,
    w_row: Any,
    size: Any,
    y: Any,
    y_row: Any,
    lines: Any,
    start: Any,
    start_row: Any,
    ahead: Any,
) -> Any:
    """y[m, :] = start[m, :] + sum over i < lines of x[m, i] w[i, :].

    For m < rows and ``columns`` columns: COLUMNS or COLUMNS / 2 of them, or at most LANES. Rows: at
    most TALL with COLUMNS columns, else THIN_TALL. Addresses, and steps from row to row in bytes;
    the last axes lie side by side. A number of W has ``size`` bytes: 4 is float32, 2 bfloat16,
    which is multiplied in float32. ``lines`` is at least 1. ``start`` may be y itself; 0: the sums
    start at zero. ``ahead`` stands where W's next tile begins, which is brought into the cache
    meanwhile. All int64.
    """
    names = (rows, columns, x, x_row, w, w_row, size, y, y_row, lines, start, start_row, ahead)
    return types.void(*[types.int64] * len(names)), _emit


def _emit(_: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Choose by the numbers of W and by the size of the tile; each has a loop of its own."""
    rows, columns, x, x_row, w, w_row, size, *rest = args
    end = builder.append_basic_block("tile_end")
    kinds = builder.switch(size, end)
    for number in (4, 2):
        block = builder.append_basic_block(f"tile_of_{number}")
        kinds.add_case(I64(number), block)
        builder.position_at_end(block)
        _emit_tiles(builder, number, end, rows, columns, x, x_row, w, w_row, *rest)
    builder.position_at_end(end)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _emit_tiles(builder: Any, size: int, end: Any, rows: Any, columns: Any, *rest: Any) -> None:
    key = builder.add(builder.mul(columns, I64(THIN_TALL + 1)), rows)
    switch = builder.switch(key, builder.append_basic_block("tile_partial"))
    widths = {WIDE: TALL} | {wide: THIN_TALL for wide in (WIDE // 2, 1) if wide < WIDE}
    for wide, tall in widths.items():
        for m in range(1, tall + 1):
            block = builder.append_basic_block(f"tile_{m}x{wide}")
            switch.add_case(I64(wide * LANES * (THIN_TALL + 1) + m), block)
            builder.position_at_end(block)
            _emit_tile(builder, size, m, wide, None, *rest)
            builder.branch(end)
    # What is left: fewer columns than a register holds.
    builder.position_at_end(switch.default)
    partial = builder.switch(rows, end)
    for m in range(1, THIN_TALL + 1):
        block = builder.append_basic_block(f"tile_{m}_partial")
        partial.add_case(I64(m), block)
        builder.position_at_end(block)
        _emit_tile(builder, size, m, 1, columns, *rest)
        builder.branch(end)


def _emit_tile(
    builder: Any,
    size: int,
    rows: int,
    wide: int,
    columns: Any | None,
    x: Any,
    x_row: Any,
    w: Any,
    w_row: Any,
    y: Any,
    y_row: Any,
    lines: Any,
    start: Any,
    start_row: Any,
    ahead: Any,
) -> None:
    """The loop of one size; ``columns``: how many of the one register's columns there are."""
    memory = Memory(builder, columns)
    load_w = memory.load if size == 4 else memory.load_bfloat16
    xs = [builder.add(x, builder.mul(x_row, I64(m))) for m in range(rows)]
    entry = builder.block
    load, head, done = (builder.append_basic_block(name) for name in ("load", "line", "done"))
    builder.cbranch(builder.icmp_signed("!=", start, I64(0)), load, head)
    builder.position_at_end(load)
    before = [memory.load(at) for at in _places(builder, start, start_row, rows, wide)]
    builder.branch(head)

    builder.position_at_end(head)
    line = phi(builder, I64, {entry: I64(0), load: I64(0)})
    w_at = phi(builder, I64, {entry: w, load: w})
    sums = [phi(builder, VECTOR, {entry: constant(0.0), load: value}) for value in before]
    ws = [load_w(builder.add(w_at, I64(size * LANES * v))) for v in range(wide)]
    offset = builder.mul(line, I64(4))
    added = []
    for m in range(rows):
        x_at = builder.inttoptr(builder.add(xs[m], offset), F32.as_pointer())
        value = spread(builder, builder.load(x_at, align=4))
        added += [call(builder, "fmuladd", value, ws[v], sums[m * wide + v]) for v in range(wide)]
    following = builder.add(ahead, builder.mul(line, w_row))
    for byte in range(0, size * LANES * wide, CACHE_LINE):
        prefetch(builder, builder.add(following, I64(byte)))
    next_line = builder.add(line, I64(1))
    for value, new in zip(
        [line, w_at, *sums], [next_line, builder.add(w_at, w_row), *added], strict=True
    ):
        value.add_incoming(new, head)
    builder.cbranch(builder.icmp_signed("<", next_line, lines), head, done)

    builder.position_at_end(done)
    for at, value in zip(_places(builder, y, y_row, rows, wide), added, strict=True):
        memory.store(value, at)


def _places(builder: Any, first: Any, row: Any, rows: int, wide: int) -> list[Any]:
    """Where each register's numbers stand, vector by vector."""
    return [
        builder.add(builder.add(first, builder.mul(row, I64(m))), I64(4 * LANES * v))
        for m, v in product(range(rows), range(wide))
    ]
