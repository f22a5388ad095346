"""Recordings of any length in this process, without Ray: as the bulk job hears them."""

import asyncio
import queue
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from das_lib.adml import Strategy, Transcriber
from das_lib.bulk.hear import Heard, HearSettings, hear
from das_lib.bulk.vad import Vad
from das_lib.errors import Reject
from das_lib.speech.audio import Audio

PATIENCE_S = 0.2  # how long a batch that is not full waits for another window; reading takes 0.05
AHEAD = 2  # batches of windows in memory: one is decoded while the next is read
NAME = "heard"

_Asked = tuple[Audio, bool, Future[Any]]
"""A window, whether to time its words, and its answer to come."""


def hear_locally(
    recordings: Mapping[str, Iterable[Audio]],
    transcriber: Transcriber,
    strategy: Strategy,
    *,
    settings: HearSettings | None = None,
    vad: Vad | None = None,
    batch_size: int = 8,
) -> list[Heard]:
    """Transcribe recordings, 16 kHz mono in blocks, by id; their windows share batches.

    Args:
        recordings: Blocks by id, such as ``das_lib.bulk.media.decode`` gives.
        transcriber: The model and its adapters.
        strategy: How it chooses tokens.
        settings: How recordings are heard.
        vad: Finds speech; None: everything is decoded.
        batch_size: Windows that are decoded together.

    Raises:
        AudioError: a recording cannot be read.
    """
    settings = settings or HearSettings()
    branches = transcriber.bank.names
    language = transcriber.engine.language or "en"
    batches = _Batches(transcriber, strategy, batch_size)

    async def run() -> list[Heard]:
        room = asyncio.Semaphore(AHEAD * batch_size)
        options = {"branches": branches, "language": language}
        return await asyncio.gather(
            *(
                hear(blocks, batches.ask, settings, vad, room, id=id, **options)
                for id, blocks in recordings.items()
            )
        )

    # Decoding stays in the caller's thread: GNU OpenMP puts its workers to sleep between two
    # products as soon as a second thread has workers too, and a decode takes longer.
    with ThreadPoolExecutor(1) as reading:
        heard = reading.submit(asyncio.run, run())
        heard.add_done_callback(lambda _: batches.end())
        batches.decode()
        return heard.result()


class _Batches:
    """Windows that are asked for at about the same time, decoded together in another thread."""

    def __init__(self, transcriber: Transcriber, strategy: Strategy, size: int) -> None:
        self._transcriber, self._strategies, self._size = transcriber, {NAME: strategy}, size
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._ended = False

    async def ask(self, audio: Audio, times: bool) -> Mapping[str, Any] | Reject:
        """See `das_lib.bulk.hear.Ask`."""
        answer: Future[Any] = Future()
        self._asked.put((audio, times, answer))
        if self._ended:  # nobody decodes any more
            answer.cancel()
        return await asyncio.wrap_future(answer)

    def end(self) -> None:
        """Let `decode` return."""
        self._asked.put(None)

    def decode(self) -> None:
        """Answer until the end."""
        try:
            while not self._ended:
                if batch := self._batch():
                    self._answer(batch)
        finally:
            self._ended = True
            while not self._asked.empty():
                if asked := self._asked.get():
                    asked[2].cancel()

    def _batch(self) -> list[_Asked]:
        """The next windows, or none."""
        batch: list[_Asked] = []
        with suppress(queue.Empty):
            while len(batch) < self._size:
                asked = self._asked.get(timeout=PATIENCE_S if batch else None)
                if asked is None:
                    self._ended = True
                    break
                if asked[2].set_running_or_notify_cancel():
                    batch.append(asked)
        return batch

    def _answer(self, batch: list[_Asked]) -> None:
        try:
            heard = self._transcriber.transcribe(
                [audio for audio, _, _ in batch],
                self._strategies,
                batch_size=self._size,
                word_times=[times for _, times, _ in batch],
            )
        except BaseException as error:  # who waits must not wait for ever
            interrupted = not isinstance(error, Exception)
            for _, _, answer in batch:
                answer.set_exception(RuntimeError("interrupted") if interrupted else error)
            if interrupted:
                raise
            return
        for (_, _, answer), result in zip(batch, heard, strict=True):
            answer.set_result(
                result if isinstance(result, Reject) else result[NAME].columns(len(batch))
            )
