"""Where the fused kernels run: on a GPU with Triton, which torch brings along there."""

from functools import cache
from types import ModuleType

import torch


def kernels(device: torch.device) -> ModuleType | None:
    """`das_lib.adml.gpu.kernels`, or None: torch's own operations do the same, one by one."""
    return _kernels() if device.type == "cuda" else None


@cache
def _kernels() -> ModuleType | None:
    try:
        from das_lib.adml.gpu import kernels
    except ImportError:
        return None
    return kernels
