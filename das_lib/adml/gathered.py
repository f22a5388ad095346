"""Products of a few vectors with many matrices: x_b W_rows[b] for every row b of a batch.

Cross-attention multiplies each utterance's few queries with its own keys, values and Z_i, and each
branch its few rows with its own A_i and B_i. On a CPU this is bound by reading W from memory; a
general matrix product first copies W into a layout that pays for many rows. In float32 a kernel
of `cpu` reads it once instead; where that cannot run, torch's products take its place.

Shape suffixes: B rows of the batch, U matrices, G groups (heads, or branches), M vectors, I inputs,
O outputs.
"""

import torch

from das_lib.adml.cpu.fused import kernels


def gathered_matmul(
    x_BGMI: torch.Tensor,
    w_UGIO: torch.Tensor,
    rows_B: torch.Tensor | None = None,
    sum_BGMO: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multiply the vectors of each row with the matrices that it names.

    Args:
        x_BGMI: In any layout.
        w_UGIO: Contiguous, of the same dtype.
        rows_B: The matrices of each row; int64, on the same device. None: row b's are the b-th.
        sum_BGMO: Is added to, in place, and returned; in any layout with a contiguous last axis.

    Returns:
        x_BGMI[b] @ w_UGIO[rows_B[b]] for every b. [B, G, M, O]
    """
    native = kernels(x_BGMI)
    if native is None:
        return _general(x_BGMI, w_UGIO, rows_B, sum_BGMO)
    assert w_UGIO.is_contiguous(), "it is read as it lies in memory"
    y_BGMO = sum_BGMO
    if y_BGMO is None:
        y_BGMO = x_BGMI.new_empty(*x_BGMI.shape[:3], w_UGIO.shape[3])
    assert y_BGMO.stride(-1) == 1, "it is written as it lies in memory"
    if x_BGMI.stride(-1) != 1:
        x_BGMI = x_BGMI.contiguous()
    native.multiply_add(x_BGMI, w_UGIO, rows_B, y_BGMO, add=sum_BGMO is not None)
    return y_BGMO


def _general(
    x_BGMI: torch.Tensor,
    w_UGIO: torch.Tensor,
    rows_B: torch.Tensor | None,
    sum_BGMO: torch.Tensor | None,
) -> torch.Tensor:
    """`gathered_matmul` by torch's products."""
    if x_BGMI.device.type != "cpu":
        y_BGMO = x_BGMI @ (w_UGIO if rows_B is None else w_UGIO[rows_B])
    else:  # one by one, or the matrices would be copied
        rows = range(len(x_BGMI)) if rows_B is None else rows_B.tolist()
        y_BGMO = x_BGMI.new_empty(*x_BGMI.shape[:3], w_UGIO.shape[3])
        for x_GMI, y_GMO, u in zip(x_BGMI, y_BGMO, rows, strict=True):
            torch.bmm(x_GMI, w_UGIO[u], out=y_GMO)
    if sum_BGMO is None:
        return y_BGMO
    sum_BGMO += y_BGMO
    return sum_BGMO
