"""Requests that come one by one to an engine that works in batches."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")

PASSED_OVER = 4
"""Batches that requests of another kind wait for, at the most, so that theirs fills."""


class Batches(Generic[Request, Answer]):
    """Has requests worked on in batches of one kind, one batch at a time.

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
        kind: Callable[[Request], Hashable] = lambda _: None,
    ) -> None:
        """Batches for ``work``.

        Args:
            work: Answers to a batch, in its order; what it raises is each request's answer.
            thread: Where it works.
            size: Most requests of a batch.
            wait_s: Longest wait of a free engine for a batch to fill, seconds.
            kind: Of a request. A kind of which a full batch waits goes first, but passes none over
                more than `PASSED_OVER` times.
        """
        self._work, self._thread, self._size, self._wait_s = work, thread, size, wait_s
        self._kind = kind
        self._waiting: dict[Hashable, deque[tuple[Request, asyncio.Future[Answer]]]] = {}
        self._passed: Counter[Hashable] = Counter()
        self._full = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Answer:
        """The answer to one request; a request that is cancelled before its turn is left out."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(self._kind(request), deque())
        queue.append((request, answer))
        if len(queue) >= self._size:
            self._full.set()
        if self._working is None:
            self._working = asyncio.create_task(self._work_on())
        return await answer

    def hurry(self, wait_s: float) -> None:
        """From now on, have a free engine wait no longer than this: little is still to come."""
        self._wait_s = wait_s
        self._full.set()

    async def _work_on(self) -> None:
        try:
            while self._waiting:
                if all(len(queue) < self._size for queue in self._waiting.values()):
                    self._full.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._wait_s)
                if batch := self._take():
                    await self._answer(batch)
        finally:
            self._working = None

    def _take(self) -> list[tuple[Request, asyncio.Future[Answer]]]:
        kinds = list(self._waiting)
        late = [kind for kind in kinds if self._passed[kind] >= PASSED_OVER]
        full = [kind for kind in kinds if len(self._waiting[kind]) >= self._size]
        kind = [*late, *full, *kinds][0]
        self._passed += Counter(kinds)
        del self._passed[kind]
        queue, batch = self._waiting.pop(kind), []
        while queue and len(batch) < self._size:
            request, answer = queue.popleft()
            if not answer.done():
                batch.append((request, answer))
        if queue:
            self._waiting[kind] = queue  # behind the others
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
