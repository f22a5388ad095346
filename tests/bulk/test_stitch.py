from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.stitch import MAX_SEGMENT_CHARACTERS, MAX_SEGMENT_S, stitch
from das_lib.bulk.vad import Region
from das_lib.bulk.windows import Piece, Window
from das_lib.bulk.written import BLANKLESS, cut

RATE = 16_000
BRANCHES = ("base", "food")


def window(*regions):
    """A window of the regions, in seconds of the recording."""
    pieces, at = [], 0
    for start_s, end_s in regions:
        pieces.append(Piece(round(start_s * RATE), round(end_s * RATE), at))
        at += pieces[-1].end - pieces[-1].start
    return Window(tuple(pieces), np.zeros(at, np.float32))


def answer(*words, text=None, language="en"):
    """An answer of (text, start, end), in seconds of the window."""
    return {
        "text": " ".join(word[0] for word in words) if text is None else text,
        "language": language,
        "avg_logprob": -0.25,
        "temperature": 0.2,
        "no_speech_prob": 0.1,
        "words": [
            {
                "text": text,
                "branch": number % 2,
                "confidence": 0.9,
                "start_s": times[0] if times else None,
                "end_s": times[1] if times else None,
            }
            for number, (text, *times) in enumerate(words)
        ],
    }


def spaced(text, seconds):
    """The words of a text, one after the other."""
    words = text.split()
    step = seconds / len(words)
    return [(word, number * step, (number + 1) * step) for number, word in enumerate(words)]


def texts(segments):
    return [segment.text for segment in segments]


def test_words_go_to_the_region_they_are_said_in_and_get_its_times():
    heard = answer(("One", 0.2, 0.8), ("two.", 0.8, 1.9), ("Three.", 2.1, 2.9))
    first, second = stitch([(window((10, 12), (20, 21)), heard)], BRANCHES, word_times=True)
    assert (first.text, first.start_s, first.end_s) == ("One two.", 10.2, 11.9)
    assert (second.text, second.start_s, second.end_s) == ("Three.", 20.1, 20.9)
    assert [(w.text, w.adapter, w.start_s) for w in first.words] == [
        ("One", "base", 10.2),
        ("two.", "food", 10.8),
    ]
    assert (first.avg_logprob, first.temperature, first.no_speech_prob) == (-0.25, 0.2, 0.1)


def test_a_word_that_begins_before_a_pause_and_is_said_behind_it_goes_to_that_region():
    heard = answer(("One", 0.2, 0.8), ("two.", 0.8, 1.6), ("Three", 1.6, 2.4), ("four.", 2.4, 2.9))
    speech = (Region(10 * RATE, 12 * RATE), Region(20 * RATE, 21 * RATE))
    spoken = replace(window((10, 12), (20, 21)), speech=speech)
    first, second = stitch([(spoken, heard)], BRANCHES, word_times=True)
    assert (first.text, first.end_s) == ("One two.", 11.6)
    assert (second.text, second.start_s) == ("Three four.", 20.0)


@pytest.mark.parametrize(
    ("middle_is_in", "times", "placed"),
    [(0, (1.0, 2.9), (11.0, 12.0)), (1, (1.2, 3.0), (20.0, 21.0))],
)
def test_a_word_across_two_regions_is_clamped_to_the_one_with_its_middle(
    middle_is_in, times, placed
):
    (segment,) = stitch(
        [(window((10, 12), (20, 22)), answer(("so", *times)))], BRANCHES, word_times=True
    )
    assert (segment.start_s, segment.end_s) == placed
    assert (segment.words[0].start_s, segment.words[0].end_s) == placed
    assert middle_is_in == (segment.start_s >= 20)


def test_a_word_whose_time_goes_back_stays_with_the_word_before():
    heard = answer(("one", 2.2, 2.8), ("two", 0.5, 0.6), ("three", 2.8, 3.0))
    (segment,) = stitch([(window((10, 12), (20, 22)), heard)], BRANCHES, word_times=True)
    assert (segment.text, segment.start_s, segment.end_s) == ("one two three", 20.2, 21)


def test_without_word_times_segments_keep_theirs():
    heard = answer(("One.", 0.2, 0.8), ("Two.", 2.1, 2.9))
    with_times, without = (
        stitch([(window((0, 2), (5, 6)), heard)], BRANCHES, word_times=times)
        for times in (True, False)
    )
    assert [(s.start_s, s.end_s, s.text) for s in without] == [
        (s.start_s, s.end_s, s.text) for s in with_times
    ]
    assert [w.start_s for s in without for w in s.words] == [None, None]
    assert [w.end_s for s in without for w in s.words] == [None, None]
    assert [w.text for s in without for w in s.words] == ["One.", "Two."]


