import random

import pytest

from das_lib.text.duplicates import NearDuplicates, Shingles, jaccard

WORDS = ("play", "song", "mother", "sang", "home", "sunday", "nights", "when", "rained", "loudly")


def test_the_jaccard_index_is_of_the_sets_of_4_grams():
    assert jaccard(Shingles("abcdef"), Shingles("abcdef")) == 1
    assert jaccard(Shingles("abcdef"), Shingles("abcdex")) == pytest.approx(2 / 4)
    assert jaccard(Shingles("ab"), Shingles("ab")) == 1
    assert jaccard(Shingles("ab"), Shingles("abcd")) == 0


def test_what_minhash_finds_is_what_comparing_all_pairs_finds():
    draw = random.Random(0)
    forms = []
    for _ in range(400):
        words = draw.sample(WORDS, draw.randint(5, 9))
        forms.append(" ".join(words))
        for _ in range(draw.randint(0, 2)):  # and a copy with errors of the hand
            letters = list(forms[-1])
            letters[draw.randrange(len(letters))] = "x"
            forms.append("".join(letters))
    near, found, wanted = NearDuplicates(0.8), set(), set()
    texts = [Shingles(form) for form in forms]
    for number, text in enumerate(texts):
        if any(jaccard(text, other) >= 0.8 for other in texts[:number]):
            wanted.add(number)
        if near.find(text) is not None:
            found.add(number)
        near.add(str(number), text)
    assert len(wanted) > 200
    assert found <= wanted
    assert len(found) >= 0.99 * len(wanted)


def test_the_nearest_is_named():
    near = NearDuplicates(0.5)
    near.add("far", Shingles("who sang the song of the year"))
    near.add("close", Shingles("who sang the songs of the years"))
    assert near.find(Shingles("who sang the songs of the year")) in {"far", "close"}
    assert near.find(Shingles("who sang the songs of the years")) == "close"
    assert near.find(Shingles("is it going to rain in lisbon")) is None
