"""Where the kernels for CPUs run: float32, Numba, and an OpenMP library like torch's own.

Those for a matrix unit are a module of their own, for they compile on such CPUs alone.
"""

from functools import cache
from types import ModuleType

import torch


def kernels(x: torch.Tensor) -> ModuleType | None:
    """`das_lib.adml.cpu.kernels` for such numbers, or None: torch's own operations do the same."""
    return load() if x.device.type == "cpu" and x.dtype == torch.float32 else None


@cache
def load() -> ModuleType | None:
    """Compile the kernels (seconds), or load them from Numba's cache.

    None where Numba or GNU's OpenMP is missing.
    """
    try:
        from das_lib.adml.cpu import kernels
    except ImportError:
        return None
    return kernels


@cache
def load_amx() -> ModuleType | None:
    """`das_lib.adml.cpu.amx`, compiled, or None where the CPU has no such unit."""
    if load() is None:
        return None
    try:
        from das_lib.adml.cpu import amx
    except ImportError:
        return None
    return amx
