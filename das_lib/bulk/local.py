"""Recordings of any length in this process, without Ray: as the bulk job hears them."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from das_lib.adml import Strategy, Transcriber
from das_lib.bulk.hear import Heard, HearSettings, hear
from das_lib.bulk.vad import Vad
from das_lib.errors import Reject
from das_lib.speech.audio import Audio

PATIENCE_S = 0.2  # how long a batch that is not full waits for another window; reading takes 0.05
AHEAD = 2  # batches of windows in memory: one is decoded while the next is read
NAME = "heard"


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

    async def run() -> list[Heard]:
        batches = _Batches(transcriber, strategy, batch_size)
        room = asyncio.Semaphore(AHEAD * batch_size)
        options = {"branches": branches, "language": language}
        return await asyncio.gather(
            *(
                hear(blocks, batches.ask, settings, vad, room, id=id, **options)
                for id, blocks in recordings.items()
            )
        )

    return asyncio.run(run())


class _Batches:
    """Windows that are asked for at about the same time, decoded together."""

    def __init__(self, transcriber: Transcriber, strategy: Strategy, size: int) -> None:
        self._transcriber, self._strategies, self._size = transcriber, {NAME: strategy}, size
        self._waiting: list[tuple[Audio, bool, asyncio.Future[Any]]] = []
        self._decoding: asyncio.Task[None] | None = None

    async def ask(self, audio: Audio, times: bool) -> Mapping[str, Any] | Reject:
        """See `das_lib.bulk.hear.Ask`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((audio, times, answer))
        if self._decoding is None or self._decoding.done():
            self._decoding = asyncio.create_task(self._decode())
        return await answer

    async def _decode(self) -> None:
        while self._waiting:
            before = 0
            while before < len(self._waiting) < self._size:
                before = len(self._waiting)
                await asyncio.sleep(PATIENCE_S)
            batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            try:
                heard = await asyncio.to_thread(
                    self._transcriber.transcribe,
                    [audio for audio, _, _ in batch],
                    self._strategies,
                    batch_size=self._size,
                    word_times=[times for _, times, _ in batch],
                )
            except Exception as error:
                for _, _, answer in batch:
                    answer.set_exception(error)
                continue
            for (_, _, answer), result in zip(batch, heard, strict=True):
                if not answer.cancelled():
                    answer.set_result(
                        result if isinstance(result, Reject) else result[NAME].columns(len(batch))
                    )
