"""Threads for the kernels: those of torch's own products.

Of the OpenMP library that torch has loaded `run` asks what a compiler asks for a parallel region,
`GOMP_parallel`. Threads of Numba's own would have to wait for torch's, which stay awake for a while
after each product. Where there is no such library, this module cannot be imported.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from numba import types

_process = ctypes.CDLL(None) if os.name == "posix" else None
_gomp_parallel: Any = getattr(_process, "GOMP_parallel", None)
if _process is None or _gomp_parallel is None:
    raise ImportError("torch has loaded no OpenMP library that knows GOMP_parallel")

HEAD = 20
"""Numbers that a kernel is told before those of which there may be any count."""

# By name, as Numba keeps the kernels on disk and the addresses differ from process to process.
thread: Any = types.ExternalFunction("das_thread", types.int32())
"""In a kernel: which thread runs."""
threads: Any = types.ExternalFunction("das_threads", types.int32())
"""In a kernel: how many run."""
for _name, _function in (
    ("das_thread", _process.omp_get_thread_num),
    ("das_threads", _process.omp_get_num_threads),
):
    llvmlite.binding.add_symbol(_name, ctypes.cast(_function, ctypes.c_void_p).value or 0)


def kernel(function: Callable[[Any], None]) -> Any:
    """Compile a function of one pointer, to what `run` passes."""
    signature = types.void(types.voidptr)
    try:
        return numba.cfunc(signature, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to keep it in: every process compiles it
        return numba.cfunc(signature, error_model="numpy")(function)


def fields(names: str) -> np.dtype:
    """What a kernel is told first: at most HEAD numbers of these names."""
    return np.dtype([(name, np.int64) for name in names.split()])


def run(kernel: Any, task: Sequence[int], items: int, more: Sequence[int] = ()) -> None:
    """Run a kernel on ``task``, its `fields`, with at most a thread for each of ``items``.

    ``more`` follow behind HEAD numbers.
    """
    numbers = (ctypes.c_int64 * (HEAD + len(more)))(*task)
    numbers[HEAD:] = more
    count = min(torch.get_num_threads(), items)
    if count > 1:
        _gomp_parallel(kernel.ctypes, numbers, count, 0)
    else:
        kernel.ctypes(numbers)
