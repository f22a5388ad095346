from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.guards import GuardSettings
from das_lib.bulk.holes import SHORTEST_S, Hole, fill, find_holes
from das_lib.bulk.pack import Piece, Window
from das_lib.bulk.vad import Region
from das_lib.bulk.written import BLANKLESS, cut

RATE = 16_000
SKIPPED = "Because thou hast made the Lord thy refuge, the most High thy dwelling."
LOOP = "so it goes and " * 20


def window(*seconds):
    """A window of pieces that long, a minute apart in the recording."""
    pieces, at = [], 0
    for number, length in enumerate(seconds):
        start = (60 * number + 10) * RATE
        pieces.append(Piece(start, start + round(length * RATE), at))
        at += round(length * RATE)
    return Window(tuple(pieces), np.arange(at, dtype=np.float32))


def answer(*words, text=None, language="en", avg_logprob=-0.2, no_speech_prob=None):
    """An answer of (text, start, end), in seconds of the window."""
    return {
        "text": " ".join(word[0] for word in words) if text is None else text,
        "language": language,
        "avg_logprob": avg_logprob,
        "no_speech_prob": no_speech_prob,
        "temperature": 0.0,
        "words": [
            {"text": word, "branch": 0, "confidence": 0.9, "start_s": start, "end_s": end}
            for word, start, end in words
        ],
    }


def spoken(text, start=0.0, end=15.0, **options):
    """An answer of the text's words, one right after the other."""
    words = text.split()
    times = pairwise(np.linspace(start, end, len(words) + 1).tolist())
    return answer(*((word, *time) for word, time in zip(words, times, strict=True)), **options)


def times(answer):
    return [(word["text"], word["start_s"], word["end_s"]) for word in answer["words"]]


# What was heard of real speech: a sentence of 15 s between "YouTube." and "On" was skipped.

FIRST = answer(
    ("It's", 0, 1.6),
    ("on", 1.6, 3.2),
    ("YouTube.", 3.2, 4.1),
    ("On", 4.1, 15.6),
    ("April", 15.6, 21.3),
    ("30,", 21.3, 22.1),
    ("we", 22.1, 22.3),
)
HOLE = Hole(3, 5, 4.1, 21.3)


def test_words_that_take_seconds_mark_a_hole():
    assert find_holes(window(23), FIRST) == [HOLE]


@pytest.mark.parametrize(
    ("found", "filled"),
    [
        (f"{SKIPPED} On April", f"{SKIPPED} On April"),
        (f"{SKIPPED} on APRIL,", f"{SKIPPED} on APRIL,"),
        (SKIPPED, f"{SKIPPED} On April"),
        (f"{SKIPPED} On", f"{SKIPPED} On April"),
        # Heard otherwise, but heard.
        (f"{SKIPPED} And April", f"{SKIPPED} And April"),
        # Its audio may have been cut at the end.
        (f"{SKIPPED} -", f"{SKIPPED} - On April"),
    ],
)
def test_stretched_words_that_were_not_heard_again_stay_behind_what_was(found, filled):
    both = fill(FIRST, [HOLE], [spoken(found)])
    assert both["text"] == f"It's on YouTube. {filled} 30, we"
    assert [word["text"] for word in both["words"]] == both["text"].split()
    assert times(both)[:3] == times(FIRST)[:3]
    assert times(both)[-2:] == times(FIRST)[-2:]


@pytest.mark.parametrize(
    ("found", "filled"),
    [
        (f"see. {SKIPPED}", f"see. {SKIPPED}"),
        (f"See, {SKIPPED}", f"See, {SKIPPED}"),
        (SKIPPED, f"see. {SKIPPED}"),
    ],
)
def test_a_stretched_end_of_a_sentence_was_said_before_the_hole(found, filled):
    heard = answer(("we", 0.2, 0.5), ("see.", 0.5, 14), ("On", 14, 14.3))
    holes = find_holes(window(15), heard)
    assert holes == [Hole(1, 2, 0.5, 14)]
    assert fill(heard, holes, [spoken(found, end=13)])["text"] == f"we {filled} On"


