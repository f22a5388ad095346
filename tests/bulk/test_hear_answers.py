"""What is made of a recording's answers: guards, holes, languages, places in the recording."""

import asyncio
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from listening import Replica, answer, counted, heard, numbers, said

from das_lib.bulk.hear import padded_s
from das_lib.bulk.vad import Vad
from das_lib.errors import Reject
from das_lib.speech.audio import SAMPLE_RATE, AudioError, read_audio

LIBRIVOX = Path(__file__).parents[2] / "data" / "eval" / "librivox" / "audio"


class Sleepy(Replica):
    """Skips ten seconds of whole windows: the word before them is stretched over them."""

    skips: ClassVar = {30: (9, 20)}  # seconds of a window: the words that become one

    def hear(self, audio, times):
        words = numbers(audio, times)
        if stretch := self.skips.get(len(audio) // SAMPLE_RATE):
            first, last = stretch
            words[first:last] = [(words[first][0], words[first][1], words[last - 1][2])]
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


def test_what_the_hole_of_a_hole_leaves_out_is_heard_too():
    class Drowsy(Sleepy):
        """Skips three seconds of holes, too."""

        skips: ClassVar = Sleepy.skips | {11: (3, 7)}

    replica = Drowsy()
    result = heard(counted(30), replica)
    assert said(result) == list(range(30))
    assert [length // SAMPLE_RATE for _, length, _ in replica.asked] == [30, 11, 4]
    assert replica.padded == [None, 20, 10]  # what holes are padded to
    assert result.counts == {"hole": 1}
    assert result.windows == 3


def test_what_is_doubtful_in_a_short_window_is_heard_in_a_whole_one():
    class Doubtful(Sleepy):
        def hear(self, audio, times):
            if self.padded[-1] is not None:
                return answer([("la", 0, 1)], avg_logprob=-1.5, no_speech_prob=0.9)
            return super().hear(audio, times)

    replica = Doubtful()
    result = heard(counted(30), replica)
    assert said(result) == list(range(30))
    assert replica.padded == [None, 20, None]
    assert (result.counts, result.windows) == ({"hole": 1}, 3)


@pytest.mark.parametrize(("hole_s", "window_s"), [(6, 10), (6.1, 20), (16, 20), (16.1, None)])
def test_a_hole_is_padded_to_what_leaves_four_seconds(hole_s, window_s):
    assert padded_s(hole_s) == window_s


def test_nothing_is_heard_more_than_four_times():
    class Humming(Replica):
        """Hears one word in anything, at its beginning."""

        def hear(self, audio, times):
            return answer([("humming", 0.0, 1.5)])

    replica = Humming()
    result = heard(counted(30), replica)
    assert result.transcript.text == "humming"
    assert [length / SAMPLE_RATE for _, length, _ in replica.asked] == [30, 28.5, 27, 25.5]
    assert result.windows == 4


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

    async def ask(audio, times, window_s):
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
    assert 0.6 * spoken < transcript.speech_s < spoken + 2 * len(clips)  # of the pauses 2 s stay
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
