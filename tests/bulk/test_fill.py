"""What takes the place of words that stand for more than they say."""

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hole_answers import RATE, answer, paused, spoken, times, window
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.fill import fill
from das_lib.bulk.guards import GuardSettings
from das_lib.bulk.holes import SHORTEST_S, Hole, find_holes
from das_lib.bulk.written import BLANKLESS, cut

SKIPPED = "Because thou hast made the Lord thy refuge, the most High thy dwelling."
LOOP = "so it goes and " * 20


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
        part = heard_in.part(hole.start_s, hole.end_s)
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