@pytest.mark.parametrize(
    ("found", "filled"),
    [
        (SKIPPED, f"I see. {SKIPPED} On April"),
        (f"see. {SKIPPED}", f"I see. {SKIPPED} On April"),
        (f"I sea. {SKIPPED}", f"I sea. {SKIPPED} On April"),
        (f"{SKIPPED} And April", f"I see. {SKIPPED} And April"),
        (f"I see. {SKIPPED} On April", f"I see. {SKIPPED} On April"),
        # The wrong way round: rather twice than lost.
        (f"April. {SKIPPED} I", f"I see. On April. {SKIPPED} I April"),
    ],
)
def test_stretched_words_of_two_sentences_stay_on_both_sides(found, filled):
    heard = answer(
        ("Oh.", 0, 1),
        ("I", 1, 5),
        ("see.", 5, 9),
        ("On", 9, 13),
        ("April", 13, 17),
        ("30.", 17, 18),
    )
    holes = find_holes(window(18), heard)
    assert holes == [Hole(1, 5, 1, 17)]
    assert fill(heard, holes, [spoken(found)])["text"] == f"Oh. {filled} 30."


def test_kept_words_share_the_time_of_the_found_word_beside_them():
    heard = answer(("Oh.", 0, 1), ("see.", 1, 3), ("On", 3, 5), ("30.", 5, 6))
    found = answer(("Because-thou", 0, 1), ("of", 1, 2), ("everything", 2, 3.5))
    middle = pytest.approx(3 + 2 * 10 / 12)
    assert times(fill(heard, [Hole(1, 3, 1, 5)], [found])) == [
        ("Oh.", 0, 1),
        ("see.", 1, 1.25),
        ("Because-thou", 1.25, 2),
        ("of", 2, 3),
        ("everything", 3, middle),
        ("On", middle, 5),
        ("30.", 5, 6),
    ]


# When what was heard there is not believed.


@pytest.mark.parametrize(
    "found",
    [
        spoken("On April"),
        spoken("Um, April"),  # as long
        spoken("Thank you for watching!"),  # in 17 s
        spoken(LOOP),
        spoken(SKIPPED, avg_logprob=-1.5, no_speech_prob=0.9),
        answer(),
        answer(("...", 0, 1)),
        answer(*((word, None, None) for word in SKIPPED.split())),
    ],
)
def test_what_says_no_more_or_was_made_up_changes_nothing(found):
    assert fill(FIRST, [HOLE], [found]) == FIRST


def test_the_guards_bounds_are_the_callers():
    loose = GuardSettings(max_compression_ratio=99)
    assert "so it goes" in fill(FIRST, [HOLE], [spoken(LOOP)], loose)["text"]
    strict = GuardSettings(min_avg_logprob=-0.1, no_speech_threshold=0.1)
    found = spoken(SKIPPED, no_speech_prob=0.2)
    assert fill(FIRST, [HOLE], [found], strict) == FIRST
    assert SKIPPED in fill(FIRST, [HOLE], [found])["text"]


def test_each_hole_is_filled_by_its_own_answer():
    heard = answer(
        ("a", 0, 8), ("b", 8, 9), ("c", 9, 10), ("d", 10, 18), ("e", 18, 19), ("f", 19, 20)
    )
    holes = find_holes(window(28), heard)
    assert [(hole.first, hole.last) for hole in holes] == [(0, 1), (3, 4), (6, 6)]
    found = [spoken(f"{SKIPPED} {end}", end=8) for end in ("a", "d", "g")]
    assert fill(heard, holes, found)["text"] == f"{SKIPPED} a b c {SKIPPED} d e f {SKIPPED} g"
    found[1] = spoken("d")
    assert fill(heard, holes, found)["text"] == f"{SKIPPED} a b c d e f {SKIPPED} g"


def test_the_rest_of_the_answer_stays():
    both = fill(FIRST, [HOLE], [spoken(SKIPPED, avg_logprob=-0.9)])
    assert {**both, "text": "", "words": []} == {**FIRST, "text": "", "words": []}
    assert both["words"][3]["confidence"] == 0.9


# Languages without blanks, where a "word" is all between two blanks.

