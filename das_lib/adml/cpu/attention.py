"""Attention whose scores never leave the cache: softmax(q K^T / sqrt(E)) V, and what branches add.

Queries pass a head's keys and values a block at a time. What is kept of probabilities are their
exponentials; products of them are divided by the sum, which takes fewer numbers. Where branches add
(P Z_i) B_i to the values, those of all heads of some rows stay until they have passed Z_i, which
heads share.

Shape suffixes: U memories, B rows that attend to them, H heads, M queries, E head width, S frames,
K branches with a change, R rank, T positions of each branch.
"""

from typing import Any

import numba
import numpy as np
import torch
from numba import carray

from das_lib.adml.cpu.openmp import HEAD, barrier, fields, kernel, run, thread, threads
from das_lib.adml.cpu.products import place, product
from das_lib.adml.cpu.rows import WIDTH, exponentiate, floats, largest
from das_lib.adml.cpu.vectors import LANES

BLOCK = 48
"""Queries whose scores are computed at once: at 1500 frames 295 KB, which a core's own cache holds
beside what they pass."""
SHARE = LANES
"""Room behind each row of exponentials, for one over their sum."""
ATTEND = fields(
    "batch heads count frames width q q_b q_h q_m k v p y y_b y_h y_m looks seen group "
    "branches positions rank z b u line"
)
SELF = fields("rows heads width position room qkv k v p y line")


