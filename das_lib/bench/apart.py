"""What is measured beside the engine, in a process of its own.

GNU OpenMP lets workers spin less between two products once several threads of a process have
workers: after another engine's first run in it, this one's products would wait for them to wake up.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from das_lib.memory import keep_freed_memory

_made: list[Callable[..., Any]] = []
"""In that process: what answers."""


@contextmanager
def apart(make: Callable[..., Callable[..., Any]], *args: Any) -> Iterator[Callable[..., Any]]:
    """What ``make(*args)`` makes in a new process, to be called here; it ends with the block.

    All that passes between the two is pickled, ``make`` by its name.

    Raises:
        Exception: what ``make`` raises; the calls, what it made raises.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(_make, make, args).result()
        yield lambda *request: process.submit(_answer, request).result()


def _make(make: Callable[..., Callable[..., Any]], args: tuple[Any, ...]) -> None:
    keep_freed_memory()  # as where this engine runs
    _made.append(make(*args))


def _answer(request: tuple[Any, ...]) -> Any:
    return _made[0](*request)
