"""Having Linux run what computes for long, and what only looks around in between."""

import ctypes
import os
import platform
import sys
from contextlib import suppress

SLICE_NS = 100_000_000
"""The longest that Linux takes."""

SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The call's number; the C library has no function for it everywhere."""


class Attributes(ctypes.Structure):
    """``struct sched_attr`` of Linux, in its first form."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def work_in_batches(*, long_slices: bool) -> None:
    """Have Linux schedule this process, and those that it starts, as batch work.

    Even at rest, each of Ray's processes wakes up some hundred times a second, and each would at
    once stop the one that computes. As batch work it goes on to the end of its slice. A sandbox may
    forbid it, which costs speed alone.

    Args:
        long_slices: Of `SLICE_NS`. All that woke meanwhile then have one turn where they had ten,
            for answers that come so much later. Linux has them since 6.12; else they are a few
            milliseconds.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    number = SCHED_SETATTR.get(platform.machine())
    if long_slices and number is not None:
        size, nice = ctypes.sizeof(Attributes), os.getpriority(os.PRIO_PROCESS, 0)
        batch = Attributes(size, os.SCHED_BATCH, 0, nice, 0, SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(batch), 0)
