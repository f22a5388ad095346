"""The float32 kernel of `gathered_matmul`, compiled by Numba for the machine at hand.

It reads each matrix from memory once, a few lines at a time, past all vectors of its row (see
`tile`). Every sum has one order, whatever the batch and the number of threads.

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

from das_lib.adml.tile import COLUMNS, LANES, TALL, THIN_TALL, tile

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

LINES = 64
"""Lines of a matrix that all vectors pass before the next: with COLUMNS columns, 16 KB."""


def multiply_add(
    x_BGMI: torch.Tensor,
    w_UGIO: torch.Tensor,
    rows_B: torch.Tensor,
    y_BGMO: torch.Tensor,
    *,
    add: bool,
) -> None:
    """y_b = x_b W_rows[b], or y_b += x_b W_rows[b].

    Args:
        x_BGMI: float32, the last axis contiguous.
        w_UGIO: float32, contiguous.
        rows_B: int64, contiguous.
        y_BGMO: float32, the last axis contiguous; is written.
        add: To what stands there.
    """
    batch, groups = x_BGMI.shape[:2]
    sizes = (*x_BGMI.shape, w_UGIO.shape[3], int(add))
    places = (w_UGIO.data_ptr(), *_place(x_BGMI), *_place(y_BGMO))
    task = (ctypes.c_int64 * 15)(*sizes, *places)
    pointers = (ctypes.c_void_p * 2)(ctypes.addressof(task), rows_B.data_ptr())
    threads = min(torch.get_num_threads(), batch * groups)
    if threads > 1:
        _gomp_parallel(_kernel.ctypes, pointers, threads, 0)
    else:
        _kernel.ctypes(pointers)


def _place(x: torch.Tensor) -> tuple[int, ...]:
    """Where a tensor stands, and the steps of its first three axes."""
    return (x.data_ptr(), *x.stride()[:3])


def _stream(pointers: Any) -> None:
    """This thread's part of `multiply_add`."""
    task = carray(pointers[0], 15, np.int64)
    batch, groups, count, inputs, outputs = task[0], task[1], task[2], task[3], task[4]
    x_b, x_g, x_m, y_b, y_g, y_m = task[8], task[9], task[10], task[12], task[13], task[14]
    rows_B = carray(pointers[1], batch, np.int64)
    tall = TALL if outputs >= COLUMNS else THIN_TALL
    blocks = (count + tall - 1) // tall
    items = batch * groups
    for item in range(items * _thread() // _threads(), items * (_thread() + 1) // _threads()):
        b, g = item // groups, item % groups
        for i in range(0, inputs, LINES):
            x = task[7] + 4 * (b * x_b + g * x_g + i)
            w = task[6] + 4 * ((rows_B[b] * groups + g) * inputs + i) * outputs
            y = task[11] + 4 * (b * y_b + g * y_g)
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
                        x + 4 * m * x_m,
                        4 * x_m,
                        w + 4 * o,
                        4 * outputs,
                        y + 4 * (m * y_m + o),
                        4 * y_m,
                        min(LINES, inputs - i),
                        task[5] if i == 0 else 1,
                    )
                o += columns


def _compiled() -> Any:
    signature = types.void(types.CPointer(types.voidptr))
    try:
        return numba.cfunc(signature, cache=True, error_model="numpy")(_stream)
    except RuntimeError:  # no folder to keep it in: every process compiles it
        return numba.cfunc(signature, error_model="numpy")(_stream)


_kernel = _compiled()
