"""Words of a transcript and the branch that decided each."""

import random

import pytest
from transformers import WhisperTokenizer

from das_lib.adml.result import split_words
from das_lib.adml.spelling import Spelling

PIECES = {
    1: " Stevie",
    2: " Ni",
    3: "cks",
    4: ",",
    5: " caf",
    6: b"\xc3",
    7: b"\xa9",
    8: " ",
    9: "!",
}


def decode(tokens):
    pieces = (PIECES[t] for t in tokens)
    data = b"".join(p if isinstance(p, bytes) else p.encode() for p in pieces)
    return data.decode("utf-8", errors="replace")


def test_words_keep_their_punctuation_and_name_the_branch_of_most_of_their_tokens():
    words = split_words([1, 2, 3, 4], [0, 2, 1, 1], [-0.1, -0.2, -2.0, 0.0], decode)
    assert [(w.text, w.start, w.end, w.branch) for w in words] == [
        ("Stevie", 0, 1, 0),
        ("Nicks,", 1, 4, 1),
    ]
    assert words[1].confidence == pytest.approx(0.1353, abs=1e-4)


def test_of_equally_many_tokens_the_first_branch_has_the_word():
    [word] = split_words([2, 3], [3, 1], [0.0, 0.0], decode)
    assert word.branch == 3


def test_a_character_of_two_tokens_is_not_torn():
    [word] = split_words([5, 6, 7], [0, 1, 1], [0.0] * 3, decode)
    assert (word.text, word.start, word.end) == ("café", 0, 3)


@pytest.mark.parametrize("tokens", [[], [8]])
def test_no_text_gives_no_word(tokens):
    assert split_words(tokens, [0] * len(tokens), [0.0] * len(tokens), decode) == []


def test_a_transcript_that_ends_within_a_character_still_gives_its_word():
    [word] = split_words([5, 6], [0, 0], [0.0] * 2, decode)
    assert (word.start, word.end) == (0, 2)


@pytest.mark.parametrize("model", ["base", pytest.param("whisper_base", marks=pytest.mark.slow)])
def test_tokens_are_spelt_as_the_tokenizer_does(model, request):
    tokenizer = WhisperTokenizer.from_pretrained(request.getfixturevalue(model))
    spell, size, rng = Spelling(tokenizer), len(tokenizer), random.Random(0)
    some = [[rng.randrange(size) for _ in range(rng.randrange(1, 12))] for _ in range(2000)]
    previous = tokenizer.convert_tokens_to_ids("<|startofprev|>")
    for tokens in [[i] for i in range(0, size, max(1, size // 2000))] + some:
        if tokens[0] == previous:
            continue  # the tokenizer leaves out what follows; no transcript begins so
        assert spell(tokens) == tokenizer.decode(tokens, skip_special_tokens=True)
    assert spell([size + 5]) == ""  # a row of the vocabulary that no token has
