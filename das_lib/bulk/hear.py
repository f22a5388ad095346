"""One recording to its transcript: windows out to whoever decodes them, answers put together."""

import asyncio
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

from das_lib.bulk.fill import fill
from das_lib.bulk.guards import DROPPED, GuardSettings, judge
from das_lib.bulk.holes import find_holes
from das_lib.bulk.loops import halves, unloop
from das_lib.bulk.stitch import stitch
from das_lib.bulk.transcript import Transcript
from das_lib.bulk.vad import Vad
from das_lib.bulk.windows import Window, Windows, WindowSettings
from das_lib.errors import Reject
from das_lib.speech.audio import SAMPLE_RATE, Audio, AudioError

LONG_S = 10.0
"""Longer windows are aligned: only in them does Whisper skip speech, and subtitles need cuts."""
LISTENS = 4
"""How often any part of a window is heard at the most: as a whole, in a hole, in a hole of that.
Of three sentences that were skipped at once, the last may need them all. What is heard once more
because its short window left doubt is not counted."""
HOLE_WINDOWS_S, HOLE_MARGIN_S = (10.0, 20.0), 4.0
"""Holes are padded to the shortest that leaves such a margin, else to 30 s: most are short, and
30 s of little speech would cost as much as the window they are in. In steps, so that what is heard
does not depend on who shares the batch. With less of a margin Whisper, which has learnt 30 s, makes
more errors."""
HOLE = "hole"
"""Counts windows of which a part was heard again, see `das_lib.bulk.holes` and `loops`."""