CHINESE = "我们明天一起去公园看看花吧大家都说很漂亮。"


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize(
    ("found", "filled"),
    [
        (f"今天好。{CHINESE}", f"你好。今天好。{CHINESE}{{}}再见。"),
        # Heard otherwise in its last character.
        (f"今天号。{CHINESE}", f"你好。今天号。{CHINESE}{{}}再见。"),
        (f"{CHINESE}今天好。", f"你好。{CHINESE}今天好。{{}}再见。"),
        (CHINESE, f"你好。{{}}今天好。{CHINESE}{{}}再见。"),
        (f"OK{CHINESE}OK", f"你好。{{}}今天好。 OK{CHINESE}OK 再见。"),
    ],
)
def test_without_blanks_none_are_put_in(found, filled, blank):
    text = blank.join(("你好。", "今天好。", "再见。"))
    words = ("你好。", 0, 1), ("今天好。", 1, 9), ("再见。", 9, 10)
    both = fill(
        answer(*words, text=text, language="zh"), [Hole(1, 2, 1, 9)], [spoken(found, language="zh")]
    )
    assert both["text"] == filled.format(blank, blank)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_edge_of_the_window_is_filled_with_blanks_as_the_language_has_them(language):
    blank = "" if language in BLANKLESS else " "
    heard = answer(("你好", 8, 9), ("再见", 9, 10), text="你好 再见", language=language)
    found = [spoken(CHINESE, end=8, language=language)] * 2
    both = fill(heard, [Hole(0, 0, 0, 8), Hole(2, 2, 10, 18)], found)
    assert both["text"] == f"{CHINESE}{blank}你好 再见{blank}{CHINESE}"


# Where holes are.


@pytest.mark.parametrize(
    ("words", "holes"),
    [
        ([("Hello", 0, 2), ("there.", 2, 8.6)], [Hole(1, 2, 2, 8.6)]),
        # Before the first word and behind the last.
        ([("Hello", 1.6, 3), ("there.", 3, 5), ("again.", 5, 7), ("Bye.", 7, 8.6)], [(0, 0, 1.6)]),
        ([("Hello", 1.4, 3), ("there.", 3, 5)], [Hole(2, 2, 5, 10)]),
        # The word between two stretched ones is misplaced, two are a phrase.
        ([("a", 0, 1), ("b", 1, 3), ("c", 3, 4), ("d", 4, 8), ("e", 8, 9)], [Hole(1, 4, 1, 8)]),
        (
            [("a", 0, 3), ("b", 3, 4), ("c", 4, 5), ("d", 5, 8), ("e", 8, 9)],
            [Hole(0, 1, 0, 3), Hole(3, 4, 5, 8)],
        ),
        ([("Hello", 4, 5), ("there.", 5, 8), ("you.", 8, 8.6)], [Hole(0, 2, 0, 8)]),
        ([("You.", 0, 1), ("Hello", 1, 2), ("there.", 2, 6)], [Hole(2, 3, 2, 10)]),
        # Long words, numbers and characters that are syllables take their time.
        ([("Unquestionably", 0, 3.1), ("2026,", 3.1, 7), ("so.", 7, 8.6)], []),
        ([("Unquestionably", 0, 3.3), ("2026,", 3.3, 7), ("so.", 7, 8.6)], [Hole(0, 1, 0, 3.3)]),
        ([("今天天气很好。", 0, 3.5), ("2026,", 3.5, 7), ("so.", 7, 8.6)], []),
        ([("今天天气很好。", 0, 3.7), ("2026,", 3.7, 7), ("so.", 7, 8.6)], [Hole(0, 1, 0, 3.7)]),
        # All of the window, or all but a second, was heard already.
        ([("Hello", 0, 10)], []),
        ([("Hello", 0, 9.1), ("you", 9.1, 10)], []),
        ([("Hello", 0, 9), ("you", 9, 10)], [Hole(0, 1, 0, 9)]),
        ([("Hello", -1, 12)], []),
        # Outside of the window there is nothing to hear.
        ([("a", 0, 1), ("b", 7.5, 8.9), ("c", 9.1, 13)], []),
        (
            [("Hello", -3, 2.5), ("and", 6, 7), ("there", 7, 8), ("you", 8, 14)],
            [Hole(0, 1, 0, 2.5), Hole(3, 4, 8, 10)],
        ),
        # Nobody knows where.
        ([("Hello", None, None), ("you", 2, 8)], []),
        ([], []),
    ],
)
def test_holes_are_where_few_letters_take_long(words, holes):
    assert find_holes(window(4, 6), answer(*words)) == [
        hole if isinstance(hole, Hole) else Hole(hole[0], hole[1], 0, hole[2]) for hole in holes
    ]