def test_a_window_without_times_is_one_segment_with_the_bounds_of_its_speech():
    heard = answer(("Hello",), ("there.",))
    (segment,) = stitch([(window((3, 7.5)), heard)], BRANCHES, word_times=True)
    assert (segment.start_s, segment.end_s, segment.text) == (3, 7.5, "Hello there.")
    assert [w.start_s for w in segment.words] == [None, None]


@pytest.mark.parametrize("text", ["", "  "])
def test_a_window_where_nothing_was_heard_gives_no_segment(text):
    windows = [(window((0, 1)), answer(text=text)), (window((2, 3)), answer(("Yes.", 0, 1)))]
    assert texts(stitch(windows, BRANCHES, word_times=True)) == ["Yes."]


def test_what_fits_a_subtitle_is_not_split():
    words = spaced("One sentence is here. Another one follows it.", 9.5)
    assert len(stitch([(window((0, 30)), answer(*words))], BRANCHES, word_times=True)) == 1


@pytest.mark.parametrize(
    ("text", "seconds", "expected"),
    [
        (
            "The first sentence is here. And the second one follows it now.",
            14,
            ["The first sentence is here.", "And the second one follows it now."],
        ),
        (
            'He asked "who are you?" Then nobody in the whole room would say a single word to him.',
            9,
            [
                'He asked "who are you?"',
                "Then nobody in the whole room would say a single word to him.",
            ],
        ),
        (
            "when all of the others were gone, we went back to the house and looked at it again",
            12,
            [
                "when all of the others were gone,",
                "we went back to the house and looked at it again",
            ],
        ),
        ("one two three four five six", 12, ["one two three", "four five six"]),
    ],
    ids=["sentences", "closing quote", "clauses", "words"],
)
def test_long_speech_is_split(text, seconds, expected):
    words = spaced(text, seconds)
    segments = stitch([(window((0, 30)), answer(*words))], BRANCHES, word_times=True)
    assert texts(segments) == expected


def test_without_sentences_a_pause_splits_long_speech():
    words = [("a", 0, 1), ("b", 1, 2), ("c", 2.6, 4), ("d", 4, 6), ("e", 6, 8), ("f", 8, 12)]
    segments = stitch([(window((0, 30)), answer(*words))], BRANCHES, word_times=True)
    assert texts(segments) == ["a b", "c d e f"]


def test_sentences_of_a_language_without_blanks_are_split_and_not_joined_by_blanks():
    text = "今天天气很好。我们去公园吧！你说呢?"
    heard = answer((text, 0.0, 16.0), text=text, language="zh")
    segments = stitch([(window((0, 7), (10, 19)), heard)], BRANCHES, word_times=True)
    assert texts(segments) == ["今天天气很好。", "我们去公园吧！你说呢?"]
    assert [w.text for s in segments for w in s.words] == [
        "今天天气很好。",
        "我们去公园吧！",
        "你说呢?",
    ]
    assert segments[0].start_s == 0
    assert segments[0].end_s == pytest.approx(16 * 7 / 18, abs=1 / RATE)
    assert (segments[1].start_s, segments[1].end_s) == (10, 19)


def test_english_words_are_never_split():
    heard = answer(("Yahoo!Japan", 0, 1), ("3.5", 1, 2))
    (segment,) = stitch([(window((0, 2)), heard)], BRANCHES, word_times=True)
    assert [w.text for w in segment.words] == ["Yahoo!Japan", "3.5"]


@pytest.mark.parametrize(
    ("text", "words", "language", "expected"),
    [
        ("我用 Python 写", ["我用", "Python", "写"], "zh", ["我用", " Python", " 写"]),
        ("a  b c", ["a", "b", "c"], "en", ["a", "  b", " c"]),
        ("あの。はい", ["あの。", "はい"], "ja", ["あの。", "はい"]),
        ("other", ["a", "b"], "en", ["a", " b"]),
        ("a b and more", ["a", "b"], "en", ["a", " b"]),
        ("他", ["我用", "Python", "写", "字"], "zh", ["我用", " Python", " 写", "字"]),
    ],
)
def test_blanks_stand_where_the_text_has_them_or_else_where_the_language_does(
    text, words, language, expected
):
    assert cut(text, words, language) == expected


WORD = st.text("abcあ字。.?!,", min_size=1, max_size=12)


