"""Layer norms between the parts of a layer, with the sum before them.

Shape suffixes: D model width.
"""

import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.gpu.fused import kernels

Norm = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias, float32."""
EPS = 1e-5


def layer_norm(x: torch.Tensor, norm: Norm, dtype: torch.dtype) -> torch.Tensor:
    """Normalise the last axis of float32 ``x``; the result has ``dtype``."""
    return F.layer_norm(x, norm[0].shape, *norm, EPS).to(dtype)


def add_norm(
    x: torch.Tensor, more: torch.Tensor | None, norm: Norm, dtype: torch.dtype, ones: int = 0
) -> torch.Tensor:
    """Add ``more`` to ``x`` in place, then `layer_norm`.

    Args:
        x: The residual stream, float32, contiguous. [..., D]
        more: What a part of the layer adds to it; contiguous.
        norm: Of the part that follows.
        dtype: Of the result.
        ones: Columns to put behind the result: a one and zeros. A product whose weights hold the
            bias in that column needs no second kernel for it.

    Returns:
        [..., D + ones]
    """
    fused = kernels(x.device)
    if fused is not None:
        return fused.add_norm(x, more, norm, dtype, ones, EPS)
    if more is not None:
        x += more
    y = layer_norm(x, norm, dtype)
    if not ones:
        return y
    tail = y.new_zeros(ones)
    tail[0] = 1
    return torch.cat([y, tail.expand(*y.shape[:-1], ones)], -1)
