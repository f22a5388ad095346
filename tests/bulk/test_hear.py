"""A recording through somebody who decodes windows: order, room, errors, guards, holes."""

import asyncio
import random
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from das_lib.bulk.hear import HearSettings, hear
from das_lib.bulk.vad import Vad
from das_lib.bulk.windows import WindowSettings
from das_lib.errors import Reject
from das_lib.speech.audio import SAMPLE_RATE, AudioError, read_audio

LIBRIVOX = Path(__file__).parents[2] / "data" / "eval" / "librivox" / "audio"
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
        self.changes, self.asked, self.waiting, self.cancelled = changes, [], 0, 0
        self.random = random.Random(0)

    async def __call__(self, audio, times):
        self.asked.append((float(audio[0]), len(audio), times))
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


def test_windows_stand_in_order_whatever_the_order_of_the_answers():
    replica, order = Replica(), []
    replica.hear = lambda audio, times: order.append(audio[0]) or answer(numbers(audio, times))
    result = heard(counted(310), replica)
    assert order != sorted(order), "the answers came in order: this shows nothing"
    assert said(result) == list(range(310))
    starts = [segment.start_s for segment in result.transcript.segments]
    assert starts == sorted(starts)
    assert (result.windows, len(replica.asked)) == (11, 11)
    transcript = result.transcript
    assert (transcript.id, transcript.language) == ("calls/a.wav", "en")
    assert (transcript.duration_s, transcript.speech_s) == (310, 310)
    assert {word.adapter for word in transcript.words} == {"food"}


class Crowded(Replica):
    """Answers nobody before ``room`` windows wait; counts the windows that are in memory."""

    def __init__(self, room):
        super().__init__()
        self.room, self.full = room, asyncio.Event()
        self.windows, self.most_waiting, self.most_in_memory = [], 0, 0

    async def wait(self, audio):
        self.windows.append(weakref.ref(audio))
        self.most_waiting = max(self.most_waiting, self.waiting)
        if self.waiting == self.room:
            await asyncio.sleep(0.1)  # for those that should not come
            self.full.set()
        await self.full.wait()
        await super().wait(audio)
        in_memory = sum(window() is not None for window in self.windows)
        self.most_in_memory = max(self.most_in_memory, in_memory)


def test_room_bounds_the_windows_of_all_recordings_that_are_heard_at_once():
    room = 3

    async def run():
        replica, semaphore = Crowded(room), asyncio.Semaphore(room)
        both = [
            hear(blocks(counted(240)), replica, HearSettings(), None, semaphore, **NAMES)
            for _ in range(2)
        ]
        return replica, await asyncio.wait_for(asyncio.gather(*both), PATIENCE_S)

    replica, results = asyncio.run(run())
    assert [said(result) for result in results] == [list(range(240))] * 2
    assert replica.most_waiting == room, "room is neither left empty nor overdrawn"
    # Each of the two recordings holds the window that it read last besides.
    assert replica.most_in_memory <= room + 2


@pytest.mark.parametrize("room", [4, 20])
def test_a_rejected_window_ends_its_recording_and_the_others_are_cancelled(room):
    replica, rejected = Replica(), asyncio.Event()

    async def wait(audio):
        if audio[0] != 60:
            await asyncio.Event().wait()

    def reject(audio, times):
        rejected.set()
        return Reject("", "replica-died", "6 times")

    replica.wait, replica.hear = wait, reject
    with pytest.raises(AudioError, match=r"replica-died: 6 times") as caught:
        heard(counted(3000), replica, room=room)
    assert caught.value.reason == "replica-died"
    assert replica.cancelled == len(replica.asked) - 1
    assert replica.waiting == 0
    assert len(replica.asked) <= room + 1, "it was read on behind the rejection"


def test_nobody_reads_on_when_a_recording_has_ended():
    replica, begun, go = Replica(), threading.Event(), threading.Event()

    def slow():
        yield from blocks(counted(60))
        begun.set()
        assert go.wait(PATIENCE_S)
        yield from blocks(counted(60))

    async def reject(audio):
        while not begun.is_set():
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.2, go.set)

    replica.wait = reject
    replica.hear = lambda audio, times: Reject("", "replica-died", "")
    with pytest.raises(AudioError, match="replica-died"):
        heard(slow(), replica)
    assert go.is_set()