@st.composite
def recordings(draw):
    """Windows in order; the times of their words need not be, nor stay in the window."""
    language = draw(st.sampled_from(["en", "zh"]))
    windows, at = [], 0.0
    for _ in range(draw(st.integers(0, 4))):
        regions = []
        for _ in range(draw(st.integers(1, 3))):
            start = at + draw(st.floats(0, 3))
            at = start + draw(st.floats(0.1, 8))
            regions.append((start, at))
        heard = window(*regions)
        words = draw(st.lists(WORD, max_size=60))
        timed = len(regions) > 1 or draw(st.booleans())
        count, times = len(words) + 1, st.floats(-0.5, heard.duration_s + 0.5)
        bounds = draw(st.lists(times, min_size=count, max_size=count))
        if draw(st.booleans()):
            bounds.sort()
        blank = draw(st.sampled_from([" ", "  "] if language == "en" else ["", " "]))
        timed_words = [
            (word, bounds[place], bounds[place + 1]) if timed else (word,)
            for place, word in enumerate(words)
        ]
        windows.append((heard, answer(*timed_words, text=blank.join(words), language=language)))
    return windows


@settings(deadline=None)
@given(recordings())
def test_nothing_is_lost_and_nothing_comes_twice(windows):
    segments = stitch(windows, BRANCHES, word_times=True)
    heard = " ".join(answer["text"] for _, answer in windows).split()
    if windows and windows[0][1]["language"] in BLANKLESS:
        assert "".join("".join(texts(segments)).split()) == "".join(heard)
        assert "".join(w.text for s in segments for w in s.words) == "".join(heard)
    else:
        assert " ".join(texts(segments)).split() == heard
        assert [w.text for s in segments for w in s.words] == heard
    for segment in segments:
        assert segment.text == segment.text.strip() != ""


@settings(deadline=None)
@given(recordings())
def test_times_go_forward_and_stay_in_the_speech(windows):
    segments = stitch(windows, BRANCHES, word_times=True)
    pieces = [piece for heard, _ in windows for piece in heard.pieces]
    for segment in segments:
        assert any(
            piece.start / RATE <= segment.start_s <= segment.end_s <= piece.end / RATE
            for piece in pieces
        )
        times = [t for w in segment.words for t in (w.start_s, w.end_s) if t is not None]
        times = [segment.start_s, *times, segment.end_s]
        assert times == sorted(times)
    bounds = [t for s in segments for t in (s.start_s, s.end_s)]
    assert bounds == sorted(bounds)


@settings(deadline=None)
@given(recordings())
def test_segments_are_of_subtitle_size_unless_one_word_is_not(windows):
    for segment in stitch(windows, BRANCHES, word_times=True):
        if len(segment.words) > 1 and segment.words[0].start_s is not None:
            assert segment.end_s - segment.start_s <= MAX_SEGMENT_S
            assert len(segment.text) <= MAX_SEGMENT_CHARACTERS


def test_windows_that_overlap_do_not_make_times_go_back():
    windows = [
        (window((0, 5)), answer(("one", 3, 5))),
        (window((4, 9)), answer(("two", 0, 2))),
        (window((5, 9)), answer(("three",))),
    ]
    segments = stitch(windows, BRANCHES, word_times=True)
    assert [(s.start_s, s.end_s) for s in segments] == [(3, 5), (5, 6), (6, 9)]


# One piece with a pause in it: somebody speaks from 10 to 12 s and from 13.5 to 15 s.
PAUSED = Window(
    (Piece(9 * RATE, 16 * RATE, 0),),
    np.zeros(7 * RATE, np.float32),
    (Region(10 * RATE, 12 * RATE), Region(round(13.5 * RATE), 15 * RATE)),
)


@pytest.mark.parametrize(
    ("word", "times"),
    [
        ((2.0, 2.5), (11, 11.5)),  # in speech
        ((2.5, 4.4), (11.5, 12)),  # the pause is not the word's
        ((3.5, 5.0), (13.5, 14)),  # nor where it is before it
        ((5.5, 7.0), (14.5, 15)),
        ((0.5, 2.0), (10, 11)),
        ((3.2, 4.2), (12.2, 13.2)),  # where nobody is said to speak, the word counts
    ],
)
def test_a_word_begins_and_ends_where_speech_does(word, times):
    [segment] = stitch([(PAUSED, answer(("word", *word)))], BRANCHES, word_times=True)
    [placed] = segment.words
    assert (placed.start_s, placed.end_s) == pytest.approx(times)
    assert (segment.start_s, segment.end_s) == pytest.approx(times)


def test_words_cut_to_speech_stay_in_order():
    words = [("one", 2.8, 3.6), ("two", 3.6, 4.0), ("three", 4.0, 5.0)]
    segments = stitch([(PAUSED, answer(*words))], BRANCHES, word_times=True)
    placed = [(word.start_s, word.end_s) for segment in segments for word in segment.words]
    # The second, which stands in the pause, is said with the third: it shares the time of that.
    said = [11.8, 12, 13.5, 13.6875, 13.6875, 14]
    assert [x for times in placed for x in times] == pytest.approx(said)