def attend(
    q_BHME: torch.Tensor,
    k_UHES: torch.Tensor,
    v_UHSE: torch.Tensor,
    rows_B: torch.Tensor | None,
    y_BHME: torch.Tensor,
    *,
    values: tuple[torch.Tensor, torch.Tensor, int, int] | None = None,
    seen_BHTS: torch.Tensor | None = None,
) -> None:
    """y_b = softmax(q_b K_rows[b] / sqrt(E)) V_rows[b]; float32.

    Args:
        q_BHME: Not yet scaled; the last axis contiguous.
        k_UHES: Transposed keys, contiguous.
        v_UHSE: Contiguous.
        rows_B: The memory of each row, int64; None: row b's is the b-th.
        y_BHME: Is written; the last axis contiguous.
        values: What the last K of the queries' M / T branches add: Z_UKSR and B_KHRE, contiguous,
            T, and of how many rows the probabilities are kept at a time. A branch's queries stand
            side by side.
        seen_BHTS: Is given the scores of the first T queries, scaled, before the softmax;
            contiguous.
    """
    batch, heads, count, width = q_BHME.shape
    frames = v_UHSE.shape[2]
    assert y_BHME.shape == q_BHME.shape, "as many answers as queries are written"
    rows = range(batch) if rows_B is None else rows_B.tolist()
    padded = _padded(frames) + SHARE
    looks, seen = (0, 0) if seen_BHTS is None else (seen_BHTS.shape[2], seen_BHTS.data_ptr())
    if values is None:
        group, changes = batch, (0, 0, 0, 0, 0, 0)
        room = q_BHME.new_empty(torch.get_num_threads(), BLOCK, padded)
    else:
        z_UKSR, b_KHRE, positions, group = values
        branches, _, rank, _ = b_KHRE.shape
        group = min(batch, group)
        room = q_BHME.new_empty(group, heads, count, padded)
        u = q_BHME.new_empty(torch.get_num_threads(), heads, rank)
        changes = (branches, positions, rank, z_UKSR.data_ptr(), b_KHRE.data_ptr(), u.data_ptr())
    task = (batch, heads, count, frames, width, *place(q_BHME, 3), k_UHES.data_ptr())
    task += (v_UHSE.data_ptr(), room.data_ptr(), *place(y_BHME, 3), looks, seen, group, *changes)
    task += (4 * padded,)
    run(_attend, task, group * heads * -(-count // BLOCK), rows)


def self_attend(
    qkv_NBTO: torch.Tensor, k_NBHUE: torch.Tensor, v_NBHUE: torch.Tensor, position: int
) -> torch.Tensor:
    """A step's self-attention: keep the new keys and values, and attend to all so far; float32.

    Args:
        qkv_NBTO: Queries (not yet scaled), keys and values of one position, side by side, for N
            branches of B rows; contiguous.
        k_NBHUE: Keys of earlier positions, with room for this one; contiguous.
        v_NBHUE: Values.
        position: Of the new ones, counted from 0.

    Returns:
        [N, B, 1, H x E]
    """
    branches, batch, heads, room, width = k_NBHUE.shape
    y_NBTD = qkv_NBTO.new_empty(branches, batch, 1, heads * width)
    padded = _padded(position + 1)
    p = qkv_NBTO.new_empty(torch.get_num_threads(), padded)
    task = (branches * batch, heads, width, position, room, qkv_NBTO.data_ptr())
    task += (k_NBHUE.data_ptr(), v_NBHUE.data_ptr(), p.data_ptr(), y_NBTD.data_ptr(), 4 * padded)
    run(_self_attend, task, branches * batch * heads)
    return y_NBTD


def _padded(count: int) -> int:
    """Numbers of the registers that hold so many."""
    return -(-count // WIDTH) * WIDTH


@numba.njit(inline="always", error_model="numpy")
def _scale(address: int, count: int, factor: int) -> None:
    """Multiply float32 by another one; addresses."""
    numbers, by = carray(floats(address), count), carray(floats(factor), 1)[0]
    for i in range(count):
        numbers[i] *= by


@kernel
def _attend(pointer: Any) -> None:
    t = carray(pointer, 1, ATTEND)[0]
    rows_B = carray(pointer, HEAD + t.batch, np.int64)[HEAD:]
    blocks = (t.count + BLOCK - 1) // BLOCK
    line, padded = t.line, t.line // 4 - SHARE
    scale = np.float32(t.width**-0.5)
    for start in range(0, t.batch, t.group):
        size = min(t.group, t.batch - start)
        items = size * t.heads * blocks
        for item in range(items * thread() // threads(), items * (thread() + 1) // threads()):
            head, block = item // blocks, item % blocks
            b, h = start + head // t.heads, head % t.heads
            first, end = t.count * block // blocks, t.count * (block + 1) // blocks
            p = t.p + line * (head * t.count + first if t.branches else thread() * BLOCK)
            matrix = 4 * (rows_B[b] * t.heads + h) * t.frames * t.width
            q = t.q + 4 * (b * t.q_b + h * t.q_h + first * t.q_m)
            product(end - first, t.width, t.frames, q, 4 * t.q_m, t.k + matrix, 4, p, line, 0, 0)
            for m in range(end - first):
                row = p + m * line
                scores = carray(floats(row), line // 4)
                if first + m < t.looks:
                    at = ((b * t.heads + h) * t.looks + first + m) * t.frames
                    seen = carray(floats(t.seen + 4 * at), t.frames)
                    for s in range(t.frames):
                        seen[s] = scores[s] * scale
                scores[t.frames : padded] = -np.inf  # what the row's registers hold beyond it
                total = exponentiate(row, padded, largest(row, padded), scale)
                scores[padded] = np.float32(1) / total
            y = t.y + 4 * (b * t.y_b + h * t.y_h + first * t.y_m)
            product(end - first, t.frames, t.width, p, line, t.v + matrix, 4, y, 4 * t.y_m, 0, 0)
            for m in range(end - first):
                _scale(y + 4 * m * t.y_m, t.width, p + m * line + 4 * padded)
        if t.branches:
            barrier()
            items = size * t.branches
            for item in range(items * thread() // threads(), items * (thread() + 1) // threads()):
                b, k = start + item // t.branches, item % t.branches
                z = t.z + 4 * (rows_B[b] * t.branches + k) * t.frames * t.rank
                u, step = t.u + 4 * thread() * t.heads * t.rank, 4 * t.rank
                before = t.count - (t.branches - k) * t.positions
                for m in range(before, before + t.positions):
                    p = t.p + line * ((b - start) * t.heads * t.count + m)
                    product(t.heads, t.frames, t.rank, p, line * t.count, z, 4, u, step, 0, 0)
                    for h in range(t.heads):
                        _scale(u + h * step, t.rank, p + h * line * t.count + 4 * padded)
                        change = t.b + 4 * (k * t.heads + h) * t.rank * t.width
                        y = t.y + 4 * (b * t.y_b + h * t.y_h + m * t.y_m)
                        product(1, t.rank, t.width, u + h * step, step, change, 4, y, 0, y, 0)
            barrier()  # the next group's probabilities take the place of these


@kernel
def _self_attend(pointer: Any) -> None:
    t = carray(pointer, 1, SELF)[0]
    count, step = t.position + 1, 4 * t.width
    line = t.line // 4
    p = t.p + t.line * thread()
    scores = carray(floats(p), line)
    items = t.rows * t.heads
    for item in range(items * thread() // threads(), items * (thread() + 1) // threads()):
        q = t.qkv + step * (item // t.heads * 3 * t.heads + item % t.heads)
        keys, values = t.k + step * item * t.room, t.v + step * item * t.room
        k, v = (
            carray(floats(q + step * t.heads), t.width),
            carray(floats(q + 2 * step * t.heads), t.width),
        )
        new_k = carray(floats(keys + step * t.position), t.width)
        new_v = carray(floats(values + step * t.position), t.width)
        for e in range(t.width):
            new_k[e], new_v[e] = k[e], v[e]
        product(count, t.width, 1, keys, step, q, 4, p, 4, 0, 0)
        scores[count:] = -np.inf
        scale = np.float32(t.width**-0.5)
        total = exponentiate(p, line, largest(p, line), scale)
        product(1, count, t.width, p, t.line, values, 4, t.y + step * item, step, 0, 0)
        y = carray(floats(t.y + step * item), t.width)
        for e in range(t.width):
            y[e] /= total
