"""Where the fused kernels run: on a GPU with Triton, which torch brings along there."""

import subprocess
import warnings
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
    try:
        # Triton builds its launcher with the machine's C compiler when the first kernel starts.
        x = torch.zeros(1, 16, device="cuda")
        kernels.add_norm(x, None, (x[0], x[0]), x.dtype, 0, 1e-5)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"Triton cannot build kernels here ({error}); torch's own operations do the same, more "
            "slowly. A C compiler and Python's headers are what it needs",
            stacklevel=2,
        )
        return None
    return kernels
