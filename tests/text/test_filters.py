import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from das_lib.config.tree import Text
from das_lib.text.filters import Filters, check_text, normal_form

LIMITS = Text(min_words=3, max_words=12)


@pytest.mark.parametrize(
    "text",
    [
        "What's Beyoncé's real name?",
        "Play Ob-La-Di by The Beatles at 7:30 p.m.",
        "Is AC/DC's new album out? Or isn't it",
        "How warm is it in São Paulo, 28.5°?",
        "Will it rain on the 4th of July?",
        "Sure Thing by Miguel, play it.",
    ],
)
def test_what_one_says_to_an_assistant_passes(text):
    assert check_text(text, LIMITS) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Play jazz.", "too-short"),
        ("one two three four five six seven eight nine ten eleven twelve more", "too-long"),
        ("Play **Hello** by Adele", "markup"),
        ("Play [song title] by [artist]", "markup"),
        ("Look at https://example.org now please", "markup"),
        ("", "characters"),
        ("1 2 3 4", "characters"),
        ("?? !! ... --", "characters"),
        ("明日の天気 は どう です", "characters"),
        ("What is this song called 🎵 now", "characters"),
        ("Who is xkjdhfkjsdhfkjsdhfkjsdhfkjsdhfkjsdhf today", "characters"),
        ("I am very very very happy", "repetition"),
        ("the sea and the sea and the sea", "repetition"),
        ("who is the best singer who is the best band", "repetition"),
        ("Sure, what song do you want?", "assistant-reply"),
        ("Here are ten questions about music", "assistant-reply"),
        ("As an AI I cannot hear music", "assistant-reply"),
    ],
)
def test_what_nobody_says_is_rejected_with_its_reason(text, reason):
    assert check_text(text, LIMITS) == reason


@given(st.text())
def test_any_text_has_a_verdict(text):
    assert check_text(text, LIMITS) in {
        None,
        "too-short",
        "too-long",
        "markup",
        "characters",
        "repetition",
        "assistant-reply",
    }
    assert normal_form(normal_form(text)) == normal_form(text)


def test_texts_that_sound_the_same_have_one_normal_form():
    assert normal_form("What’s  on, today?") == normal_form("what's on today")
    assert normal_form("Who sang it?") != normal_form("Who sings it?")


@pytest.mark.parametrize(
    ("text", "language", "reason"),
    [
        ("Quel temps fait-il à Paris demain ?", "en", "language"),
        ("Wie spät ist es in Berlin?", "en", "language"),
        ("Quién ganó el partido de ayer", "en", "language"),
        ("Che tempo fa a Roma domani mattina?", "en", "language"),
        ("Hoe laat begint de wedstrijd vanavond?", "en", "language"),
        ("Wie spät ist es in Berlin?", "de", None),
        ("Play Violeta Parra's Gracias a la vida.", "en", None),
        ("Quién ganó el partido de ayer", None, None),
        ("Quién ganó el partido de ayer", "haw", None),  # a language that nobody can tell
        ("Play it", "en", "too-short"),
    ],
)
def test_a_text_must_be_in_the_language(text, language, reason):
    assert Filters(LIMITS, language).check(text) == reason


SHARED = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "texts"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no {SHARED}; set DAS_SHARED_DATA")
def test_no_text_about_other_languages_songs_and_towns_is_taken_for_another_language():
    filters = Filters(Text(max_words=100), "en")
    lines = [line for path in SHARED.glob("*.jsonl") for line in path.read_text().splitlines()]
    texts = [text for line in lines for text in json.loads(line)["texts"]]
    assert len(texts) > 1000
    assert [text for text in texts if filters.check(text) == "language"] == []
