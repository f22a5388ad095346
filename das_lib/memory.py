"""Memory that a process frees and soon needs again.

The tensors of a decode are of megabytes. glibc gives each back to the system when it is freed and
takes it again a page at a time: beside fast products that is 10 to 20 % of the time.
"""

import ctypes
import os

KEEP_FREED_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
    # A block with a mapping of its own is always given back, and a thread's own arena in parts.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_ARENA_MAX": "1",
}
"""The environment of processes that are to keep what they free."""

_MALLOPT = {-1: -1, -4: 0, -8: 1}  # the same settings, by glibc's numbers for them (malloc.h)


def keep_freed_memory() -> bool:
    """The same for this process; call it before there are threads.

    Returns:
        Whether the C library can be told so; others than glibc decide for themselves.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and all(mallopt(name, value) for name, value in _MALLOPT.items())
