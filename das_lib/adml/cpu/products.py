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

# What the kernels are told, in this order: sizes, addresses, and steps from one entry of an axis to
# the next, in numbers.
MULTIPLY = fields("batch groups count inputs outputs add w x x_b x_g x_m y y_b y_g y_m")
LOW_RANK = fields("count vectors inputs rank parts a u x x_k x_m y y_k y_m")
VALUES = fields(
    "batch branches heads positions frames rank width b z u p p_b p_k p_m y y_b y_k y_h y_t"
)


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
    task = (*sizes, w_UGIO.data_ptr(), *_place(x_BGMI, 3), *_place(y_BGMO, 3))
    run(_multiply_add, task, sizes[0] * sizes[1], rows)


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
    task = (*sizes, a_KIR.data_ptr(), u_KMR.data_ptr(), *_place(x_KMI, 2), *_place(y_KMO, 2))
    more = []
    for b_KRO, ranks, outputs in parts:
        more += [b_KRO.data_ptr(), ranks.start, b_KRO.shape[1], outputs.start, b_KRO.shape[2]]
    run(_add_low_rank, task, count, more)


def add_values(
    p_BKMS: torch.Tensor,
    z_UKSR: torch.Tensor,
    rows_B: torch.Tensor,
    b_KHRE: torch.Tensor,
    y_BKHTE: torch.Tensor,
) -> None:
    """y_k,h += (p_k,h Z_k) B_k,h: what branches add to the attention of each head.

    Args:
        p_BKMS: Of T positions of each head, M = H T; float32, the last axis contiguous.
        z_UKSR: float32, contiguous.
        rows_B: The Z of each row, int64.
        b_KHRE: float32, contiguous.
        y_BKHTE: float32, the last axis contiguous; is added to.
    """
    batch, branches, vectors, frames = p_BKMS.shape
    _, heads, rank, width = b_KHRE.shape
    u_BKMR = p_BKMS.new_empty(batch, branches, vectors, rank)
    task = (batch, branches, heads, y_BKHTE.shape[3], frames, rank, width, b_KHRE.data_ptr())
    task += (z_UKSR.data_ptr(), u_BKMR.data_ptr(), *_place(p_BKMS, 3), *_place(y_BKHTE, 4))
    run(_add_values, task, batch * branches, rows_B.tolist())


def _place(x: torch.Tensor, axes: int) -> tuple[int, ...]:
    """Where a tensor stands, and the steps of its first axes."""
    return (x.data_ptr(), *x.stride()[:axes])


def _tiles(
    count: int, inputs: int, outputs: int, x: int, x_m: int, w: int, y: int, y_m: int, add: int
) -> None:
    """Y = X W, or Y += X W: addresses, and steps from row to row in bytes."""
    tall = TALL if outputs >= COLUMNS else THIN_TALL
    blocks = (count + tall - 1) // tall
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
            for block in range(blocks):
                m = count * block // blocks
                tile(
                    count * (block + 1) // blocks - m,
                    columns,
                    x + m * x_m + 4 * i,
                    x_m,
                    w + 4 * (i * outputs + o),
                    4 * outputs,
                    y + m * y_m + 4 * o,
                    y_m,
                    min(LINES, inputs - i),
                    add if i == 0 else 1,
                )
            o += columns


_INTEGERS = [types.int64] * 9
_compiled = compiled(_tiles, types.void(*_INTEGERS))
# One for all kernels, each of which would compile every size of tile again.
_product = callable_by_kernels("das_product", _compiled.ctypes, types.void, *_INTEGERS)


@kernel
def _multiply_add(pointer: Any) -> None:
    t = carray(pointer, 1, MULTIPLY)[0]
    rows_B = carray(pointer, HEAD + t.batch, np.int64)[HEAD:]
    items = t.batch * t.groups
    for item in range(items * thread() // threads(), items * (thread() + 1) // threads()):
        b, g = item // t.groups, item % t.groups
        w = t.w + 4 * (rows_B[b] * t.groups + g) * t.inputs * t.outputs
        x = t.x + 4 * (b * t.x_b + g * t.x_g)
        y = t.y + 4 * (b * t.y_b + g * t.y_g)
        _product(t.count, t.inputs, t.outputs, x, 4 * t.x_m, w, y, 4 * t.y_m, t.add)


@kernel
def _add_low_rank(pointer: Any) -> None:
    t = carray(pointer, 1, LOW_RANK)[0]
    parts = carray(pointer, HEAD + 5 * t.parts, np.int64)[HEAD:]
    for k in range(t.count * thread() // threads(), t.count * (thread() + 1) // threads()):
        x, a = t.x + 4 * k * t.x_k, t.a + 4 * k * t.inputs * t.rank
        u, step = t.u + 4 * k * t.vectors * t.rank, 4 * t.rank
        _product(t.vectors, t.inputs, t.rank, x, 4 * t.x_m, a, u, step, 0)
        for p in range(0, 5 * t.parts, 5):
            rank, ranks, output, outputs = parts[p + 1], parts[p + 2], parts[p + 3], parts[p + 4]
            b, y = parts[p] + 4 * k * ranks * outputs, t.y + 4 * (k * t.y_k + output)
            _product(t.vectors, ranks, outputs, u + 4 * rank, step, b, y, 4 * t.y_m, 1)


@kernel
def _add_values(pointer: Any) -> None:
    t = carray(pointer, 1, VALUES)[0]
    rows_B = carray(pointer, HEAD + t.batch, np.int64)[HEAD:]
    items, vectors = t.batch * t.branches, t.heads * t.positions
    for item in range(items * thread() // threads(), items * (thread() + 1) // threads()):
        b, k = item // t.branches, item % t.branches
        p = t.p + 4 * (b * t.p_b + k * t.p_k)
        z = t.z + 4 * (rows_B[b] * t.branches + k) * t.frames * t.rank
        u, step = t.u + 4 * item * vectors * t.rank, 4 * t.rank
        _product(vectors, t.frames, t.rank, p, 4 * t.p_m, z, u, step, 0)
        for h in range(t.heads):
            own, change = u + h * t.positions * step, t.b + 4 * (k * t.heads + h) * t.rank * t.width
            y = t.y + 4 * (b * t.y_b + k * t.y_k + h * t.y_h)
            _product(t.positions, t.rank, t.width, own, step, change, y, 4 * t.y_t, 1)