def paused(*regions, seconds=10):
    """A window of that length with speech in it, by begin and end."""
    whole = window(seconds)
    start = whole.pieces[0].start
    speech = tuple(Region(start + round(a * RATE), start + round(b * RATE)) for a, b in regions)
    return replace(whole, speech=speech)


@pytest.mark.parametrize(
    ("regions", "holes"),
    [
        # A pause on both sides: the hole is what lies between them.
        ([(0, 2.8), (3.2, 6), (6.4, 10)], [Hole(1, 2, 3, 6.2, 1, 0.8)]),
        ([(-4, -1), (0, 2.8), (3.2, 4), (4.5, 6), (6.4, 10)], [Hole(1, 2, 3, 6.2, 1, 0.8)]),
        # Nothing of what was said before it or after it.
        ([(0, 1.9), (2.2, 6.8), (7.2, 10)], [Hole(1, 2, 2, 7)]),
        # More than a word was said before the pause, or after it.
        ([(0, 3.2), (3.6, 6), (6.4, 10)], [Hole(1, 2, 2, 6.2, 0, 0.8)]),
        ([(0, 2.8), (3.2, 5.5), (5.9, 10)], [Hole(1, 2, 3, 7, 1, 0)]),
        # No pause, or nothing but pauses.
        ([(0, 10)], [Hole(1, 2, 2, 7)]),
        ([(0, 2.8), (3.5, 4.1), (6.8, 10)], []),
        ([(0, 2), (7, 10)], []),
        # Beside a word there is a sentence, or another word.
        ([(0, 2.9), (3.1, 10)], [Hole(1, 2, 3, 7, 1, 0)]),
        ([(0, 2.9), (6.2, 10)], []),
    ],
)
def test_a_hole_begins_and_ends_in_pauses_and_there_is_none_without_speech(regions, holes):
    heard = answer(("Hello", 0, 2), ("there.", 2, 7), ("How", 7, 8), ("are", 8, 9), ("you?", 9, 10))
    found = find_holes(paused(*regions), heard)
    assert [astuple(hole) for hole in found] == [pytest.approx(astuple(hole)) for hole in holes]


@pytest.mark.parametrize(
    ("region", "holes"),
    [
        ((0, 1.2), [Hole(0, 1, 0, 1.7, 0, 0.9)]),
        ((0, 0.9), []),  # less than a second
    ],
)
def test_a_word_over_a_pause_is_said_on_one_side_of_it_and_leaves_out_a_sentence_on_the_other(
    region, holes
):
    heard = answer(("Today", 0, 2.6), ("is", 2.6, 4), ("colder.", 4, 6))
    found = find_holes(paused(region, (2.2, 6), seconds=6), heard)
    assert [astuple(hole) for hole in found] == [pytest.approx(astuple(hole)) for hole in holes]
    # A word that takes as long as the sentence.
    long = answer(("Yesterday,", 0, 2.6), ("it", 2.6, 4), ("rained.", 4, 6))
    assert find_holes(paused(region, (2.2, 6), seconds=6), long) == []


def test_no_hole_at_an_edge_without_speech():
    heard = answer(("Hi", 3, 4), ("there.", 4, 5))
    assert find_holes(paused((3, 5)), heard) == []
    assert find_holes(paused((0, 1), (3, 5)), heard) == []
    assert find_holes(paused((0, 2), (3, 5)), heard) == [Hole(0, 0, 0, 3)]
    assert find_holes(paused((3, 5), (6, 8)), heard) == [Hole(2, 2, 5, 10)]


def test_words_said_before_and_behind_the_hole_stay_there():
    heard = answer(("Hello", 0, 2), ("there.", 2, 5), ("How", 5, 7.3), ("are", 7.3, 8))
    [hole] = find_holes(paused((0, 2.8), (3.2, 6), (6.4, 8), seconds=8), heard)
    assert astuple(hole) == pytest.approx((1, 3, 3, 6.2, 1, 1.1))
    both = fill(heard, [hole], [answer(("It's", 0.5, 1), ("cold.", 1, 2.5))])
    assert both["text"] == "Hello there. It's cold. How are"
    assert [
        (text, pytest.approx(start), pytest.approx(end)) for text, start, end in times(both)
    ] == [
        ("Hello", 0, 2),
        ("there.", 2, 3),
        ("It's", 3.5, 4),
        ("cold.", 4, 5.5),
        ("How", 6.2, 7.3),
        ("are", 7.3, 8),
    ]


