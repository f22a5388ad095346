"""The largest logit of every row, and the log-sum-exp: each number is read from the cache twice.

Shape suffixes: R rows, V vocabulary (or a slice of it).
"""

import math
from typing import Any

import numpy as np
import torch
from numba import carray

from das_lib.adml.cpu.openmp import fields, kernel, run, thread, threads
from das_lib.adml.cpu.rows import WIDTH, exponentials, floats, largest

PEAKS = fields("rows width logits top logz")


def peaks(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Max and log-sum-exp over the last axis, float32. [..., V] -> 2 x [...].

    Rows may hold minus infinity; one of nothing else gives it twice.
    """
    logits = logits.contiguous()
    top, logz = logits.new_empty(logits.shape[:-1]), logits.new_empty(logits.shape[:-1])
    task = (top.numel(), logits.shape[-1], logits.data_ptr(), top.data_ptr(), logz.data_ptr())
    run(_peaks, task, top.numel())
    return top, logz


@kernel
def _peaks(pointer: Any) -> None:
    t = carray(pointer, 1, PEAKS)[0]
    tops, logzs = carray(floats(t.top), t.rows), carray(floats(t.logz), t.rows)
    whole = t.width - t.width % WIDTH
    for r in range(t.rows * thread() // threads(), t.rows * (thread() + 1) // threads()):
        row = t.logits + 4 * r * t.width
        rest = carray(floats(row + 4 * whole), t.width - whole)
        top = largest(row, whole) if whole else np.float32(-np.inf)
        for x in rest:
            top = max(top, x)
        total = np.float32(0)
        if top > -np.inf:
            total = exponentials(row, whole, top) if whole else total
            for x in rest:
                total += np.float32(math.exp(x - top))
        tops[r] = top
        logzs[r] = top + np.float32(math.log(total)) if total else top
