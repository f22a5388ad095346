import json
import random
from collections import Counter

import pyarrow as pa
import pytest

from das_lib.config.tree import Llm, Text
from das_lib.errors import DasError
from das_lib.rows import Outcome
from das_lib.text import codec
from das_lib.text.engine import FakeLlm, sampling_params
from das_lib.text.select import Candidate, Selection, Yield
from schemas.text import REPLIES, TEXTS
from schemas.validate import validate

# Texts of the tests differ in numbers.
TEXT = Text(texts_per_reply=5, near_duplicate=1)


def build_texts(domain, table: pa.Table, text: Text) -> tuple[Outcome, int]:
    selection = Selection(domain, text, "en")
    taken = selection.offer_replies([table])
    return selection.outcome(), taken.candidates


def replies(*contents: str) -> pa.Table:
    rows = [
        {"id": f"r{n}", "domain": "music", "instruction_id": f"i{n}", "reply": content}
        for n, content in enumerate(contents)
    ]
    return pa.Table.from_pylist(rows, schema=REPLIES)


def fake_replies(domain, count: int) -> pa.Table:
    llm, fake, rows = Llm(engine="fake"), FakeLlm(), []
    for row in codec.seed_rows(domain, count, 0).to_pylist():
        params = sampling_params(llm, row, codec.instruction_pattern())
        made = codec.parse_instruction(row, fake.reply(codec.instruction_messages(row), params))
        assert isinstance(made, dict)
        params = sampling_params(llm, made, codec.texts_pattern(5, TEXT))
        rows.append(
            {
                "id": made["id"],
                "domain": domain.name,
                "instruction_id": made["id"],
                "reply": fake.reply(codec.text_messages(made, 5), params),
            }
        )
    return pa.Table.from_pylist(rows, schema=REPLIES)


def test_every_candidate_is_a_row_or_a_reject(music):
    table = replies(
        json.dumps([f"Who sang song number {n}?" for n in range(8)]),
        "no list at all",
        json.dumps(["Who sang song number 1", "Play it.", "Play **bold** songs now", 5]),
        json.dumps([f"Find me album {n}, please." for n in range(8)]),
    )
    outcome, rows_in = build_texts(music, table, TEXT)
    validate(outcome.rows, TEXTS)
    assert rows_in == 8 + 1 + 4 + 8 == outcome.rows.num_rows + len(outcome.rejects)
    assert Counter(r.reason for r in outcome.rejects) == {
        "no-list": 1,
        "duplicate": 1,
        "too-short": 1,
        "markup": 1,
        "characters": 1,
        "surplus": 4,
    }
    ids = [*outcome.rows["id"].to_pylist(), *(r.id for r in outcome.rejects)]
    assert len(set(ids)) == rows_in


def test_the_held_out_texts_are_those_with_the_lowest_ids(music):
    outcome, _ = build_texts(music, fake_replies(music, 4), TEXT)
    rows = sorted(outcome.rows.to_pylist(), key=lambda row: row["id"])
    assert [row["split"] for row in rows] == ["test"] * 3 + ["train"] * 9


def test_the_order_of_replies_does_not_matter(music):
    table = fake_replies(music, 6)
    order = list(range(table.num_rows))
    random.Random(1).shuffle(order)
    first, second = build_texts(music, table, TEXT), build_texts(music, table.take(order), TEXT)
    assert first[0].rows.equals(second[0].rows)
    assert {r.id for r in first[0].rejects} == {r.id for r in second[0].rejects}


def test_the_fake_llm_writes_texts_that_pass_and_differ(music):
    domain = music.model_copy(update={"utterances": 500})
    outcome, rows_in = build_texts(domain, fake_replies(domain, 60), TEXT)
    assert rows_in == 300
    assert outcome.rows.num_rows >= 297, Counter(r.reason for r in outcome.rejects)


def test_sentences_of_the_prompts_examples_are_not_taken(music):
    given = [*codec.example_texts()[:3], *(f"Who sang song number {n}?" for n in range(5))]
    outcome, _ = build_texts(music, replies(json.dumps(given)), TEXT)
    assert outcome.rows.num_rows == 5
    assert [r.reason for r in outcome.rejects] == ["duplicate"] * 3


def test_too_few_texts_for_training_are_an_error_that_says_so(music):
    with pytest.raises(DasError, match="held_out=3"):
        build_texts(music, replies('["Who sang Hello?", "Who sang Help?"]'), TEXT)


def candidates(*texts: str) -> list[Candidate]:
    return [Candidate(f"c{n}", text, "file") for n, text in enumerate(texts)]


def test_what_differs_in_a_letter_is_a_near_duplicate_in_later_rounds_too(music):
    selection = Selection(music.model_copy(update={"held_out": 1}), Text(), "en")
    first = selection.offer(
        candidates(
            "Who sang the best song of nineteen ninety nine?",
            "What is the weather like in Paris tomorrow?",
            "What is the weather like in London tomorrow?",
        )
    )
    assert first == Yield(3, 3)
    second = selection.offer(candidates("Who sang the best songs of nineteen ninety nine?"))
    assert second == Yield(1, 0)
    assert second.share == 0
    (reject,) = selection.outcome().rejects
    assert reject.reason == "near-duplicate"
    assert "songs of nineteen" in reject.detail


def test_rounds_add_up_and_the_held_out_are_of_all_rounds(music):
    texts = [f"Who sang song number {n}?" for n in range(30)]
    selection = Selection(music, TEXT, "en")
    assert selection.offer(candidates(*texts[:5])) == Yield(5, 5)
    assert selection.missing == 7
    assert selection.offer(candidates(*texts[3:20])) == Yield(17, 7)
    outcome = selection.outcome()
    assert Counter(r.reason for r in outcome.rejects) == {"duplicate": 2, "surplus": 8}
    rows = outcome.rows.to_pylist()
    assert [r["id"] for r in rows] == sorted(r["id"] for r in rows)
    assert [r["split"] for r in rows] == ["test"] * 3 + ["train"] * 9
