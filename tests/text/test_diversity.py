import json

import pyarrow as pa
import pytest

from das_lib.errors import Reject
from das_lib.rows import Outcome
from das_lib.testing import tiny_whisper
from das_lib.text.card import base_vocabulary, card, figures
from das_lib.text.catalogues import Catalogue
from das_lib.text.diversity import coverage, distinct, diversity, rare_words, self_bleu
from schemas.text import TEXTS

SONGS = ("Who sang Hello?", "Play Hello by Adele.", "Is it going to rain in Oslo on Monday?")


def outcome(*texts: str) -> Outcome:
    common = {"domain": "music", "split": "train", "source": "s"}
    rows = [{"id": str(n), "text": text, **common} for n, text in enumerate(texts)]
    rejects = [Reject("a", "duplicate"), Reject("b", "too-long"), Reject("c", "duplicate")]
    return Outcome(pa.Table.from_pylist(rows, schema=TEXTS), rejects)


def test_distinct_counts_different_grams_over_all():
    assert distinct([["a", "b", "a", "b"]], 1) == 2 / 4
    assert distinct([["a", "b", "a", "b"]], 2) == 2 / 3
    assert distinct([["a"], ["b"]], 2) == 0


def test_self_bleu_is_100_of_copies_and_low_of_texts_that_share_little():
    copies = [text.split() for text in ["who sang the song of the year"] * 3]
    assert self_bleu(copies, 0) == pytest.approx(100, abs=0.1)
    varied = [text.casefold().split() for text in SONGS]
    found = self_bleu(varied, 0)
    assert found is not None
    assert found < 30
    assert self_bleu(varied[:1], 0) is None


def test_new_words_are_counted_in_each_thousand_texts():
    texts = [f"play song number {n % 1200}" for n in range(2000)]
    assert diversity(texts, 0)["new_words_per_1000"] == [1003, 200]


def test_names_are_found_as_whole_words_whatever_their_case():
    found = coverage(
        [*SONGS, "adele and HELLO"], ["Adele", "Hello", "Hell", "Dua Lipa", "going to rain"]
    )
    assert found == {
        "names": 5,
        "covered": 3,
        "least": 0,
        "most": 3,
        "missing": ["Hell", "Dua Lipa"],
    }


def test_rare_words_are_those_without_a_token_of_their_own():
    vocabulary = {"ĠWho": 0, "Ġsang": 1, "hello": 2, "Ġplay": 3}
    assert rare_words(["Who sang hello?"], vocabulary) == pytest.approx(1 / 3)


def test_the_card_tells_figures_reasons_coverage_and_a_sample(tmp_path):
    catalogues = [Catalogue("artist", ["Adele", "Björk"], [Reject("artist:3", "duplicate")])]
    vocabulary = base_vocabulary(str(tiny_whisper(tmp_path / "base")))
    assert vocabulary
    assert base_vocabulary(str(tmp_path / "nowhere")) is None
    found = figures(
        outcome(*SONGS),
        0,
        keywords=["Hello", "guitar"],
        catalogues=catalogues,
        vocabulary=vocabulary,
    )
    assert json.loads(json.dumps(found)) == found
    assert (found["candidates"], found["accepted_share"]) == (6, 0.5)
    assert found["rejected"] == {"duplicate": 2, "too-long": 1}
    assert found["catalogues"]["artist"]["covered"] == 1
    assert found["catalogues"]["artist"]["rejected_lines"] == {"duplicate": 1}
    lines = card("music", found, SONGS, 0).splitlines()
    assert lines[0] == "---"
    assert "| duplicate | 2 |" in lines
    assert "| artist | 1 of 2 | 0 to 1 | Björk |" in lines
    sample = lines[lines.index("## Sample") :]
    assert sorted(line[2:] for line in sample if line.startswith("- ")) == sorted(SONGS)


def test_a_card_of_ones_own_texts_has_no_coverage():
    found = figures(outcome(*SONGS), 0)
    assert "## Coverage" not in card("music", found, SONGS, 0)
    assert "out_of_base_vocabulary" not in found
