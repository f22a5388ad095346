"""Kernels recorded once and replayed together (CUDA graphs).

At batch 1 a GPU computes faster than Python can ask it to. What is recorded works on the same
tensors every time, so batches are filled up to one of a few sizes.
"""

from collections.abc import Callable
from typing import Any

import torch


def record(
    work: Callable[[], object], device: torch.device, pool: Any = None
) -> Callable[[], object]:
    """What does ``work`` again, on the tensors that it worked on.

    Args:
        work: Reads and writes tensors that outlive it; no shape depends on what they hold. It runs
            once here. On a CPU it is given back as it is.
        device: Of the tensors.
        pool: Memory for what lives within one replay alone, shared by recordings that never run
            at the same time (`torch.cuda.graph_pool_handle`).
    """
    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        work()  # libraries choose their kernels, Triton compiles
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    return graph.replay


def filled(count: int) -> int:
    """The size that a batch is filled up to: powers of two, from 64 on multiples of 64."""
    return 1 << (count - 1).bit_length() if count <= 64 else -(-count // 64) * 64


class Recorded:
    """A function of one tensor [B, ...], recorded once for each shape."""

    def __init__(
        self, function: Callable[[torch.Tensor], torch.Tensor], device: torch.device
    ) -> None:
        self._function, self._device = function, device
        self._replays: dict[object, tuple[torch.Tensor, torch.Tensor, Callable[[], object]]] = {}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The function of ``x``, which may lie on another device."""
        shape = (filled(len(x)), *x.shape[1:])
        if (shape, x.dtype) not in self._replays:
            self._replays[shape, x.dtype] = self._record(
                torch.zeros(shape, dtype=x.dtype, device=self._device)
            )
        given, result, replay = self._replays[shape, x.dtype]
        given[: len(x)].copy_(x)
        replay()
        return result[: len(x)].clone()  # the next call writes here again

    def _record(self, given: torch.Tensor):
        result = self._function(given)

        def work() -> None:
            result.copy_(self._function(given))

        return given, result, record(work, self._device)
