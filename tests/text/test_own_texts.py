import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from das_lib.config.tree import Domain, Text
from das_lib.errors import DasError
from das_lib.text.own_texts import read_own_texts
from schemas.text import TEXTS
from schemas.validate import validate

TEXT = Text()
SENTENCES = ["Who sang Hello, again?", "Play some quiet jazz.", "Find the newest album."]
DATA = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data"))


def own(path: Path, utterances: int = 100, held_out: int = 1):
    domain = Domain(name="own", utterances=utterances, held_out=held_out, texts=str(path))
    return read_own_texts(str(path), domain, TEXT, "en")


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"own{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"text": s}) for s in SENTENCES))
    elif suffix == ".csv":
        path.write_text("id,text\n" + "".join(f'1,"{s}"\n' for s in SENTENCES))
    elif suffix == ".txt":
        path.write_text("\n\n".join(SENTENCES))
    else:
        pq.write_table(pa.table({"text": SENTENCES}), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt", ".parquet"])
def test_each_format_gives_its_texts(tmp_path, suffix):
    outcome = own(write(tmp_path, suffix))
    validate(outcome.rows, TEXTS)
    assert set(outcome.rows["text"].to_pylist()) == set(SENTENCES)
    assert sorted(outcome.rows["split"].to_pylist()) == ["test", "train", "train"]
    assert not outcome.rejects
    assert all(source.startswith("own.") for source in outcome.rows["source"].to_pylist())


def test_lists_and_bad_lines_are_all_accounted_for(tmp_path):
    path = tmp_path / "own.jsonl"
    lines = [json.dumps({"texts": [*SENTENCES, "", None]}), "no json", "[1]", '{"text": 7}']
    path.write_text("\n".join([*lines, json.dumps({"text": SENTENCES[0]})]))
    outcome = own(path)
    assert outcome.rows.num_rows == 3
    assert sorted((r.id, r.reason) for r in outcome.rejects) == [
        ("own.jsonl:1:3", "no-text"),
        ("own.jsonl:1:4", "no-text"),
        ("own.jsonl:2", "no-json"),
        ("own.jsonl:3", "no-json"),
        ("own.jsonl:4", "no-text"),
    ] + [(r.id, r.reason) for r in outcome.rejects if r.reason == "duplicate"]
    assert sum(r.reason == "duplicate" for r in outcome.rejects) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("own.csv", b"sentence,id\nhello there you,1\n", "'sentence', 'id'; name the one"),
        ("own.jsonl", b'{"sentence": "hello there you"}\n', r"line 1 has the columns 'sentence'"),
        ("own.txt", b"", "holds no text"),
        ("own.csv", b"", "holds no text"),
        ("own.txt", b"\xff\xfe\x00", "give a whole file in UTF-8"),
        ("own.docx", b"hello there you", r"unknown format; name the file \*\.jsonl"),
        ("own.parquet", b"no parquet", "cannot be read"),
    ],
)
def test_a_file_without_texts_is_an_error_that_says_why(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DasError, match=says):
        own(path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DasError, match=r"cannot read .*nowhere\.txt.*check the path"):
        own(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("domain", ["music", "weather", "sports"])
def test_well_written_texts_pass_almost_all(domain):
    path = DATA / "texts" / f"{domain}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is missing; set DAS_SHARED_DATA to the folder of the shared data")
    outcome = own(path, utterances=10_000)
    total = outcome.rows.num_rows + len(outcome.rejects)
    assert total == 1600
    assert outcome.rows.num_rows >= 0.97 * total, [
        (r.reason, r.detail) for r in outcome.rejects[:30]
    ]
