"""Threads for the kernels: those of torch's own products.

Of the OpenMP library that torch has loaded `run` asks what a compiler asks for a parallel region,
`GOMP_parallel`. Threads of Numba's own would have to wait for torch's, which stay awake for a while
after each product. Where there is no such library, this module cannot be imported.
"""

import ctypes
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from numba import types

from das_lib.models.cache import cache_root

_process = ctypes.CDLL(None) if os.name == "posix" else None
_gomp_parallel: Any = getattr(_process, "GOMP_parallel", None)
if _process is None or _gomp_parallel is None:
    raise ImportError("torch has loaded no OpenMP library that knows GOMP_parallel")

HEAD = 26
"""Numbers that a kernel is told before those of which there may be any count."""


def callable_by_kernels(name: str, function: Any, returns: Any, *takes: Any) -> Any:
    """A compiled function that kernels can call.

    They know it by name, as Numba keeps them on disk and addresses differ from process to process.
    """
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    llvmlite.binding.add_symbol(name, address)
    return types.ExternalFunction(name, returns(*takes))


thread = callable_by_kernels("das_thread", _process.omp_get_thread_num, types.int32)
"""In a kernel: which thread runs."""
threads = callable_by_kernels("das_threads", _process.omp_get_num_threads, types.int32)
"""In a kernel: how many run."""
barrier = callable_by_kernels("das_barrier", _process.GOMP_barrier, types.void)
"""In a kernel: go on when all have come here."""


def kernel(function: Callable[[Any], None]) -> Any:
    """Compile a function of one pointer, to what `run` passes."""
    return compiled(function, types.void(types.voidptr)).ctypes


def compiled(function: Callable[..., None], signature: Any) -> Any:
    """Compile a function, or load it as it was compiled for this state of the package's sources.

    Numba itself looks at the file of the function alone, and not at those that it calls.
    """
    settings: Any = numba.config
    before, settings.CACHE_DIR = settings.CACHE_DIR, str(cache_folder(Path(__file__).parent))
    try:
        return numba.cfunc(signature, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to keep it in: every process compiles it
        return numba.cfunc(signature, error_model="numpy")(function)
    finally:
        settings.CACHE_DIR = before


def cache_folder(sources: Path) -> Path:
    """Where kernels are kept that these sources describe."""
    digest = hashlib.sha256()
    for path in sorted(sources.glob("*.py")):
        digest.update(path.read_bytes())
    return cache_root("kernels") / digest.hexdigest()[:16]


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
        _gomp_parallel(kernel, numbers, count, 0)
    else:
        kernel(numbers)
