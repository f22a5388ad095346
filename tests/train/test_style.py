import pytest

from das_lib.evaluation.wer import normalise
from das_lib.train.style import in_base_style


@pytest.mark.parametrize(
    ("text", "heard", "written"),
    [
        ("Who won the cup", "Who won the cup?", "Who won the cup?"),
        ("Is this a leap year?", "Is this a leave here?", "Is this a leap year?"),
        ("Play Paranoid by Black Sabbath", "play Paranoid. By black.", None),
        ("Wake me at three", "Wake me at 3.", "Wake me at 3."),
        ("When do the Lyrids peak", "When do the lyrics peak?", "When do the Lyrids peak?"),
        ("Is it hot in Girvan", "Is it hot in Garvin?", "Is it hot in Girvan?"),
        ("Play it by Black Sabbath", "Play it by Black.", "Play it by Black Sabbath."),
        ("Turn it up", "Turn it up, please. Thank you.", "Turn it up."),
        ("Play Yes, by Yes.", "", "Play Yes, by Yes."),
        ("Turn it up", f"Turn it up{60 * '!'}", "Turn it up!!!"),
        ("  Turn   it up ", " Turn it up. ", "Turn it up."),
    ],
)
def test_the_words_are_the_texts_and_the_writing_is_the_bases(text, heard, written):
    found = in_base_style(text, heard)
    assert normalise(found) == normalise(text)
    if written is not None:
        assert found == written


def test_one_sentence_ends_where_the_next_begins():
    text = "Turn it up I like Queen"
    assert in_base_style(text, "Turn it up. I like Green!") == "Turn it up. I like Queen!"
