import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from das_lib.config import Domain, Seed
from das_lib.config.tree import Text
from das_lib.errors import DasError
from das_lib.text.filters import check_text, normal_form
from das_lib.text.own_texts import read_own_texts
from das_lib.text.select import build_texts
from schemas.text import REPLIES, TEXTS
from schemas.validate import validate

SEED = Seed(use_case="u", skills=("s",), persona="p", instruction="i")
GOOD = [
    f"What is the number {n} song of {city}?" for n, city in enumerate(("Rome", "Oslo", "Bonn"))
]


def domain(**changes):
    return Domain(**{"name": "music", "utterances": 10, "held_out": 1, "seeds": (SEED,), **changes})


def replies(*texts):
    rows = [
        {"id": f"r{n}", "domain": "music", "instruction_id": "i", "reply": t}
        for n, t in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=REPLIES)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("What's the title of Elvis Presley's first album?", None),
        ("Is it 20°C in São Paulo?", None),
        ("Stop it", "too-short"),
        ("word " * 60, "too-long"),
        ("See **this** list of songs", "markup"),
        ("Look at https://example.org for songs", "markup"),
        ("...", "characters"),
        ("Сколько времени сейчас в Москве", "characters"),
        ("play play play play play play play", "repetition"),
        ("Sure, here is a list of songs", "assistant-reply"),
        ("As an AI language model I cannot sing", "assistant-reply"),
    ],
)
def test_what_a_text_must_be(text, reason):
    assert check_text(text, Text()) == reason


def test_texts_that_sound_the_same_have_one_normal_form():
    assert normal_form("Who’s  the Best, singer?") == normal_form("who's the best singer")


def test_candidates_add_up_and_their_order_does_not_matter():
    lists = [json.dumps([*GOOD, "no"]), "I cannot do that.", json.dumps([GOOD[0].upper()])]
    outcome, count = build_texts(domain(), replies(*lists), Text())
    assert count == 6
    assert outcome.rows.num_rows + len(outcome.rejects) == count
    reasons = sorted(r.reason for r in outcome.rejects)
    assert reasons == ["duplicate", "no-list", "too-short"]
    validate(outcome.rows, TEXTS)
    assert outcome.rows["split"].to_pylist().count("test") == 1
    table = replies(*lists)
    again, _ = build_texts(domain(), table.take([2, 1, 0]), Text())
    assert again.rows.equals(outcome.rows)


def test_texts_beyond_the_number_wanted_are_counted_as_surplus():
    outcome, _ = build_texts(domain(utterances=2), replies(json.dumps(GOOD)), Text())
    assert outcome.rows.num_rows == 2
    assert [r.reason for r in outcome.rejects] == ["surplus"]


def test_too_few_texts_to_train_on_are_an_error():
    with pytest.raises(DasError, match=r"held_out=5 .*leaves none to train on"):
        build_texts(domain(held_out=5), replies(json.dumps(GOOD)), Text())


def own(path):
    return domain(seeds=(), texts=str(path))


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "parquet"])
def test_own_texts_come_in_four_formats(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    if suffix == "txt":
        path.write_text("\n".join(GOOD) + "\n\n")
    elif suffix == "csv":
        path.write_text("id,text\n" + "".join(f'{n},"{t}"\n' for n, t in enumerate(GOOD)))
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps({"text": t}) for t in GOOD))
    else:
        pq.write_table(pa.table({"text": GOOD}), path)
    outcome = read_own_texts(str(path), own(path), Text())
    assert sorted(outcome.rows["text"].to_pylist()) == sorted(GOOD)
    assert all(s.startswith(path.name) for s in outcome.rows["source"].to_pylist())


def test_lists_of_texts_are_taken_apart(tmp_path):
    path = tmp_path / "batches.jsonl"
    path.write_text(json.dumps({"domain": "music", "texts": GOOD}) + "\n")
    assert read_own_texts(str(path), own(path), Text()).rows.num_rows == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,sentence\n1,hello\n", r"has the columns 'id', 'sentence'; name the one"),
        ("a.jsonl", b'{"sentence": "x"}\n', r"line 1 has the columns 'sentence'"),
        ("a.docx", b"x", r"unknown format; name the file \*\.jsonl"),
        ("a.txt", b"\n\n", "holds no text"),
        ("a.txt", b"\xff\xfe\x00", "give a whole file in UTF-8"),
        ("a.parquet", b"PAR", "or a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DasError, match=message):
        read_own_texts(str(tmp_path / name), own(tmp_path / name), Text())


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DasError, match=r"cannot read .*check the path"):
        read_own_texts(str(tmp_path / "none.txt"), own("none.txt"), Text())