def test_a_holes_window_holds_its_part_of_the_pieces():
    whole = window(2, 3, 4)
    hole = Hole(0, 1, 1.5, 5.5).window(whole)
    starts = [piece.start for piece in whole.pieces]
    assert hole.pieces == (
        Piece(starts[0] + 24_000, starts[0] + 32_000, 0),
        Piece(starts[1], starts[1] + 48_000, 8_000),
        Piece(starts[2], starts[2] + 8_000, 56_000),
    )
    assert np.array_equal(hole.audio, whole.audio[24_000:88_000])


# Any answers.

WORD = st.one_of(
    st.sampled_from(["see.", "On", "April", "on", "30,", "-", "今天", "天。", "b"]),
    st.text("abcdeé字。.?!,-", min_size=1, max_size=12),
)


@st.composite
def answers(draw, end_s, language, durations):
    """Words in order of time, with blanks or, where the language has none, perhaps without."""
    words = draw(st.lists(WORD, max_size=25))
    steps = draw(st.lists(durations, min_size=len(words) + 1, max_size=len(words) + 1))
    scale = end_s / sum(steps)
    bounds = [scale * at for at in np.cumsum(steps).tolist()]
    blank = draw(st.sampled_from(["", " "] if language in BLANKLESS else [" ", "  "]))
    timed = [(word, *time) for word, time in zip(words, pairwise(bounds), strict=True)]
    return answer(*timed, text=blank.join(words), language=language)


@st.composite
def listened(draw):
    """A window, what was heard in it, and what was heard in its holes."""
    language = draw(st.sampled_from(["en", "zh"]))
    heard_in = window(*draw(st.lists(st.floats(0.2, 12), min_size=1, max_size=4)))
    durations = st.sampled_from([0.05, 0.1, 1.0, 4.0])
    heard = draw(answers(heard_in.duration_s, language, durations))
    holes = find_holes(heard_in, heard)
    found = [draw(answers(hole.duration_s, language, durations)) for hole in holes]
    return heard_in, heard, holes, found


@settings(deadline=None, max_examples=300)
@given(listened())
def test_holes_are_apart_and_have_something_to_hear(listened):
    heard_in, heard, holes, _ = listened
    for hole in holes:
        part = hole.window(heard_in)
        assert 0 <= hole.first <= hole.last <= len(heard["words"])
        assert SHORTEST_S <= hole.duration_s <= heard_in.duration_s - SHORTEST_S
        assert sum(piece.end - piece.start for piece in part.pieces) == len(part.audio)
        assert len(part.audio) >= SHORTEST_S * RATE - 1
        for second in np.linspace(0, hole.duration_s, 7)[1:-1]:
            place = heard_in.place(hole.start_s + second)
            assert part.place(second) == pytest.approx(place, abs=2 / RATE) or (
                part.piece_of(second + 2 / RATE) != part.piece_of(second - 2 / RATE)
            )
    for before, after in pairwise(holes):
        assert before.last < after.first
        assert before.end_s <= after.start_s


@settings(deadline=None, max_examples=300)
@given(listened())
def test_filled_answers_are_whole(listened):
    _, heard, holes, found = listened
    both = fill(heard, holes, found)
    words = [word["text"] for word in both["words"]]
    assert "".join(both["text"].split()) == "".join(words)
    assert not words or "".join(cut(both["text"], words, both["language"])) == both["text"]
    if heard["language"] not in BLANKLESS:
        assert both["text"].split() == words
    bounds = [word[key] for word in both["words"] for key in ("start_s", "end_s")]
    assert bounds == sorted(bounds)


@settings(deadline=None, max_examples=300)
@given(listened())
def test_only_the_hole_changes_and_only_for_all_that_was_heard_there(listened):
    _, heard, holes, found = listened
    for hole, again in zip(holes, found, strict=True):
        both = fill(heard, [hole], [again])["words"]
        end = len(both) - (len(heard["words"]) - hole.last)
        assert both[: hole.first] == heard["words"][: hole.first]
        assert both[end:] == heard["words"][hole.last :]
        inside = [word["text"] for word in both[hole.first : end]]
        before = [word["text"] for word in heard["words"][hole.first : hole.last]]
        now = [word["text"] for word in again["words"]]
        assert inside == before or any(
            inside == before[:first] + now + before[last:]
            for first in range(len(before) + 1)
            for last in range(first, len(before) + 1)
        )
