"""Products of few vectors: each matrix is read from memory once, past all vectors of its row.

Every sum has one order, whatever the batch and the number of threads.

Shape suffixes: B rows of the batch, U matrices, G groups (heads, or branches), K branches, M
vectors, I inputs, R rank, O outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import carray, types

from das_lib.adml.cpu.openmp import (
    HEAD,
    callable_by_kernels,
    compiled,
    fields,
    kernel,
    run,
    thread,
    threads,
)
from das_lib.adml.cpu.tile import COLUMNS, LANES, TALL, THIN_TALL, tile

LINES = 64
"""Lines of a matrix that all vectors pass before the next: with COLUMNS columns, 16 KB."""
MANY = 64
"""Vectors beyond which a matrix is read again: more would not stay in the cache beside it."""

# What the kernels are told, in this order: sizes, addresses, and steps from one entry of an axis to
# the next, in numbers.
MULTIPLY = fields("batch groups count inputs outputs add w x x_b x_g x_m y y_b y_g y_m")
LINEAR = fields("count inputs outputs x x_m w size bias y")
LOW_RANK = fields("count vectors inputs rank parts a u x x_k x_m y y_k y_m")


def multiply_add(
    x_BGMI: torch.Tensor,
    w_UGIO: torch.Tensor,
    rows_B: torch.Tensor | None,
    y_BGMO: torch.Tensor,
    *,
    add: bool,
) -> None:
    """y_b = x_b W_rows[b], or y_b += x_b W_rows[b].

    Args:
        x_BGMI: float32, the last axis contiguous.
        w_UGIO: float32, contiguous.
        rows_B: int64; None: W_b.
        y_BGMO: float32, the last axis contiguous; is written.
        add: To what stands there.
    """
    sizes = (*x_BGMI.shape, w_UGIO.shape[3], add)
    rows = range(sizes[0]) if rows_B is None else rows_B.tolist()
    task = (*sizes, w_UGIO.data_ptr(), *place(x_BGMI, 3), *place(y_BGMO, 3))
    run(_multiply_add, task, sizes[0] * sizes[1], rows)


def pack(weight_OI: torch.Tensor) -> torch.Tensor:
    """W^T as `linear` reads it: COLUMNS outputs of all inputs, then the next outputs.

    Of float32, or of bfloat16: half of it to read, and multiplied in float32.
    """
    return torch.cat([part.t().flatten() for part in weight_OI.split(COLUMNS)])


def linear(x: torch.Tensor, packed: torch.Tensor, bias_O: torch.Tensor) -> torch.Tensor:
    """X W^T + b over the last axis.

    Args:
        x: float32, in any layout.
        packed: W as `pack` gives it.
        bias_O: float32, contiguous.
    """
    x_MI, outputs = x.reshape(-1, x.shape[-1]), len(bias_O)
    if x_MI.stride(1) != 1:
        x_MI = x_MI.contiguous()
    y = x.new_empty(*x.shape[:-1], outputs)
    task = (*x_MI.shape, outputs, x_MI.data_ptr(), x_MI.stride(0), packed.data_ptr())
    task += (packed.element_size(), bias_O.data_ptr(), y.data_ptr())
    run(_linear, task, -(-outputs // COLUMNS))
    return y


def add_low_rank(
    x_KMI: torch.Tensor,
    a_KIR: torch.Tensor,
    parts: Sequence[tuple[torch.Tensor, slice, slice]],
    y_KMO: torch.Tensor,
) -> None:
    """y_k += (x_k A_k) B_k, where each part of B changes some of the outputs.

    Args:
        x_KMI: float32, the last axis contiguous.
        a_KIR: float32, contiguous.
        parts: B_k, contiguous, which of the ranks it takes, and which outputs it changes.
        y_KMO: float32, the last axis contiguous; is added to.
    """
    count, vectors, inputs = x_KMI.shape
    rank = a_KIR.shape[2]
    u_KMR = x_KMI.new_empty(count, vectors, rank)
    sizes = (count, vectors, inputs, rank, len(parts))
    task = (*sizes, a_KIR.data_ptr(), u_KMR.data_ptr(), *place(x_KMI, 2), *place(y_KMO, 2))
    more = []
    for b_KRO, ranks, outputs in parts:
        more += [b_KRO.data_ptr(), ranks.start, b_KRO.shape[1], outputs.start, b_KRO.shape[2]]
    run(_add_low_rank, task, count, more)


def place(x: torch.Tensor, axes: int) -> tuple[int, ...]:
    """Where a tensor stands, and the steps of its first axes."""
    return (x.data_ptr(), *x.stride()[:axes])


def _tiles(
    count: int,
    inputs: int,
    outputs: int,
    x: int,
    x_m: int,
    w: int,
    size: int,
    y: int,
    y_m: int,
    start: int,
    start_m: int,
) -> None:
    """Y = S + X W: addresses, and steps from row to row in bytes.

    A number of W has ``size`` bytes, see `tile`. S (``start``) may be Y itself, or one row for all,
    with a step of 0; at the address 0: no S.
    """
    tall = TALL if outputs >= COLUMNS else THIN_TALL
    for first in range(0, count, MANY):
        few = min(MANY, count - first)
        blocks = (few + tall - 1) // tall
        for i in range(0, inputs, LINES):
            o = 0
            while o < outputs:
                columns = outputs - o
                if columns >= COLUMNS:
                    columns = COLUMNS
                elif columns >= COLUMNS // 2:
                    columns = COLUMNS // 2
                elif columns >= LANES:
                    columns = LANES
                # Memory is read while all vectors pass these lines, and not for the first alone.
                if o + columns < outputs:
                    ahead = w + size * (i * outputs + o + columns)
                else:
                    ahead = w + size * min(i + LINES, inputs) * outputs
                for block in range(blocks):
                    m = first + few * block // blocks
                    at = y + m * y_m + 4 * o
                    sums, step = at, y_m
                    if i == 0:
                        sums, step = start + m * start_m + 4 * o if start else 0, start_m
                    tile(
                        first + few * (block + 1) // blocks - m,
                        columns,
                        x + m * x_m + 4 * i,
                        x_m,
                        w + size * (i * outputs + o),
                        size * outputs,
                        size,
                        at,
                        y_m,
                        min(LINES, inputs - i),
                        sums,
                        step,
                        ahead,
                    )
                o += columns


_INTEGERS = [types.int64] * 11
_compiled = compiled(_tiles, types.void(*_INTEGERS))
# One for all kernels, each of which would compile every size of tile again.
product = callable_by_kernels("das_product", _compiled.ctypes, types.void, *_INTEGERS)


@kernel
def _multiply_add(pointer: Any) -> None:
    t = carray(pointer, 1, MULTIPLY)[0]
    rows_B = carray(pointer, HEAD + t.batch, np.int64)[HEAD:]
    items = t.batch * t.groups
    for item in range(items * thread() // threads(), items * (thread() + 1) // threads()):
        b, g = item // t.groups, item % t.groups
        w = t.w + 4 * (rows_B[b] * t.groups + g) * t.inputs * t.outputs
        x = t.x + 4 * (b * t.x_b + g * t.x_g)
        y, step = t.y + 4 * (b * t.y_b + g * t.y_g), 4 * t.y_m
        start = y if t.add else 0
        product(t.count, t.inputs, t.outputs, x, 4 * t.x_m, w, 4, y, step, start, step)


@kernel
def _linear(pointer: Any) -> None:
    t = carray(pointer, 1, LINEAR)[0]
    items = (t.outputs + COLUMNS - 1) // COLUMNS
    for item in range(items * thread() // threads(), items * (thread() + 1) // threads()):
        o = item * COLUMNS
        columns = min(COLUMNS, t.outputs - o)
        w, y, bias = t.w + t.size * o * t.inputs, t.y + 4 * o, t.bias + 4 * o
        y_m = 4 * t.outputs
        product(t.count, t.inputs, columns, t.x, 4 * t.x_m, w, t.size, y, y_m, bias, 0)


@kernel
def _add_low_rank(pointer: Any) -> None:
    t = carray(pointer, 1, LOW_RANK)[0]
    parts = carray(pointer, HEAD + 5 * t.parts, np.int64)[HEAD:]
    for k in range(t.count * thread() // threads(), t.count * (thread() + 1) // threads()):
        x, a = t.x + 4 * k * t.x_k, t.a + 4 * k * t.inputs * t.rank
        u, step = t.u + 4 * k * t.vectors * t.rank, 4 * t.rank
        product(t.vectors, t.inputs, t.rank, x, 4 * t.x_m, a, 4, u, step, 0, 0)
        for p in range(0, 5 * t.parts, 5):
            rank, ranks, output, outputs = parts[p + 1], parts[p + 2], parts[p + 3], parts[p + 4]
            b, y = parts[p] + 4 * k * ranks * outputs, t.y + 4 * (k * t.y_k + output)
            y_m = 4 * t.y_m
            product(t.vectors, ranks, outputs, u + 4 * rank, step, b, 4, y, y_m, y, y_m)
