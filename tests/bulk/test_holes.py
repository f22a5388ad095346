"""Where a transcript leaves speech out."""

from dataclasses import astuple

import pytest
from hole_answers import answer, paused, window

from das_lib.bulk.holes import Hole, find_holes


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
        ((0, 0.8), [Hole(0, 1, 0, 1.5, 0, 1.1)]),
        ((0, 0.6), []),  # no longer than the word takes
    ],
)
def test_a_word_over_a_pause_is_said_on_one_side_of_it_and_leaves_out_a_sentence_on_the_other(
    region, holes
):
    heard = answer(("Today", 0, 2.6), ("is", 2.6, 4), ("colder.", 4, 6))
    found = find_holes(paused(region, (2.2, 6), seconds=6), heard)
    assert [astuple(hole) for hole in found] == [pytest.approx(astuple(hole)) for hole in holes]
    # A word that takes as long as the sentence.
    long = answer(("Afterwards,", 0, 2.6), ("it", 2.6, 4), ("rained.", 4, 6))
    assert find_holes(paused(region, (2.2, 6), seconds=6), long) == []


def around(*words, regions=((0, 3), (5, 6.7), (8, 12))):
    """Holes as tuples, where these words are heard between others."""
    heard = answer(("Look", 0, 1), ("at", 1, 2), *words, ("do", 9, 10.5), ("it.", 10.5, 12))
    return [astuple(hole) for hole in find_holes(paused(*regions, seconds=12), heard)]


WHEN, PLEASE = ("when...", 2, 5.8), ("Please", 5.8, 9)


def test_speech_between_pauses_into_which_words_only_reach_is_a_hole():
    hole = pytest.approx((2, 4, 4, 7.35, 2, 1.65))
    assert around(WHEN, PLEASE) == [hole]
    # It lasts longer than it takes to say both, but for the dots.
    regions = ((0, 3), (5, 6.3), (8, 12))
    assert len(around(WHEN, PLEASE, regions=regions)) == 1
    assert around(WHEN, PLEASE, regions=((0, 3), (5, 6.1), (8, 12))) == []


def test_speech_with_a_word_of_its_own_is_no_hole():
    assert around(("when", 2, 5.5), ("you", 5.5, 6), ("ask", 6, 9)) == []
    # A word that reaches no further beside than speech is padded is said here.
    assert around(WHEN, PLEASE, regions=((0, 3), (5, 6.7), (8.9, 12))) == []
    assert around(WHEN, PLEASE, regions=((0, 2.1), (5, 6.7), (8, 12))) == []
    # Between the first two nobody pauses: they are one, and have "Look" and "at".
    words = ("when", 2, 3.8), ("ask", 3.8, 9)
    assert around(*words, regions=((0, 3), (3.2, 4.4), (8, 12))) == []
    assert len(around(*words, regions=((0, 2.8), (3.2, 4.4), (8, 12)))) == 1


def test_a_word_that_hardly_reaches_into_speech_is_not_in_it():
    assert around(("it", 2, 5.1), ("when", 5.1, 9)) == [pytest.approx((3, 4, 5.1, 7.35, 0, 1.65))]


def test_marks_of_the_same_speech_are_one_hole():
    # The first word takes too long for itself, and both reach into what is between the pauses.
    found = around(
        ("when", 2, 6.4), ("you", 6.4, 9), regions=((0, 3), (3.4, 5), (5.4, 7.8), (8, 12))
    )
    assert [hole[:2] for hole in found] == [(2, 4)]


def test_no_hole_at_an_edge_without_speech():
    heard = answer(("Hi", 3, 4), ("there.", 4, 5))
    assert find_holes(paused((3, 5)), heard) == []
    assert find_holes(paused((0, 1), (3, 5)), heard) == []
    assert find_holes(paused((0, 2), (3, 5)), heard) == [Hole(0, 0, 0, 3)]
    assert find_holes(paused((3, 5), (6, 8)), heard) == [Hole(2, 2, 5, 10)]
