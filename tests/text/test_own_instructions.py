"""Instructions that a user wrote, or took from a run and edited."""

import json

import pyarrow.parquet as pq
import pytest

from das_lib.config.tree import Domain, Seed
from das_lib.errors import DasError
from das_lib.text import codec
from das_lib.text.catalogues import Catalogue
from das_lib.text.own_instructions import PERSONA, read_own_instructions
from schemas.text import INSTRUCTIONS
from schemas.validate import validate


def own(path, **options):
    domain = Domain(name="music", utterances=10, instructions=str(path))
    return read_own_instructions(domain, 0, **options)


def test_a_steps_own_rows_come_back_as_they_were(tmp_path):
    seed = Seed(use_case="questions", skills=("singer",), persona="teenager", instruction="Ask.")
    domain = Domain(name="music", utterances=10, seeds=(seed,))
    rows = [row | {"entities": []} for row in codec.seed_rows(domain, 3, 0).to_pylist()]
    reply = '{"keywords": ["jazz", "Bessie Smith"], "instruction": "Name a record from %d."}'
    made = [codec.parse_instruction(row, reply % n) for n, row in enumerate(rows, 1970)]
    table = codec.pa.Table.from_pylist(made, schema=INSTRUCTIONS)
    pq.write_table(table, tmp_path / "edited.parquet")

    outcome = own(tmp_path / "edited.parquet")
    validate(outcome.rows, INSTRUCTIONS)
    assert not outcome.rejects
    assert outcome.rows.drop_columns("id").equals(table.drop_columns("id"))


def test_a_line_suffices_and_what_is_unusable_is_rejected(tmp_path):
    path = tmp_path / "own.jsonl"
    lines = [
        {"instruction": "Ask about jazz.", "keywords": "jazz, Bessie  Smith,"},
        {"instruction": "Ask about  jazz."},
        {"instruction": "x " * 600},
        {"instruction": 7},
    ]
    path.write_text("\n".join([*map(json.dumps, lines), "no json"]))
    outcome = own(path)
    (row,) = outcome.rows.to_pylist()
    assert row["keywords"] == row["skills"] == ["jazz", "Bessie Smith"]
    assert row["persona"] == PERSONA
    assert [(reject.id, reject.reason) for reject in outcome.rejects] == [
        ("own.jsonl:2", "duplicate"),
        ("own.jsonl:3", "too-long"),
        ("own.jsonl:4", "no-instruction"),
        ("own.jsonl:5", "no-json"),
    ]


def test_another_round_asks_anew_and_names_of_catalogues_come_first(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("Ask about jazz.\nAsk about opera.\n")
    artists = ["Nina Simone", "Bessie Smith", "Odetta", "Ma Rainey"]
    catalogue = Catalogue("artist", artists)
    first, second = (own(path, number=n, catalogues=[catalogue]) for n in (0, 1))
    assert not set(first.rows["id"].to_pylist()) & set(second.rows["id"].to_pylist())
    named = [words[0] for one in (first, second) for words in one.rows["keywords"].to_pylist()]
    assert sorted(named) == sorted(artists)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"text": "Ask."}', "columns 'text'; name the one to read 'instruction'"),
        ('{"instruction": ""}', r"no usable instruction \(1 rejected\)"),
    ],
)
def test_a_file_without_instructions_is_an_error_that_says_why(tmp_path, content, says):
    (tmp_path / "own.jsonl").write_text(content)
    with pytest.raises(DasError, match=says):
        own(tmp_path / "own.jsonl")
