"""The float32 kernel of `gathered_matmul`, compiled by Numba for the machine at hand.

It reads each matrix from memory once, four lines at a time, past all vectors of its row. Every sum
has one order, whatever the batch and the number of threads.

It runs on the threads of torch's own products: of the OpenMP library that torch has loaded it asks
what a compiler asks for a parallel region, `GOMP_parallel`. Threads of Numba's own would have to
wait for torch's, which stay awake for a while after each product. Where there is no such library,
this module cannot be imported.

Shape suffixes: as in `gathered`.
"""

import ctypes
import os
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from numba import carray, types

_process = ctypes.CDLL(None) if os.name == "posix" else None
_gomp_parallel: Any = getattr(_process, "GOMP_parallel", None)
if _process is None or _gomp_parallel is None:
    raise ImportError("torch has loaded no OpenMP library that knows GOMP_parallel")

# Of the thread that runs, and how many run. By name, as Numba keeps the kernel on disk and the
# addresses differ from process to process.
_thread: Any = types.ExternalFunction("das_thread", types.int32())
_threads: Any = types.ExternalFunction("das_threads", types.int32())
for _name, _function in (
    ("das_thread", _process.omp_get_thread_num),
    ("das_threads", _process.omp_get_num_threads),
):
    llvmlite.binding.add_symbol(_name, ctypes.cast(_function, ctypes.c_void_p).value or 0)


def multiply(
    x_BGMI: torch.Tensor, w_UGIO: torch.Tensor, rows_B: torch.Tensor, y_BGMO: torch.Tensor
) -> None:
    """y_b = x_b W_rows[b], all float32 but for the rows.

    Args:
        x_BGMI: The last axis contiguous.
        w_UGIO: Contiguous.
        rows_B: int64, contiguous.
        y_BGMO: Contiguous; is written.
    """
    batch, groups = x_BGMI.shape[:2]
    sizes = (ctypes.c_int64 * 8)(*x_BGMI.shape, w_UGIO.shape[3], *x_BGMI.stride()[:3])
    tensors = (x_BGMI, w_UGIO, rows_B, y_BGMO)
    pointers = (ctypes.c_void_p * 5)(ctypes.addressof(sizes), *(t.data_ptr() for t in tensors))
    threads = min(torch.get_num_threads(), batch * groups)
    if threads > 1:
        _gomp_parallel(_kernel.ctypes, pointers, threads, 0)
    else:
        _kernel.ctypes(pointers)


def _stream(pointers: Any) -> None:
    """This thread's part of `multiply`."""
    sizes = carray(pointers[0], 8, np.int64)
    batch, groups, count, inputs, outputs = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    rows_B = carray(pointers[3], batch, np.int64)
    x = carray(pointers[1], 1 << 40, np.float32)  # strided, so its end is left open
    w_LO = carray(pointers[2], (1 << 40, outputs), np.float32)
    y_LO = carray(pointers[4], (batch * groups * count, outputs), np.float32)
    items = batch * groups
    fours = inputs - inputs % 4
    for item in range(items * _thread() // _threads(), items * (_thread() + 1) // _threads()):
        b, g = item // groups, item % groups
        # Slices in place of indices: so the innermost loop becomes vector instructions.
        line = (rows_B[b] * groups + g) * inputs
        w_IO = w_LO[line : line + inputs]
        y_MO = y_LO[item * count : (item + 1) * count]
        y_MO[:] = 0
        for i in range(0, fours, 4):
            w0, w1, w2, w3 = w_IO[i], w_IO[i + 1], w_IO[i + 2], w_IO[i + 3]
            for m in range(count):
                start = b * sizes[5] + g * sizes[6] + m * sizes[7] + i
                x0, x1, x2, x3 = x[start], x[start + 1], x[start + 2], x[start + 3]
                y_O = y_MO[m]
                for o in range(outputs):
                    y_O[o] += x0 * w0[o] + x1 * w1[o] + x2 * w2[o] + x3 * w3[o]
        for i in range(fours, inputs):
            for m in range(count):
                start = b * sizes[5] + g * sizes[6] + m * sizes[7] + i
                y_MO[m] += x[start] * w_IO[i]


def _compiled() -> Any:
    signature = types.void(types.CPointer(types.voidptr))
    # Fused multiply-add; nothing is assumed of infinities.
    options = {"fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.cfunc(signature, cache=True, **options)(_stream)
    except RuntimeError:  # no folder to keep it in: every process compiles it
        return numba.cfunc(signature, **options)(_stream)


_kernel = _compiled()
