"""Somebody who decodes windows, for tests of who asks them."""

import asyncio
import random

import numpy as np

from das_lib.bulk.hear import HearSettings, hear
from das_lib.bulk.windows import WindowSettings
from das_lib.speech.audio import SAMPLE_RATE

PATIENCE_S = 60
NAMES = {"id": "calls/a.wav", "branches": ("base", "food"), "language": "de"}


def counted(seconds):
    """A recording, each second of which is its number; what `Replica` hears in it."""
    return np.repeat(np.arange(seconds, dtype=np.float32), SAMPLE_RATE)


def blocks(audio, size=7 * SAMPLE_RATE):
    return iter([audio[at : at + size] for at in range(0, len(audio), size)])


def answer(words, **changes):
    """What a replica says, of words with their begin and end; None: without times."""
    return {
        "text": " ".join(text for text, _, _ in words),
        "language": "en",
        "avg_logprob": -0.2,
        "temperature": 0.0,
        "no_speech_prob": None,
        "words": [
            {"text": text, "branch": 1, "confidence": 0.5, "start_s": start, "end_s": end}
            for text, start, end in words
        ],
        "batch": 4,
        **changes,
    }


def numbers(audio, times):
    """The numbers of the seconds that the audio consists of, each a word of a second."""
    at = range(0, len(audio), SAMPLE_RATE)
    spans = ((i / SAMPLE_RATE, i / SAMPLE_RATE + 1) if times else (None, None) for i in at)
    return [(f"{audio[i]:.0f}", *span) for i, span in zip(at, spans, strict=True)]


class Replica:
    """Hears `counted` recordings; remembers what it was asked for."""

    def __init__(self, **changes):
        self.changes, self.asked, self.padded = changes, [], []
        self.waiting = self.cancelled = 0
        self.random = random.Random(0)

    async def __call__(self, audio, times, window_s):
        self.asked.append((float(audio[0]), len(audio), times))
        self.padded.append(window_s)
        self.waiting += 1
        try:
            await self.wait(audio)
            return self.hear(audio, times)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1

    async def wait(self, audio):
        await asyncio.sleep(self.random.random() / 50)

    def hear(self, audio, times):
        return answer(numbers(audio, times), **self.changes)


def heard(audio, ask, *, vad=None, room=8, word_times=False, **options):
    """`hear`, from outside of a loop; afterwards nothing is on its way and the room is free."""

    async def run():
        semaphore = asyncio.Semaphore(room)
        recording = blocks(audio) if isinstance(audio, np.ndarray) else audio
        settings = HearSettings(word_times=word_times, windows=WindowSettings(**options))
        try:
            return await asyncio.wait_for(
                hear(recording, ask, settings, vad, semaphore, **NAMES), PATIENCE_S
            )
        finally:
            assert getattr(ask, "waiting", 0) == 0, "windows are still being decoded"
            assert not getattr(recording, "gi_running", False), "it is still being read"
            for _ in range(room):
                await asyncio.wait_for(semaphore.acquire(), 1)
            assert semaphore.locked(), "more was given back than taken"

    return asyncio.run(run())


def said(result):
    return [int(word) for word in result.transcript.text.split()]
