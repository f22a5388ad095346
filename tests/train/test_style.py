import pytest

from das_lib.evaluation.wer import normalise
from das_lib.train.style import in_base_style


@pytest.mark.parametrize(
    ("text", "heard", "written"),
    [
        ("Who won the cup", "Who won the cup?", "Who won the cup?"),
        ("Is this a leap year?", "Is this a leave here?", "Is this a leap year?"),
        (
            "Play Paranoid by Black Sabbath",
            "play Paranoid. By black.",
            "play Paranoid. By black Sabbath.",
        ),
        ("Wake me at three", "Wake me at 3.", "Wake me at 3."),
        ("When do the Lyrids peak", "When do the lyrics peak?", "When do the Lyrids peak?"),
        ("Is it hot in Girvan", "Is it hot in Garvin?", "Is it hot in Girvan?"),
        ("Play it by Black Sabbath", "Play it by Black.", "Play it by Black Sabbath."),
        ("Turn it up", "Turn it up, please. Thank you.", "Turn it up."),
        ("Play Yes, by Yes.", "", "Play Yes, by Yes."),
        # Alone "sixteen" is 16; behind "double" the normaliser makes another number of it.
        ("A share of double sixteen", "A share of double 16.", "A share of double sixteen"),
        ("Turn it up", f"Turn it up{60 * '!'}", "Turn it up!!!"),
        ("  Turn   it up ", " Turn it up. ", "Turn it up."),
    ],
)
def test_the_words_are_the_texts_and_the_writing_is_the_bases(text, heard, written):
    found = in_base_style(text, heard)
    assert normalise(found) == normalise(text)
    assert found == written


def test_in_other_languages_nothing_is_taken_for_the_same_that_differs_in_a_letter():
    styled = in_base_style("Um drei Äpfel bitten", "drei Apfel bitten.", english=False)
    assert styled == "Um drei Äpfel bitten."
    assert in_base_style("wie spät ist es", "Wie spät ist es?", english=False) == "Wie spät ist es?"


def test_one_sentence_ends_where_the_next_begins():
    text = "Turn it up I like Queen"
    assert in_base_style(text, "Turn it up. I like Green!") == "Turn it up. I like Queen!"
