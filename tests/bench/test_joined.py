"""The long recording that is made of clips, and where its words stand."""

from dataclasses import replace

import numpy as np
import pytest

from das_lib.bench.joined import Recording, above_clips, clip_errors, join, placement
from das_lib.bulk.hear import Heard
from das_lib.bulk.transcript import Segment, Transcript, Word
from das_lib.speech.audio import SAMPLE_RATE

TEXTS = ["Red blue.", "Green white black!"]


@pytest.fixture
def joined():
    clips = [np.full(SAMPLE_RATE, 0.5, np.float32), np.full(2 * SAMPLE_RATE, -0.5, np.float32)]
    recording = join(clips, TEXTS, minutes=0.15)
    return recording.audio, recording.spoken


def test_clips_follow_each_other_with_pauses_until_it_is_long_enough(joined):
    audio, spoken = joined
    assert [s.text for s in spoken] == [*TEXTS, *TEXTS]  # 1 + 0.3 + 2 + 1.5 + 1 + 3 + 2 + 0.3 s
    assert [s.start_s for s in spoken] == pytest.approx([0, 1.3, 4.8, 8.8])
    for s in spoken:
        start, end = (round(t * SAMPLE_RATE) for t in (s.start_s, s.end_s))
        np.testing.assert_array_equal(audio[start:end], s.audio)
        assert np.abs(audio[end : end + 1000]).max() < 0.02


def test_a_recording_begins_with_any_clip():
    clips = [np.full(SAMPLE_RATE, 0.5, np.float32), np.full(2 * SAMPLE_RATE, -0.5, np.float32)]
    recording = join(clips, TEXTS, minutes=0.1, first=1)
    assert [s.clip for s in recording.spoken] == [1, 0, 1]
    assert recording.text == f"{TEXTS[1]} {TEXTS[0]} {TEXTS[1]}"
    assert recording.audio[0] == -0.5


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("Red, blue. Green white black; red blue green white black.", [0, 0, 0, 0]),
        ("red blew green white black red blue green white", [1, 0, 0, 1]),
        ("red blue green white black so red blue green white black oh", [0, 0, 1, 1]),
        ("", [2, 3, 2, 3]),
    ],
)
def test_a_word_error_counts_for_the_clip_in_which_it_is(joined, text, errors):
    assert clip_errors(Recording(*joined), text) == errors


def test_the_rate_above_the_clips_has_an_interval(joined):
    recording = Recording(*joined)
    text = "red green white black red blue green white black"  # one error in ten words
    found = above_clips([recording, recording], [text, text], [1, 1, 0, 0, 1, 0, 0, 0])
    assert found["above_clips"] == pytest.approx(10 - 15)
    assert found["above_clips_low"] <= found["above_clips"] <= found["above_clips_high"]
    assert found["above_clips_low"] < found["above_clips_high"]
    refused = above_clips([recording], [text], [1, None, 0, 0])
    assert refused["above_clips"] == pytest.approx(0)
    assert above_clips([recording], [text], [0, 0, 0, 0]) == {}


def heard(*words):
    """A transcript of words with their beginnings, each 0.4 s long."""
    segment = Segment(
        start_s=0.0,
        end_s=10.0,
        text=" ".join(text for text, _ in words),
        avg_logprob=0.0,
        compression_ratio=1.0,
        words=tuple(
            Word(text=text, adapter="base", confidence=1.0, start_s=s, end_s=s and s + 0.4)
            for text, s in words
        ),
    )
    transcript = Transcript(id="x", language="en", duration_s=10, speech_s=9, segments=(segment,))
    return Heard(transcript=transcript)


def test_words_stand_in_their_clip_or_out_of_place_and_a_clip_without_any_is_lost(joined):
    _, spoken = joined
    said = [("red", 0.1), ("blue", 0.6), ("green", 1.4), ("white", 1.9), ("black", 2.5)]
    again = [(text, s + 4.8) for text, s in said[:2]]
    found = placement(spoken, heard(*said, *again))
    assert found == {"lost_clips": 1, "words_in_place": 1.0}
    late = [("red", 1.2), *said[1:]]  # half a second from the end of its clip at the most
    assert placement(spoken, heard(*late, *again))["words_in_place"] == pytest.approx(6 / 7)
    misheard = [("read", 0.1), ("blew", 0.6), *said[2:]]
    assert placement(spoken[:2], heard(*misheard)) == {"lost_clips": 0, "words_in_place": 1.0}
    elsewhere = [("read", 1.3), ("blew", 1.4), *said[2:]]
    assert placement(spoken[:2], heard(*elsewhere)) == {"lost_clips": 1, "words_in_place": 1.0}
    untimed = [(text, None) for text, _ in said]
    assert placement(spoken[:2], heard(*untimed)) == {"lost_clips": 0, "words_in_place": 0.0}
    assert placement([replace(s, text="nothing") for s in spoken], heard())["lost_clips"] == 4


def test_of_two_clips_that_say_the_same_a_word_is_of_the_one_in_which_it_stands(joined):
    _, spoken = joined
    twice = [spoken[0], replace(spoken[1], text="Red, blue"), replace(spoken[2], text="Black")]
    for shift in (0, 1.4):  # heard once, in the first or in the second
        once = heard(("red", 0.1 + shift), ("blue", 0.5 + shift), ("black", 4.9))
        assert placement(twice, once) == {"lost_clips": 1, "words_in_place": 1.0}
    other = [twice[0], replace(twice[1], text="Red, green"), twice[2]]
    assert placement(other, once)["words_in_place"] < 1
