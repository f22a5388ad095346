"""What repeats itself, and what is made of it when it is heard again as two."""

import pytest
from hole_answers import paused, spoken, times
from listening import Replica, answer, counted, heard, numbers, said
from told import ToldVad, frames

from das_lib.bulk.guards import GuardSettings
from das_lib.bulk.loops import halves, unloop
from das_lib.speech.audio import SAMPLE_RATE

LOOP = "You are poor. " * 40
GUARDS = GuardSettings()


@pytest.mark.parametrize(
    ("regions", "starts"),
    [
        # The longest pause that leaves each part a quarter of the window.
        ([(0, 4), (4.4, 6), (7, 10)], [0, 6.5]),
        ([(0, 1), (4, 4.6), (5, 10)], [0, 2.5]),
        ([(0, 0.5), (4, 4.6), (5, 10)], [0, 4.8]),
        # Of equal ones, and where there is none such, the one nearest to the middle.
        ([(0, 3), (4, 6), (7, 10)], [0, 3.5]),
        ([(0, 1), (1.4, 9), (9.5, 10)], [0, 1.2]),
        # Nobody pauses.
        ([(0, 10)], []),
    ],
)
def test_a_window_is_cut_in_a_long_pause_near_its_middle(regions, starts):
    assert halves(paused(*regions)) == pytest.approx(starts)


def test_the_parts_answers_are_one_with_times_of_the_window():
    parts = [
        spoken("The community in Europe", 0, 4, avg_logprob=-0.2, no_speech_prob=0.7),
        spoken("follows the game.", 1, 4, avg_logprob=-0.9, no_speech_prob=0.1),
    ]
    one = unloop(spoken(LOOP), [0, 6], parts, GUARDS)
    assert one["text"] == "The community in Europe follows the game."
    assert times(one) == [
        ("The", 0, 1),
        ("community", 1, 2),
        ("in", 2, 3),
        ("Europe", 3, 4),
        ("follows", 7, 8),
        ("the", 8, 9),
        ("game.", 9, 10),
    ]
    assert one["avg_logprob"] == pytest.approx((4 * -0.2 + 3 * -0.9) / 7)
    assert (one["no_speech_prob"], one["temperature"]) == (0.1, 0)


def test_a_part_that_the_guards_drop_says_nothing():
    made_up = spoken("Thanks for watching.", avg_logprob=-1.5, no_speech_prob=0.9)
    said = spoken("It is over.", 0, 3)
    assert unloop(spoken(LOOP), [0, 6], [made_up, said], GUARDS)["text"] == "It is over."
    nothing = unloop(spoken(LOOP), [0, 6], [made_up, spoken("")], GUARDS)
    assert (nothing["text"], nothing["words"]) == ("", [])


def test_what_repeats_itself_more_or_has_no_times_changes_nothing():
    poem = spoken("Is it Monday today? Is it Monday today? " * 2)
    assert unloop(poem, [0, 6], [spoken("Is it"), spoken(LOOP)], GUARDS) is poem
    untimed = answer([("over.", None, None)])
    assert unloop(poem, [0, 6], [spoken("It is"), untimed], GUARDS) is poem


class Looping(Replica):
    """Repeats itself in windows longer than that."""

    longest_s = 20

    def hear(self, audio, times):
        if len(audio) > self.longest_s * SAMPLE_RATE:
            return spoken(LOOP, 0, len(audio) / SAMPLE_RATE)
        return answer(numbers(audio, times))


def test_a_window_that_repeats_itself_is_heard_again_in_halves():
    vad = ToldVad(frames((11.2, 1), (1.6, 0), (15.2, 1)))
    replica = Looping()
    result = heard(counted(28), replica, vad=vad)
    assert said(result) == list(range(28))
    assert [length // SAMPLE_RATE for _, length, _ in replica.asked] == [28, 12, 16]
    assert replica.padded == [None] * 3, "what is dense needs the window that Whisper knows"
    assert (result.counts, result.windows) == ({"hole": 1}, 3)

    deeper = Looping()
    deeper.longest_s = 1
    result = heard(counted(28), deeper, vad=vad)
    assert result.transcript.text == LOOP.strip()
    assert result.counts == {"repetitive": 1, "hole": 1}
    assert len(deeper.asked) == 3, "nobody pauses in the halves"