def test_what_a_replica_raises_is_raised_as_it_is():
    replica = Replica()

    def fail(audio, times):
        raise KeyError("a bug")

    replica.hear = fail
    with pytest.raises(KeyError, match="a bug"):
        heard(counted(90), replica)


@pytest.mark.parametrize("room", [1, 2, 20])
def test_a_recording_that_cannot_be_read_on_is_rejected_and_its_windows_cancelled(room):
    replica = Replica()

    def broken():
        yield from blocks(counted(120))
        raise AudioError("truncated", "ends at 120 s of 300 s")

    if room > 4:  # all windows are read before one is answered

        async def wait(audio):
            await asyncio.Event().wait()

        replica.wait = wait
    with pytest.raises(AudioError, match="truncated: ends at 120 s"):
        heard(broken(), replica, room=room)
    assert (replica.waiting, replica.cancelled) == (0, 4 if room > 4 else replica.cancelled)


def test_a_caller_that_gives_up_ends_the_windows_on_their_way():
    async def run():
        replica, semaphore = Replica(), asyncio.Semaphore(2)

        async def wait(audio):
            await asyncio.Event().wait()

        replica.wait = wait
        task = asyncio.create_task(
            hear(blocks(counted(300)), replica, HearSettings(), None, semaphore, **NAMES)
        )
        while replica.waiting < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (replica.waiting, replica.cancelled) == (0, 2)
        for _ in range(2):
            await asyncio.wait_for(semaphore.acquire(), 1)

    asyncio.run(run())


class Sleepy(Replica):
    """Skips ten seconds of whole windows: the word before them is stretched over them."""

    def hear(self, audio, times):
        words = numbers(audio, times)
        if len(audio) == 30 * SAMPLE_RATE:
            text, start, _ = words[9]
            words[9:20] = [(text, start, start + 11)]
        return answer(words)


def test_what_a_window_leaves_out_is_heard_again_and_counted():
    replica = Sleepy()
    result = heard(counted(65), replica, word_times=True)
    assert said(result) == list(range(65))
    again = [(first, length) for first, length, _ in replica.asked if length == 11 * SAMPLE_RATE]
    assert sorted(again) == [(9, 11 * SAMPLE_RATE), (39, 11 * SAMPLE_RATE)]
    assert result.counts == {"hole": 2}
    assert result.windows == 5
    assert result.batches == pytest.approx(5 / 4)
    words = result.transcript.words
    assert [word.start_s for word in words] == list(range(65))
    assert [word.end_s for word in words] == list(range(1, 66))


def test_a_hole_that_cannot_be_decoded_ends_the_recording_and_the_other_holes():
    class Deaf(Sleepy):
        async def wait(self, audio):
            if len(audio) == 11 * SAMPLE_RATE and audio[0] != 39:
                await asyncio.Event().wait()

        def hear(self, audio, times):
            if len(audio) == 11 * SAMPLE_RATE:
                return Reject("", "replica-died", "")
            return super().hear(audio, times)

    replica = Deaf()
    with pytest.raises(AudioError, match="replica-died"):
        heard(counted(65), replica)
    assert (replica.waiting, replica.cancelled) == (0, 1)


@pytest.mark.parametrize(
    ("seconds", "word_times", "asked"), [(10, False, False), (10, True, True), (11, False, True)]
)
def test_times_are_asked_for_where_they_are_needed(seconds, word_times, asked):
    replica = Replica()
    result = heard(counted(seconds), replica, word_times=word_times)
    assert replica.asked == [(0.0, seconds * SAMPLE_RATE, asked)]
    (segment, *_) = result.transcript.segments
    assert {word.start_s is not None for word in segment.words} == {word_times}


LOOP = "and so it goes " * 40


