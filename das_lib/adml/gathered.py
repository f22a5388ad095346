"""Products of a few vectors with many matrices: x_b W_rows[b] for every row b of a batch.

Cross-attention multiplies each utterance's few queries with its own keys, values and Z_i. On a CPU
this is bound by reading W from memory; a general matrix product first copies W into a layout that
pays for many rows. In float32 `streaming` reads it once instead. For many vectors, where Numba or
GNU's OpenMP is missing, in other precisions and on other devices torch's products take its place.

Shape suffixes: B rows of the batch, U matrices, G groups (heads, or branches), M vectors, I inputs,
O outputs.
"""

import functools
from types import ModuleType

import torch

FEW = 32
"""Vectors a row; with more of them (prompts under many adapters) a general product is faster."""


def gathered_matmul(
    x_BGMI: torch.Tensor, w_UGIO: torch.Tensor, rows_B: torch.Tensor
) -> torch.Tensor:
    """Multiply the vectors of each row with the matrices that it names.

    Args:
        x_BGMI: In any layout.
        w_UGIO: Contiguous, of the same dtype.
        rows_B: The matrices of each row; int64, on the same device.

    Returns:
        x_BGMI[b] @ w_UGIO[rows_B[b]] for every b. [B, G, M, O]
    """
    if x_BGMI.device.type != "cpu":
        return x_BGMI @ w_UGIO[rows_B]
    y_BGMO = x_BGMI.new_empty(*x_BGMI.shape[:3], w_UGIO.shape[3])
    few = x_BGMI.dtype == torch.float32 and x_BGMI.shape[2] <= FEW
    streaming = load_streaming() if few else None
    if streaming is not None:
        assert w_UGIO.is_contiguous(), "the kernel reads it as it lies in memory"
        if x_BGMI.stride(-1) != 1:
            x_BGMI = x_BGMI.contiguous()
        streaming.multiply(x_BGMI, w_UGIO, rows_B, y_BGMO)
    else:
        for x_GMI, y_GMO, u in zip(x_BGMI, y_BGMO, rows_B.tolist(), strict=True):
            torch.bmm(x_GMI, w_UGIO[u], out=y_GMO)
    return y_BGMO


@functools.cache
def load_streaming() -> ModuleType | None:
    """Compile `streaming` (seconds), or load it from Numba's cache.

    None where Numba or GNU's OpenMP is missing.
    """
    try:
        from das_lib.adml import streaming
    except ImportError:
        return None
    return streaming
