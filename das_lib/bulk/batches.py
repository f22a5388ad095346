"""Requests that come one by one to an engine that works in batches."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Batches(Generic[Request, Answer]):
    """Has requests worked on in batches, one batch at a time.

    A batch is made when the engine is free for it. Ray Serve's own batching also makes batches
    while the engine is at work: what comes in meanwhile, a few at a time, is then decoded a few at
    a time.
    """

    def __init__(
        self,
        work: Callable[[list[Request]], Sequence[Answer]],
        thread: Executor,
        *,
        size: int,
        wait_s: float,
    ) -> None:
        """Batches for ``work``.

        Args:
            work: Answers to a batch, in its order; what it raises is each request's answer.
            thread: Where it works.
            size: Most requests of a batch.
            wait_s: Longest wait of a free engine for a batch to fill, seconds.
        """
        self._work, self._thread, self._size, self._wait_s = work, thread, size, wait_s
        self._waiting: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._full = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Answer:
        """The answer to one request; a request that is cancelled before its turn is left out."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if len(self._waiting) >= self._size:
            self._full.set()
        if self._working is None:
            self._working = asyncio.create_task(self._work_on())
        return await answer

    async def _work_on(self) -> None:
        try:
            while self._waiting:
                if len(self._waiting) < self._size:
                    self._full.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._wait_s)
                if batch := self._take():
                    await self._answer(batch)
        finally:
            self._working = None

    def _take(self) -> list[tuple[Request, asyncio.Future[Answer]]]:
        batch = []
        while self._waiting and len(batch) < self._size:
            request, answer = self._waiting.popleft()
            if not answer.done():
                batch.append((request, answer))
        return batch

    async def _answer(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        loop = asyncio.get_running_loop()
        requests = [request for request, _ in batch]
        try:
            found = await loop.run_in_executor(self._thread, self._work, requests)
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), one in zip(batch, found, strict=True):
            if not answer.done():
                answer.set_result(one)
