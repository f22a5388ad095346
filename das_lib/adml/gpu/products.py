"""Projections of a few rows on a GPU (Triton), with the norm before and the GELU behind them.

Bytes are what such a product costs: every weight is read once, all that a program needs at once.
Each function does in one kernel what `das_lib.adml.gpu.branches` says in torch's operations.

Shape suffixes: N branches, M rows, I input width, O output width.
"""

# pyright: reportCallIssue=false, reportArgumentType=false
# What starts a kernel is not what its function says.

import torch
import triton
import triton.language as tl

VECTORS = 4
"""Rows up to which `linear` multiplies without the matrix unit, which takes no fewer than 16."""
MOST = 16
"""Rows that `linear` takes; with more, a library's products are faster."""
WIDEST, NORMED = 2048, 1024
"""Width of the vectors, and of normed rows beyond them, that a program holds in registers."""
NONE = range(0)


def fits(x_NMI, weight, *, normed=False):
    """Whether `linear` takes so many rows of that width."""
    sets, rows, width = x_NMI.shape
    rows *= 1 if weight.ndim == 3 else sets
    block = triton.next_power_of_2(width)
    if rows <= VECTORS and block <= WIDEST:
        return True
    return rows <= MOST and (not normed or block <= NORMED)


def linear(x_NMI, weight, bias, *, more=None, norm=None, eps=0.0, gelu=False, heads=1, common=NONE):
    """A projection of a few rows, with what stands before and behind it.

    Args:
        x_NMI: The rows; with ``norm`` the residual stream, float32. Contiguous, but for the N of
            weights for each.
        weight: [O, I] or, for each of N, [N, O, I]; the last stride is 1.
        bias: [O] or [N, O], any stride; or None.
        more: To be added to ``x_NMI`` before the norm.
        norm: Weight and bias of a layer norm before the projection.
        eps: Of the norm.
        gelu: Whether the exact GELU follows.
        common: Outputs that have the same weights in all of N: those of the first are read.
        heads: The N are so many heads of each of N / heads branches, the branches of a head side by
            side; the outputs come out with a branch's heads side by side.

    Returns:
        The projection [N / heads, M, heads O], and ``x_NMI + more``, another tensor if ``more``.
    """
    sets, count, width = x_NMI.shape
    own, outputs = weight.ndim == 3, weight.shape[-2]
    rows, programs = (count, sets) if own else (sets * count, 1)
    y = torch.empty(sets // heads, count, heads * outputs, dtype=weight.dtype, device=x_NMI.device)
    summed = x_NMI if more is None else torch.empty_like(x_NMI)
    scale, shift = norm if norm is not None else (None, None)
    block = triton.next_power_of_2(width)
    options = {"NORM": norm is not None, "ADD": more is not None, "GELU": gelu}
    if rows <= VECTORS and block <= WIDEST:
        kernel = _vectors
        padded = triton.next_power_of_2(rows)
        out, warps = _shares(outputs * programs, padded, block, normed=norm is not None)
        options |= {"ROWS": padded, "BLOCK": block, "num_warps": warps}
    else:
        kernel, out = _matrix, 64 if outputs > 8192 else 16
        loop = 128 if outputs > 8192 else min(512, block)
        options |= {"ROWS": MOST, "BLOCK": block if norm else loop}
        options |= {"PRECISION": "tf32x3" if weight.dtype == torch.float32 else "tf32"}
    kernel[(triton.cdiv(outputs, out), programs)](
        x_NMI, more, summed, scale, shift, weight, bias, y,
        rows, width, outputs, *(x_NMI.stride()[:2] if own else (0, width)),
        weight.stride(-2), weight.stride(0) if own else 0,
        0 if bias is None else bias.stride(-1),
        bias.stride(0) if bias is not None and bias.ndim == 2 else 0,
        sets // heads, y.stride(0), heads * outputs, common.start, common.stop, eps,
        BIAS=bias is not None, OUT=out, **options,
    )  # fmt: skip
    return y, summed


def _shares(outputs, rows, block, *, normed):
    """Outputs and warps of a program of `_vectors`, as was fastest on an H200."""
    if block >= 2048 or (rows > 1 and block >= 1024):
        return 4, 8
    out = 4 if outputs <= 4096 else 8 if outputs <= 50000 else 16
    return max(4, out // rows), 2 if normed and rows == 1 else 4


@triton.jit
def _finish(
    y, o, r, branch, bias_ptr, y_ptr, rows, outputs, bias_step, bias_branch, branches, y_branch,
    y_row, GELU: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Bias, GELU, and the outputs to their places."""
    kind = y_ptr.dtype.element_ty
    if BIAS:
        bias = tl.load(bias_ptr + branch * bias_branch + o * bias_step, mask=o < outputs, other=0.0)
        y += bias.to(tl.float32)
    if GELU:
        y = y.to(kind).to(tl.float32)  # as a product of its own would leave it
        y = 0.5 * y * (1 + tl.erf(y * 0.7071067811865476))
    to = (branch % branches) * y_branch + r * y_row + (branch // branches) * outputs + o
    tl.store(y_ptr + to, y.to(kind), mask=(r < rows) & (o < outputs))


@triton.jit
def _vectors(
    x_ptr, more_ptr, summed_ptr, scale_ptr, shift_ptr, weight_ptr, bias_ptr, y_ptr,
    rows, width, outputs, x_branch, x_row, weight_row, weight_branch, bias_step, bias_branch,
    branches, y_branch, y_row, common_from, common_to, eps,
    NORM: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, GELU: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """A few outputs of a branch a program: all that they need is read at once."""
    branch = tl.program_id(1)
    o = tl.program_id(0) * OUT + tl.arange(0, OUT)
    i = tl.arange(0, BLOCK)
    r = tl.arange(0, ROWS)
    inside = i < width
    own = tl.where((o >= common_from) & (o < common_to), 0, branch).to(tl.int64)
    weights = weight_ptr + (own * weight_branch + o * weight_row)[:, None] + i[None, :]
    w = tl.load(weights, mask=(o < outputs)[:, None] & inside[None, :], other=0.0).to(tl.float32)
    here = (r < rows)[:, None] & inside[None, :]
    at = branch * x_branch + r[:, None] * x_row + i[None, :]
    x = tl.load(x_ptr + at, mask=here, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(more_ptr + at, mask=here, other=0.0).to(tl.float32)
        if tl.program_id(0) == 0:
            tl.store(summed_ptr + at, x, mask=here)
    if NORM:
        scale = tl.load(scale_ptr + i, mask=inside, other=0.0)
        shift = tl.load(shift_ptr + i, mask=inside, other=0.0)
        x = tl.where(inside[None, :], x - (tl.sum(x, 1) / width)[:, None], 0.0)
        x = x / tl.sqrt(tl.sum(x * x, 1) / width + eps)[:, None]
        x = (x * scale[None, :] + shift[None, :]).to(y_ptr.dtype.element_ty).to(tl.float32)
    if ROWS == 1:  # noqa: SIM108 - of two shapes
        y = tl.sum(w * x, 1)[:, None]
    else:
        y = tl.sum(w[:, None, :] * x[None, :, :], 2)
    _finish(
        y, o[:, None], r[None, :], branch, bias_ptr, y_ptr, rows, outputs, bias_step, bias_branch,
        branches, y_branch, y_row, GELU, BIAS,
    )  # fmt: skip


@triton.jit
def _matrix(
    x_ptr, more_ptr, summed_ptr, scale_ptr, shift_ptr, weight_ptr, bias_ptr, y_ptr,
    rows, width, outputs, x_branch, x_row, weight_row, weight_branch, bias_step, bias_branch,
    branches, y_branch, y_row, common_from, common_to, eps,
    NORM: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, GELU: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """All rows and some outputs of a branch a program, by the matrix unit."""
    branch = tl.program_id(1)
    o = tl.program_id(0) * OUT + tl.arange(0, OUT)
    r = tl.arange(0, ROWS)
    i = tl.arange(0, BLOCK)
    out = (o < outputs)[None, :]
    row = (r < rows)[:, None]
    at = branch * x_branch + r[:, None] * x_row + i[None, :]
    weights = weight_ptr + branch.to(tl.int64) * weight_branch
    weights += o[None, :] * weight_row + i[:, None]
    if NORM:
        inside = row & (i < width)[None, :]
        x = tl.load(x_ptr + at, mask=inside, other=0.0)
        if ADD:
            x += tl.load(more_ptr + at, mask=inside, other=0.0).to(tl.float32)
            if tl.program_id(0) == 0:
                tl.store(summed_ptr + at, x, mask=inside)
        centred = tl.where(inside, x - (tl.sum(x, 1) / width)[:, None], 0.0)
        spread = tl.sqrt(tl.sum(centred * centred, 1) / width + eps)
        scale = tl.load(scale_ptr + i, mask=i < width, other=0.0)
        shift = tl.load(shift_ptr + i, mask=i < width, other=0.0)
        normed = centred / spread[:, None] * scale[None, :] + shift[None, :]
        w = tl.load(weights, mask=(i < width)[:, None] & out, other=0.0)
        y = tl.dot(normed.to(y_ptr.dtype.element_ty), w, input_precision=PRECISION)
    else:
        y = tl.zeros((ROWS, OUT), dtype=tl.float32)
        for start in range(0, width, BLOCK):
            left = i < width - start
            x = tl.load(x_ptr + at + start, mask=row & left[None, :], other=0.0)
            w = tl.load(weights + start, mask=left[:, None] & out, other=0.0)
            y = tl.dot(x, w, y, input_precision=PRECISION)
    _finish(
        y, o[None, :], r[:, None], branch, bias_ptr, y_ptr, rows, outputs, bias_step, bias_branch,
        branches, y_branch, y_row, GELU, BIAS,
    )  # fmt: skip