Answer = Mapping[str, Any]
Ask = Callable[[Audio, bool, float | None], Awaitable[Answer | Reject]]
"""Has audio of at most 30 s decoded; True: with the times of its words. A number: padded to
so many seconds, see `das_lib.adml.transcriber.Transcriber.transcribe`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HearSettings:
    """How recordings are heard."""

    windows: WindowSettings = field(default_factory=WindowSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    word_times: bool = False
    """Whether words keep their times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A transcript and how it came about."""

    transcript: Transcript
    counts: Counter[str] = field(default_factory=Counter)
    """Windows by what the guards said of them, and `HOLE`."""
    windows: int = 0
    """Decodes asked for."""
    batches: float = 0.0
    """The share in the batches that they were decoded in."""


async def hear(
    blocks: Iterable[Audio],
    ask: Ask,
    settings: HearSettings,
    vad: Vad | None,
    room: asyncio.Semaphore,
    *,
    id: str,
    branches: Sequence[str],
    language: str,
    read: Callable[[], None] = lambda: None,
) -> Heard:
    """Have a recording decoded, window by window, as far as ``room`` allows at once.

    Args:
        blocks: The recording, 16 kHz mono; read in a thread, for decoding audio takes its time.
        ask: Decodes a window.
        settings: How to hear.
        vad: Finds speech; None: everything is decoded.
        room: Bounds the windows in memory, shared by all recordings that are heard at once.
        id: Of the recording.
        branches: Names by number; 0 is the base.
        language: What an empty transcript is said to be in.
        read: Is called when all windows have been asked for but those that answers call for.

    Raises:
        AudioError: the recording cannot be read, or a window cannot be decoded.
    """
    windows = Windows(blocks, vad, settings.windows)
    iterator = iter(windows)
    listening: list[asyncio.Task[_Listened]] = []
    async with together() as tasks:
        while True:
            await room.acquire()
            try:
                window = await _read(iterator)
            except BaseException:
                room.release()
                raise
            if window is None:
                room.release()
                break
            task = tasks.create_task(_listen(window, ask, settings))
            task.add_done_callback(lambda _: room.release())
            listening.append(task)
        read()
    listened = [task.result() for task in listening]
    kept = [(one.window, one.answer) for one in listened if one.verdict not in DROPPED]
    counts = Counter(one.verdict for one in listened if one.verdict is not None)
    counts[HOLE] = sum(one.decodes > 1 for one in listened)
    return Heard(
        transcript=Transcript(
            id=id,
            language=_language([answer for _, answer in kept], language),
            duration_s=windows.num_samples / SAMPLE_RATE,
            speech_s=windows.speech_samples / SAMPLE_RATE,
            segments=stitch(kept, branches, word_times=settings.word_times),
        ),
        counts=+counts,
        windows=sum(one.decodes for one in listened),
        batches=sum(one.batches for one in listened),
    )


async def _read(windows: Iterator[Window]) -> Window | None:
    """The next window, read in a thread; also who is cancelled waits: the file is closed next."""
    reading = asyncio.create_task(asyncio.to_thread(next, windows, None))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.gather(reading, return_exceptions=True)
        raise


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks of which the first that fails ends the others and the block; its error is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except ExceptionGroup as failed:
        first = failed.exceptions[0]
        raise first from first.__cause__


@dataclass(frozen=True, slots=True)
class _Listened:
    window: Window
    """Without its audio."""
    answer: Answer
    verdict: str | None
    decodes: int
    batches: float


def needs_times(window: Window) -> bool:
    """Whether the times of its words are needed to put the transcript together, see `LONG_S`."""
    return len(window.pieces) > 1 or window.duration_s > LONG_S


async def _listen(window: Window, ask: Ask, settings: HearSettings) -> _Listened:
    times = settings.word_times or needs_times(window)
    answer, decodes = await _whole(window, ask, settings.guards, times=times)
    return _Listened(
        replace(window, audio=window.audio[:0].copy()),
        answer,
        judge(answer, settings.guards),
        len(decodes),
        sum(1 / one.get("batch", 1) for one in decodes),
    )


async def _whole(
    window: Window,
    ask: Ask,
    guards: GuardSettings,
    *,
    times: bool,
    listens: int = LISTENS,
    window_s: float | None = None,
) -> tuple[Answer, list[Answer]]:
    """What is heard in a window, loops and holes mended, and every answer that it took."""
    answer = await _asked(ask, window, times, window_s)
    asked = [answer]
    if window_s is not None and judge(answer, guards) is not None:
        # What a short window makes doubtful may be plain in the one that Whisper has learnt.
        answer = await _asked(ask, window, times, None)
        asked.append(answer)
    if not times or listens == 1:
        return answer, asked
    parts, mend = _mending(window, answer, guards)
    if not parts:
        return answer, asked
    async with together() as tasks:
        again = [
            tasks.create_task(
                _whole(part, ask, guards, times=True, listens=listens - 1, window_s=seconds)
            )
            for part, seconds in parts
        ]
    heard = [task.result() for task in again]
    mended = mend([one for one, _ in heard])
    return mended, [*asked, *(one for _, decodes in heard for one in decodes)]


def _mending(
    window: Window, answer: Answer, guards: GuardSettings
) -> tuple[Sequence[tuple[Window, float | None]], Callable[[list[Answer]], Answer]]:
    """What to hear again, padded to how many seconds, and what makes one answer of all."""
    if judge(answer, guards) == "repetitive":
        starts = halves(window)
        spans = pairwise([*starts, window.duration_s])
        parts = [(window.part(*span), None) for span in spans]
        return parts, partial(unloop, answer, starts, guards=guards)
    holes = find_holes(window, answer)
    parts = [(window.part(h.start_s, h.end_s), padded_s(h.duration_s)) for h in holes]
    return parts, partial(fill, answer, holes, guards=guards)


def padded_s(hole_s: float) -> float | None:
    """What a hole of that length is padded to; None: to 30 s, as all else."""
    return next((s for s in HOLE_WINDOWS_S if hole_s + HOLE_MARGIN_S <= s), None)


async def _asked(ask: Ask, window: Window, times: bool, window_s: float | None) -> Answer:
    answer = await ask(window.audio, times, window_s)
    if isinstance(answer, Reject):
        raise AudioError(answer.reason, answer.detail)
    return answer


def _language(answers: Sequence[Answer], default: str) -> str:
    """What most of the text is in."""
    letters: Counter[str] = Counter()
    for answer in answers:
        letters[answer["language"]] += len(answer["text"])
    return letters.most_common(1)[0][0] if letters.total() else default
