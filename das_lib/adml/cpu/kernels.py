"""All kernels for CPUs. Import through `fused`, which knows where they run."""

from das_lib.adml.cpu.attention import attend, self_attend
from das_lib.adml.cpu.peaks import peaks
from das_lib.adml.cpu.products import add_low_rank, linear, multiply_add, pack

__all__ = ["add_low_rank", "attend", "linear", "multiply_add", "pack", "peaks", "self_attend"]
