"""On which side of a pause a word is said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.pauses import behind_pauses

SPEECH = [(0.0, 3.0), (5.0, 8.0)]


def words(*texts_and_starts, end=8.0):
    """Words of (text, start), each lasting until the next."""
    ends = [start for _, start in texts_and_starts[1:]] + [end]
    return [
        {"text": text, "start_s": start, "end_s": stop, "branch": 0}
        for (text, start), stop in zip(texts_and_starts, ends, strict=True)
    ]


def starts(placed):
    return [word["start_s"] for word in placed]


@pytest.mark.parametrize("begins", [1.2, 2.2, 2.5, 2.9, 3.5, 4.9])
def test_the_first_word_of_a_sentence_is_said_behind_the_pause_that_it_begins_before(begins):
    heard = words(("Yes", 0.2), ("indeed.", 0.6), ("Maybe", begins), ("tomorrow", 5.6))
    _, before, word, after = behind_pauses(heard, SPEECH)
    assert (before["end_s"], word["start_s"], word["end_s"]) == (begins, 5.0, 5.6)
    assert (after["start_s"], word["text"], word["branch"]) == (5.6, "Maybe", 0)


@pytest.mark.parametrize(
    ("text", "begins", "behind"),
    [
        ("and", 2.3, False),  # drawn out, for all one knows
        ("and", 2.5, True),
        ("Maybe.", 2.5, False),  # a mark: the last before the pause
        ("though,", 2.5, False),
        ("Maybe.", 2.9, True),  # where nobody speaks any more
    ],
)
def test_other_words_are_said_behind_it_if_they_begin_too_late_before_it(text, begins, behind):
    heard = words(("by", 0.2), ("far", 0.6), (text, begins), ("it", 5.6))
    assert starts(behind_pauses(heard, SPEECH))[2] == (5.0 if behind else begins)


def test_what_follows_such_a_word_is_said_behind_the_pause_too():
    heard = words(("Yes.", 0.2), ("I", 2.5), ("do", 2.8), ("not", 3.2), ("know", 6.0))
    assert starts(behind_pauses(heard, SPEECH)) == pytest.approx([0.2, 5, 5 + 1 / 6, 5.5, 6])
    heard = words(("Well.", 0.2), ("I", 2.3), ("see.", 2.6), ("Then", 5.2))
    assert behind_pauses(heard, SPEECH) == heard  # "see." is said before it, so "I" is


def test_a_sentence_that_goes_on_long_before_the_pause_stays_there():
    heard = words(("Yes.", 0.2), ("It", 0.5), ("rains", 0.8), ("hard", 5.3))
    assert behind_pauses(heard, SPEECH) == heard


def test_the_only_word_of_a_region_stays_unless_it_begins_where_nobody_speaks():
    speech = [(0.0, 3.0), (5.0, 5.5), (6.5, 8.0)]
    heard = words(("Yes.", 0.2), ("I", 2.9), ("think", 6.5))
    assert starts(behind_pauses(heard, speech)) == [0.2, 5.0, 6.5]
    heard = words(("Yes.", 0.2), ("I", 5.4), ("think", 7.0))
    assert starts(behind_pauses(heard, speech)) == [0.2, 6.5, 7.0]


def test_words_stay_where_the_vad_heard_nobody_if_they_are_many_or_none_reaches_what_it_heard():
    many = words(("Yes.", 0.2), ("I", 3.1), ("do", 3.5), ("not", 3.9), ("know", 4.3), ("it", 5.5))
    assert behind_pauses(many, SPEECH) == many
    last = words(("Yes.", 0.2), ("Why?", 3.1), end=4.0)
    assert behind_pauses(last, SPEECH) == last


def test_without_pauses_nothing_moves():
    heard = words(("Yes.", 0.2), ("Maybe", 2.9), ("not", 5.6))
    assert behind_pauses(heard, [(0.0, 8.0)]) == heard
    assert behind_pauses(heard, [(0.0, 3.0), (3.0, 8.0)]) == heard  # split, for it was long
    assert behind_pauses(heard, []) == heard
    assert behind_pauses([], SPEECH) == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 30), min_size=1, max_size=12),
    st.lists(st.floats(0, 30), max_size=10),
    st.lists(st.sampled_from(["a", "word", "end.", "so,"]), min_size=12, max_size=12),
)
def test_words_stay_in_order_and_none_begins_earlier_than_it_did(times, edges, texts):
    times, edges = sorted(times), sorted(edges)
    heard = words(*zip(texts, times, strict=False), end=30.0)
    placed = behind_pauses(heard, list(zip(edges[::2], edges[1::2], strict=False)))
    assert [word["text"] for word in placed] == [word["text"] for word in heard]
    assert starts(placed) == sorted(starts(placed))
    for before, after in zip(heard, placed, strict=True):
        assert before["start_s"] <= after["start_s"] <= after["end_s"] + 1e-9
        assert after["end_s"] <= 30.0 + 1e-9
