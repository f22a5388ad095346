"""Fused kernels (Triton) for the small products and sums of a decoding step on a GPU.

At batch 1 a step is some hundred kernels of a few microseconds, most of it their start and their
first byte. Each function here does in one what is written in torch's operations where it is called:
look there for what it means.

Shape suffixes: N branches, V vocabulary, B utterances, H heads, E head width, U positions of a
cache's room.
"""

# pyright: reportCallIssue=false, reportArgumentType=false
# What starts a kernel is not what its function says.

import torch
import triton
import triton.language as tl

from das_lib.adml.gpu.products import fits, linear

__all__ = ["add_norm", "adml", "fits", "linear", "peaks", "self_attend", "softmax_frames"]

CHUNK = 4096
"""Of the vocabulary that a program looks through."""


def add_norm(x, more, norm, dtype, ones, eps):
    """See `das_lib.adml.norm.add_norm`."""
    width = x.shape[-1]
    y = torch.empty(*x.shape[:-1], width + ones, dtype=dtype, device=x.device)
    weight, bias = norm
    block = triton.next_power_of_2(width + ones)
    rows = x.numel() // width
    _add_norm[(rows,)](
        x, more, weight, bias, y, width, width + ones, eps, ADD=more is not None, BLOCK=block
    )
    return y


