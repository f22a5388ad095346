"""All kernels for CPUs. Import through `fused`, which knows where they run."""

from das_lib.adml.cpu.peaks import peaks
from das_lib.adml.cpu.products import add_low_rank, add_values, multiply_add

__all__ = ["add_low_rank", "add_values", "multiply_add", "peaks"]