def test_guards_are_counted_and_what_is_made_up_in_silence_is_dropped():
    by_first = {
        0: {"text": "thanks for watching", "avg_logprob": -1.5, "no_speech_prob": 0.9},
        30: {"text": LOOP},
        60: {"text": "a guess", "avg_logprob": -1.5, "no_speech_prob": 0.3},
        90: {"text": "what was said"},
        120: {"text": ""},
    }

    class Guessing(Replica):
        def hear(self, audio, times):
            return answer([], **by_first[int(audio[0])])

    result = heard(counted(150), Guessing())
    assert result.counts == {"no-speech": 1, "repetitive": 1, "unlikely": 1}
    assert result.transcript.text == f"{LOOP.strip()} a guess what was said"
    assert [(s.start_s, s.end_s) for s in result.transcript.segments] == [
        (30, 60),
        (60, 90),
        (90, 120),
    ]
    assert (result.windows, result.transcript.speech_s) == (5, 150)


def test_batches_are_the_shares_in_those_that_the_windows_were_in():
    class Batched(Replica):
        def hear(self, audio, times):
            return answer(numbers(audio, times), batch={0: 1, 30: 2, 60: 8}[int(audio[0])])

    assert heard(counted(70), Batched()).batches == pytest.approx(1 + 1 / 2 + 1 / 8)


def test_the_language_is_that_of_most_of_the_text_that_stays():
    by_first = {
        0: {"text": "merci d'avoir regardé cette vidéo", "language": "fr"}
        | {"avg_logprob": -1.5, "no_speech_prob": 0.9},
        30: {"text": "one two three", "language": "en"},
        60: {"text": "vier", "language": "de"},
    }

    class Polyglot(Replica):
        def hear(self, audio, times):
            return answer([], **by_first[int(audio[0])])

    assert heard(counted(90), Polyglot()).transcript.language == "en"


def test_a_recording_in_which_nothing_is_said_has_the_language_that_was_given():
    class Silent(Replica):
        def hear(self, audio, times):
            return answer([], language="la")

    result = heard(counted(40), Silent())
    assert (result.transcript.text, result.transcript.language) == ("", "de")
    assert result.transcript.segments == ()
    assert result.windows == 2


def test_silence_is_not_decoded_and_speech_keeps_its_place():
    clips = [read_audio(path) for path in sorted(LIBRIVOX.glob("*.flac"))[:3]]
    pause = np.zeros(12 * SAMPLE_RATE, np.float32)
    parts, places, at = [pause], [], len(pause)
    for clip in clips:
        places.append((at / SAMPLE_RATE, (at + len(clip)) / SAMPLE_RATE))
        parts += [clip, pause]
        at += len(clip) + len(pause)
    recording = np.concatenate(parts)

    async def ask(audio, times):
        """A word for each half of a second that is not silent."""
        half = SAMPLE_RATE // 2
        loud = [
            i
            for i in range(0, len(audio), half)
            if np.abs(audio[i : i + half]).max(initial=0) > 0.1
        ]
        return answer([("la", i / SAMPLE_RATE, i / SAMPLE_RATE + 0.5) for i in loud])

    result = heard(recording, ask, vad=Vad.from_package(), word_times=True)
    transcript = result.transcript
    assert transcript.duration_s == pytest.approx(len(recording) / SAMPLE_RATE)
    spoken = sum(len(clip) for clip in clips) / SAMPLE_RATE
    assert 0.6 * spoken < transcript.speech_s < spoken + 3
    for start, end in places:
        inside = [w for w in transcript.words if start - 0.5 <= w.start_s and w.end_s <= end + 0.5]
        assert len(inside) >= (end - start), "a word a second at least"
    assert len(transcript.words) == sum(
        any(start - 0.5 <= word.start_s <= end + 0.5 for start, end in places)
        for word in transcript.words
    )


def test_nobody_is_asked_about_a_recording_without_speech():
    replica = Replica()
    result = heard(np.zeros(50 * SAMPLE_RATE, np.float32), replica, vad=Vad.from_package())
    assert replica.asked == []
    transcript = result.transcript
    assert (transcript.text, transcript.language) == ("", "de")
    assert (transcript.duration_s, transcript.speech_s, result.windows) == (50, 0, 0)
    assert result.batches == 0