@triton.jit
def _add_norm(
    x_ptr, more_ptr, weight_ptr, bias_ptr, y_ptr, width, padded, eps,
    ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row a program, all of it in registers."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < width
    x = tl.load(x_ptr + row * width + i, mask=inside, other=0.0)
    if ADD:
        x += tl.load(more_ptr + row * width + i, mask=inside, other=0.0).to(tl.float32)
        tl.store(x_ptr + row * width + i, x, mask=inside)
    centred = tl.where(inside, x - tl.sum(x, 0) / width, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    weight = tl.load(weight_ptr + i, mask=inside, other=0.0)
    bias = tl.load(bias_ptr + i, mask=inside, other=0.0)
    y = centred * scale * weight + bias
    y = tl.where(inside, y, tl.where(i == width, 1.0, 0.0))
    tl.store(y_ptr + row * padded + i, y.to(y_ptr.dtype.element_ty), mask=i < padded)


def self_attend(qkv, kv, position_1):
    """Attention of one new position over those before it, whose keys and values join the cache.

    Args:
        qkv: [N B, 1, 3, H, E]
        kv: The cache. [2, N B, H, U, E]
        position_1: The new one's.

    Returns:
        [N B, H E]
    """
    rows, _, _, heads, width = qkv.shape
    out = torch.empty(rows, heads * width, dtype=qkv.dtype, device=qkv.device)
    _self_attend[(rows, heads)](
        qkv, kv, position_1, out, width**-0.5, kv.stride(0), kv.stride(1), kv.stride(2),
        HEADS=heads, WIDTH=width, BLOCK=64,
    )  # fmt: skip
    return out


@triton.jit
def _self_attend(
    qkv_ptr, kv_ptr, position_ptr, out_ptr, scale, values, kv_row, kv_head,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A head of a row a program; the softmax is updated block by block."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    position = tl.load(position_ptr)
    e = tl.arange(0, WIDTH)
    new = qkv_ptr + row * (3 * HEADS * WIDTH) + head * WIDTH + e
    q = tl.load(new).to(tl.float32) * scale
    k = tl.load(new + HEADS * WIDTH)
    v = tl.load(new + 2 * HEADS * WIDTH)
    keys = kv_ptr + row * kv_row + head * kv_head
    tl.store(keys + position * WIDTH + e, k)
    tl.store(keys + values + position * WIDTH + e, v)
    top = tl.sum(q * k.to(tl.float32), 0)
    total = top * 0 + 1.0
    o = v.to(tl.float32)
    for start in range(0, position, BLOCK):
        u = start + tl.arange(0, BLOCK)
        inside = u < position
        at = u[:, None] * WIDTH + e[None, :]
        k_block = tl.load(keys + at, mask=inside[:, None], other=0.0).to(tl.float32)
        s = tl.where(inside, tl.sum(k_block * q[None, :], 1), float("-inf"))
        higher = tl.maximum(top, tl.max(s, 0))
        p = tl.exp(s - higher)
        v_block = tl.load(keys + values + at, mask=inside[:, None], other=0.0).to(tl.float32)
        kept = tl.exp(top - higher)
        o = o * kept + tl.sum(p[:, None] * v_block, 0)
        total = total * kept + tl.sum(p, 0)
        top = higher
    o = (o / total).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * (HEADS * WIDTH) + head * WIDTH + e, o)


def softmax_frames(s, frames):
    """Softmax over the first ``frames`` of the last axis; the others become 0."""
    p = torch.empty_like(s)
    padded = s.shape[-1]
    _softmax_frames[(s.numel() // padded,)](
        s, p, frames, padded, BLOCK=triton.next_power_of_2(padded), num_warps=8
    )
    return p


@triton.jit
def _softmax_frames(s_ptr, p_ptr, frames, padded, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    s = tl.load(s_ptr + row * padded + i, mask=i < frames, other=float("-inf")).to(tl.float32)
    p = tl.exp(s - tl.max(s, 0))
    p = p / tl.sum(p, 0)
    tl.store(p_ptr + row * padded + i, p.to(p_ptr.dtype.element_ty), mask=i < padded)


def peaks(logits):
    """Confidence, log-sum-exp and most likely token, the lowest of equals, of rows [..., V]."""
    size = logits.shape[-1]
    rows, chunks = logits.numel() // size, triton.cdiv(size, CHUNK)
    parts = torch.empty(rows, chunks, 2, dtype=torch.float32, device=logits.device)
    tokens = torch.empty(rows, chunks, dtype=torch.int64, device=logits.device)
    _chunk_peaks[(rows, chunks)](logits, parts, tokens, size, chunks, BLOCK=CHUNK, num_warps=8)
    shape = logits.shape[:-1]
    c, logz = (torch.empty(shape, dtype=torch.float32, device=logits.device) for _ in range(2))
    top = torch.empty(shape, dtype=torch.int64, device=logits.device)
    block = triton.next_power_of_2(chunks)
    _peaks[(rows,)](parts, tokens, c, logz, top, chunks, BLOCK=block, num_warps=1)
    return c, logz, top


@triton.jit
def _chunk_peaks(logits_ptr, parts_ptr, tokens_ptr, size, chunks, BLOCK: tl.constexpr):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = chunk * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + row * size + i, mask=i < size, other=float("-inf"))
    top = tl.max(x, 0)
    # A chunk that is suppressed as a whole counts nothing.
    total = tl.sum(tl.where(x == float("-inf"), 0.0, tl.exp(x - top)), 0)
    at = row * chunks + chunk
    tl.store(parts_ptr + 2 * at, top)
    tl.store(parts_ptr + 2 * at + 1, total)
    tl.store(tokens_ptr + at, tl.min(tl.where(x == top, i, size), 0).to(tl.int64))


@triton.jit
def _peaks(parts_ptr, tokens_ptr, c_ptr, logz_ptr, top_ptr, chunks, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    at = row * chunks + i
    tops = tl.load(parts_ptr + 2 * at, mask=i < chunks, other=float("-inf"))
    totals = tl.load(parts_ptr + 2 * at + 1, mask=i < chunks, other=0.0)
    tokens = tl.load(tokens_ptr + at, mask=i < chunks, other=1 << 40)
    top = tl.max(tops, 0)
    total = tl.sum(tl.where(totals == 0.0, 0.0, totals * tl.exp(tops - top)), 0)
    tl.store(c_ptr + row, 1 / total)
    tl.store(logz_ptr + row, top + tl.log(total))
    tl.store(top_ptr + row, tl.min(tl.where(tops == top, tokens, 1 << 40), 0))


def adml(c_BN, top_BN, tau):
    """See `das_lib.adml.select.Adml`.

    Returns:
        token_B, branch_B, rule_B and logprob_B.
    """
    batch, branches = c_BN.shape
    token, branch, rule = (torch.empty_like(top_BN[:, 0]) for _ in range(3))
    logprob = torch.empty_like(c_BN[:, 0])
    block = triton.next_power_of_2(branches)
    _adml[(batch,)](
        c_BN, top_BN, token, branch, rule, logprob, branches, tau, BLOCK=block, num_warps=1
    )
    return token, branch, rule, logprob


@triton.jit
def _adml(
    c_ptr, top_ptr, token_ptr, branch_ptr, rule_ptr, logprob_ptr, branches, tau,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    inside = i < branches
    c = tl.load(c_ptr + row * branches + i, mask=inside, other=0.0)
    c_0 = tl.load(c_ptr + row * branches)
    highest = tl.max(tl.where(inside, c, float("-inf")), 0)
    lowest = tl.min(tl.where(inside, c, float("inf")), 0)
    most = tl.min(tl.where(inside & (c == highest), i, BLOCK), 0)
    least = tl.min(tl.where(inside & (c == lowest), i, BLOCK), 0)
    is_max = highest - c_0 >= tau
    is_min = lowest - c_0 <= -tau
    branch = tl.where(is_max, most, tl.where(is_min, least, 0))
    tl.store(branch_ptr + row, branch.to(tl.int64))
    tl.store(rule_ptr + row, tl.where(is_max, 1, tl.where(is_min, 2, 0)).to(tl.int64))
    tl.store(token_ptr + row, tl.load(top_ptr + row * branches + branch))
    tl.store(logprob_ptr + row, tl.log(tl.load(c_ptr + row * branches + branch)))
