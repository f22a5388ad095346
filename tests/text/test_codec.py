import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_rows import PROMPT as ROW

from das_lib.config.tree import Text
from das_lib.errors import Reject
from das_lib.text import codec
from schemas.text import INSTRUCTIONS

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("instruction.json", codec.instruction_messages(ROW)),
        ("texts.json", codec.text_messages(ROW, 6)),
    ],
)
def test_prompts_are_those_on_record(name, messages):
    assert messages == json.loads((GOLDEN / name).read_text())


def test_prompts_begin_alike_so_that_the_engine_reuses_what_it_computed(music):
    rows = [row | ROW | {"id": row["id"]} for row in codec.seed_rows(music, 30, 0).to_pylist()]
    assert len({str(codec.instruction_messages(row)[:-1]) for row in rows}) == 1
    assert len({str(codec.text_messages(row, 8)[:-1]) for row in rows}) == codec.EXAMPLE_VARIANTS


def test_seed_rows_are_the_same_each_time_and_differ_among_variants(music):
    table = codec.seed_rows(music, 20, 0)
    assert table.schema == codec.PROMPTS
    assert table.equals(codec.seed_rows(music, 20, 0))
    assert len(set(table["id"].to_pylist())) == 20
    assert len({tuple(skills) for skills in table["skills"].to_pylist()}) > 3
    assert not set(table["id"].to_pylist()) & set(codec.seed_rows(music, 20, 1)["id"].to_pylist())


def test_more_variants_keep_the_ids_of_the_first(music):
    few, many = codec.seed_rows(music, 2, 0), codec.seed_rows(music, 5, 0)
    assert many["id"].to_pylist()[:2] == few["id"].to_pylist()


def test_the_examples_obey_the_patterns():
    for message in codec.instruction_messages(ROW):
        if message["role"] == "assistant":
            assert re.fullmatch(codec.instruction_pattern(), message["content"])
    replies = [m["content"] for m in codec.text_messages(ROW, 8) if m["role"] == "assistant"]
    assert len(replies) == 2
    for reply in replies:
        assert re.fullmatch(codec.texts_pattern(8, Text()), reply)


@pytest.mark.parametrize(
    "reply",
    [
        '["Who sang Hello?", "Play some jazz."]',
        'Sure! Here they are: ["Who sang Hello?", "Play some jazz."] Enjoy.',
        '{"texts": ["Who sang Hello?", "Play some jazz."]}',
        '["Who sang Hello?", "Play some jazz.", "And what about the',
        "1. Who sang Hello?\n2. Play some jazz.",
        'Here you go:\n\n1) Who sang Hello?\n 2) "Play some jazz."',
        "- Who sang Hello?\n- Play some jazz.",
        "* Question 1: Who sang Hello?\n• Play some jazz.",
    ],
)
def test_lists_in_any_common_form_are_read(reply):
    assert codec.parse_texts("r", reply) == ["Who sang Hello?", "Play some jazz."]


@pytest.mark.parametrize(
    "reply", ["", "I like music very much.", "[]", "[[[", '{"a": 1}', "[" * 9999]
)
def test_a_reply_that_is_no_list_is_rejected(reply):
    found = codec.parse_texts("r", reply)
    assert isinstance(found, Reject)
    assert (found.id, found.reason) == ("r", "no-list")


def test_elements_that_are_no_strings_stay_countable():
    assert codec.parse_texts("r", '["One two three?", 7, {"q": 1}]') == [
        "One two three?",
        "7",
        '{"q": 1}',
    ]


@given(st.text() | st.from_regex(r"[\[{\"',:\]}0-9a-z \n*.-]{0,80}", fullmatch=True))
def test_no_reply_breaks_the_parsers(reply):
    texts = codec.parse_texts("r", reply)
    assert isinstance(texts, Reject) or all(isinstance(t, str) and t for t in texts)
    found = codec.parse_instruction(ROW, reply)
    assert isinstance(found, Reject) or set(found) == set(INSTRUCTIONS.names)


@pytest.mark.parametrize(
    "reply",
    [
        '{"keywords": ["Adele", " debut album"], "instruction": "Ask about Adele."}',
        'Fine: {"keywords": ["Adele", "debut album", "Adele"], "instruction": "Ask about Adele."}',
        "**Keywords**: Adele, debut album\n**Instruction**: Ask about Adele.",
    ],
)
def test_an_instruction_is_the_seeds_and_what_the_llm_adds(reply):
    found = codec.parse_instruction(ROW, reply)
    assert isinstance(found, dict)
    assert found["keywords"] == ["Adele", "debut album"]
    assert found["instruction"] == f"{ROW['instruction']} Ask about Adele."
    assert found["id"] == ROW["id"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "no-keywords"),
        ("{}", "no-keywords"),
        ('{"keywords": [], "instruction": "Ask."}', "no-keywords"),
        ('{"keywords": ["Adele"]}', "no-instruction"),
        ('{"keywords": ["Adele"], "instruction": 5}', "no-instruction"),
        ('{"keywords": ["Adele"], "instruction": "' + "a " * 900 + '"}', "no-instruction"),
    ],
)
def test_metadata_that_lacks_a_part_is_rejected(reply, reason):
    found = codec.parse_instruction(ROW, reply)
    assert isinstance(found, Reject)
    assert found.reason == reason
