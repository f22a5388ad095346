"""Recordings of any length in this process, without Ray: as the bulk job hears them."""

import asyncio
import queue
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from das_lib.adml import Strategy, Transcriber
from das_lib.bulk.batches import Batches
from das_lib.bulk.hear import Heard, HearSettings, hear
from das_lib.bulk.vad import Vad
from das_lib.errors import Reject
from das_lib.speech.audio import Audio

PATIENCE_S = 0.5
"""How long the engine waits for a batch to fill; reading a window takes 0.1."""
REST_S = 0.05
"""The same when all is read: what is heard once more is known as soon as there are answers."""
AHEAD = 4
"""Windows in memory, in batches: one is decoded, the next is read, others wait for their holes."""
NAME = "heard"

_Asked = tuple[Audio, bool, float | None]
"""See `das_lib.bulk.hear.Ask`."""


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
    strategies = {NAME: strategy}
    here = _Here()

    def decode(windows: list[_Asked]) -> list[Mapping[str, Any] | Reject]:
        audio, times, lengths = zip(*windows, strict=True)
        heard = transcriber.transcribe(
            audio, strategies, batch_size=batch_size, word_times=times, windows_s=lengths
        )
        return [
            result if isinstance(result, Reject) else result[NAME].columns(len(windows))
            for result in heard
        ]

    batches = Batches(decode, here, size=batch_size, wait_s=PATIENCE_S, kind=lambda asked: asked[2])

    async def ask(audio: Audio, times: bool, window_s: float | None) -> Mapping[str, Any] | Reject:
        return await batches.ask((audio, times, window_s))

    unread = len(recordings)

    def read() -> None:
        nonlocal unread
        unread -= 1
        if not unread:
            batches.hurry(REST_S)

    async def run() -> list[Heard]:
        room = asyncio.Semaphore(AHEAD * batch_size)
        options = {"branches": branches, "language": language, "read": read}
        return await asyncio.gather(
            *(
                hear(blocks, ask, settings, vad, room, id=id, **options)
                for id, blocks in recordings.items()
            )
        )

    # Decoding stays in the caller's thread: GNU OpenMP puts its workers to sleep between two
    # products as soon as a second thread has workers too, and a decode takes longer.
    with ThreadPoolExecutor(1) as reading:
        heard = reading.submit(asyncio.run, run())
        heard.add_done_callback(lambda _: here.shutdown())
        here.work()
        return heard.result()


class _Here(Executor):
    """Has what is submitted done by the thread that calls `work`."""

    def __init__(self) -> None:
        self._submitted: queue.SimpleQueue[tuple[Future[Any], partial[Any]] | None] = (
            queue.SimpleQueue()
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`."""
        answer: Future[Any] = Future()
        self._submitted.put((answer, partial(fn, *args, **kwargs)))
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let `work` return."""
        self._submitted.put(None)

    def work(self) -> None:
        """Do it until the end."""
        while (submitted := self._submitted.get()) is not None:
            answer, do = submitted
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(do())
            except BaseException as error:  # who waits must not wait for ever
                interrupted = not isinstance(error, Exception)
                answer.set_exception(RuntimeError("interrupted") if interrupted else error)
                if interrupted:
                    raise
