"""Having Linux run what computes for long, and what only looks around in between."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SLICE_NS = 100_000_000
"""The longest that Linux takes."""

SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The call's number; `sched_getattr` has the next. Not every C library has functions for them."""


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


def scheduling() -> Attributes | None:
    """How Linux schedules this thread; None where that cannot be asked."""
    number = SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return None
    found, size = Attributes(), ctypes.sizeof(Attributes)
    failed = ctypes.CDLL(None).syscall(number + 1, 0, ctypes.byref(found), size, 0)
    return None if failed else found


@contextmanager
def batch_work(*, long_slices: bool) -> Iterator[None]:
    """Have Linux schedule this thread, and the processes that it starts, as batch work meanwhile.

    Even at rest, each of Ray's processes wakes up some hundred times a second, and each would at
    once stop the one that computes. As batch work it goes on to the end of its slice. A sandbox may
    forbid it, which costs speed alone.

    Args:
        long_slices: Of `SLICE_NS`. All that woke meanwhile then have one turn where they had ten,
            for answers that come so much later. Linux has them since 6.12; else they are a few
            milliseconds.
    """
    before = scheduling()
    if before is None:
        yield
        return
    slice_ns = SLICE_NS if long_slices else before.runtime
    _schedule(Attributes(before.size, os.SCHED_BATCH, 0, before.nice, 0, slice_ns, 0, 0))
    try:
        yield
    finally:
        _schedule(before)


def _schedule(attributes: Attributes) -> None:
    ctypes.CDLL(None).syscall(SCHED_SETATTR[platform.machine()], 0, ctypes.byref(attributes), 0)
