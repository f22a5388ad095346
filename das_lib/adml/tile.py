"""The innermost loop of `streaming`: one tile of a product, kept in the processor's registers.

Some vectors x_m times some columns of W: every number of a line of W is read once and used for all
of the vectors, and no sum leaves its register before it is complete. A compiler's own vector loop
writes each sum back on every line; so this loop is written out for LLVM, once for every size of
tile that the registers hold.
"""

from itertools import product
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_features = llvmlite.binding.get_host_cpu_features()
LANES = 16 if _features.get("avx512f") else 8 if _features.get("avx") else 4
"""Numbers in a register."""
_registers = 16 if _features.get("sse2") and LANES < 16 else 32
WIDE = 4 if _registers == 32 else 2
"""Registers that the columns of the widest tile take."""
TALL = 6
"""Vectors of the widest tile: WIDE (TALL + 1) + 1 registers."""
THIN_TALL = 8
"""Vectors of the narrower tiles, so that enough sums are under way at once."""
COLUMNS = WIDE * LANES

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)


@intrinsic
def tile(
    _: Any,
    rows: Any,
    columns: Any,
    x: Any,
    x_row: Any,
    w: Any,
    w_row: Any,
    y: Any,
    y_row: Any,
    lines: Any,
    more: Any,
) -> Any:
    """y[m, :] = (y[m, :] if more else 0) + sum over i < lines of x[m, i] w[i, :].

    For m < rows and ``columns`` columns: COLUMNS or COLUMNS / 2 of them, or at most LANES. Rows: at
    most TALL with COLUMNS columns, else THIN_TALL. Addresses, and steps from row to row in bytes;
    the last axes lie side by side. ``lines`` is at least 1. All int64.
    """
    names = (rows, columns, x, x_row, w, w_row, y, y_row, lines, more)
    return types.void(*[types.int64] * len(names)), _emit


def _emit(_: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
    """Choose by the size of the tile; each has a loop of its own."""
    rows, columns, *rest = args
    end = builder.append_basic_block("tile_end")
    size = builder.add(builder.mul(columns, _I64(THIN_TALL + 1)), rows)
    switch = builder.switch(size, builder.append_basic_block("tile_partial"))
    widths = {WIDE: TALL} | {wide: THIN_TALL for wide in (WIDE // 2, 1) if wide < WIDE}
    for wide, tall in widths.items():
        for m in range(1, tall + 1):
            block = builder.append_basic_block(f"tile_{m}x{wide}")
            switch.add_case(_I64(wide * LANES * (THIN_TALL + 1) + m), block)
            builder.position_at_end(block)
            _emit_tile(builder, m, wide, None, *rest)
            builder.branch(end)
    # What is left: fewer columns than a register holds.
    builder.position_at_end(switch.default)
    partial = builder.switch(rows, end)
    for m in range(1, THIN_TALL + 1):
        block = builder.append_basic_block(f"tile_{m}_partial")
        partial.add_case(_I64(m), block)
        builder.position_at_end(block)
        _emit_tile(builder, m, 1, columns, *rest)
        builder.branch(end)
    builder.position_at_end(end)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _emit_tile(
    builder: ir.IRBuilder,
    rows: int,
    wide: int,
    columns: ir.Value | None,
    x: ir.Value,
    x_row: ir.Value,
    w: ir.Value,
    w_row: ir.Value,
    y: ir.Value,
    y_row: ir.Value,
    lines: ir.Value,
    more: ir.Value,
) -> None:
    """The loop of one size; ``columns``: how many of the one register's columns there are."""
    memory = _Memory(builder, columns)
    fma = memory.function(f"llvm.fmuladd.v{LANES}f32", _VECTOR, [_VECTOR] * 3)
    xs = [builder.add(x, builder.mul(x_row, _I64(m))) for m in range(rows)]
    ys = [
        builder.add(builder.add(y, builder.mul(y_row, _I64(m))), _I64(4 * LANES * v))
        for m, v in product(range(rows), range(wide))
    ]
    start = builder.block
    load, head, done = (builder.append_basic_block(name) for name in ("load", "line", "done"))
    builder.cbranch(builder.icmp_signed("!=", more, _I64(0)), load, head)
    builder.position_at_end(load)
    before = [memory.load(at) for at in ys]
    builder.branch(head)

    builder.position_at_end(head)
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    line = _phi(builder, _I64, {start: _I64(0), load: _I64(0)})
    w_at = _phi(builder, _I64, {start: w, load: w})
    sums = [_phi(builder, _VECTOR, {start: zero, load: value}) for value in before]
    ws = [memory.load(builder.add(w_at, _I64(4 * LANES * v))) for v in range(wide)]
    offset = builder.mul(line, _I64(4))
    added = []
    for m in range(rows):
        x_at = builder.inttoptr(builder.add(xs[m], offset), _F32.as_pointer())
        spread = _spread(builder, builder.load(x_at, align=4), LANES)
        added += [builder.call(fma, [spread, ws[v], sums[m * wide + v]]) for v in range(wide)]
    next_line = builder.add(line, _I64(1))
    for value, following in zip(
        [line, w_at, *sums], [next_line, builder.add(w_at, w_row), *added], strict=True
    ):
        value.add_incoming(following, head)
    builder.cbranch(builder.icmp_signed("<", next_line, lines), head, done)

    builder.position_at_end(done)
    for at, value in zip(ys, added, strict=True):
        memory.store(value, at)


class _Memory:
    """Reads and writes whole registers, or their first columns alone."""

    def __init__(self, builder: ir.IRBuilder, columns: ir.Value | None) -> None:
        self._builder, self._mask = builder, None
        if columns is not None:
            lanes = ir.Constant(ir.VectorType(_I64, LANES), list(range(LANES)))
            self._mask = builder.icmp_signed("<", lanes, _spread(builder, columns, LANES))

    def function(self, name: str, returns: ir.Type, takes: list[ir.Type]) -> ir.Function:
        """One of LLVM's own."""
        kind = ir.FunctionType(returns, takes)
        return cgutils.get_or_insert_function(self._builder.module, kind, name)

    def load(self, at: ir.Value) -> ir.Value:
        """A register, from an address."""
        pointer = self._builder.inttoptr(at, _VECTOR.as_pointer())
        if self._mask is None:
            return self._builder.load(pointer, align=4)
        takes = [pointer.type, _I32, self._mask.type, _VECTOR]
        masked = self.function(f"llvm.masked.load.v{LANES}f32.p0", _VECTOR, takes)
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        return self._builder.call(masked, [pointer, _I32(4), self._mask, zero])

    def store(self, value: ir.Value, at: ir.Value) -> None:
        """A register, to an address."""
        pointer = self._builder.inttoptr(at, _VECTOR.as_pointer())
        if self._mask is None:
            self._builder.store(value, pointer, align=4)
            return
        takes = [_VECTOR, pointer.type, _I32, self._mask.type]
        masked = self.function(f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), takes)
        self._builder.call(masked, [value, pointer, _I32(4), self._mask])


def _phi(builder: ir.IRBuilder, kind: ir.Type, incoming: dict[ir.Block, ir.Value]) -> Any:
    """A value that depends on where the loop was entered from."""
    phi = builder.phi(kind)
    for block, value in incoming.items():
        phi.add_incoming(value, block)
    return phi


def _spread(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A value in every lane of a register."""
    none = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(none, value, _I32(0))
    return builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))
