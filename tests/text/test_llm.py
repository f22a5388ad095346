"""Rows through the engines on Ray: the fake one, and vLLM with the real small model."""

import pytest

from das_lib.config.tree import Domain, Llm, Text
from das_lib.text import codec
from das_lib.text.engine import sampling_params
from das_lib.text.select import Selection
from schemas.text import INSTRUCTIONS

pytestmark = pytest.mark.ray

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEXT = Text(texts_per_reply=4, max_words=16)


def ask(llm: Llm, model_path: str, rows, messages, pattern: str) -> list[dict]:
    import ray.data

    from ray_jobs.llm import processor

    prompts = [
        {
            **row,
            "messages": messages(row),
            "sampling_params": sampling_params(llm, row, pattern),
        }
        for row in rows
    ]
    return processor(llm, model_path)(ray.data.from_items(prompts)).take_all()


def both_calls(llm: Llm, model_path: str, domain: Domain, count: int):
    seeds = codec.seed_rows(domain, count, 0).to_pylist()
    answered = ask(llm, model_path, seeds, codec.instruction_messages, codec.instruction_pattern())
    assert {row["id"] for row in answered} == {row["id"] for row in seeds}
    assert set(answered[0]) == {*codec.PROMPTS.names, "reply", "error", "tokens"}
    made = [codec.parse_instruction(row, row["reply"]) for row in answered]
    made = [row for row in made if isinstance(row, dict)]
    assert set(made[0]) == set(INSTRUCTIONS.names)
    replies = ask(
        llm,
        model_path,
        made,
        lambda row: codec.text_messages(row, TEXT.texts_per_reply),
        codec.texts_pattern(TEXT.texts_per_reply, TEXT),
    )
    return answered, replies


def test_the_fake_engine_answers_every_row(two_cpus, music):
    import pyarrow as pa

    llm = Llm(engine="fake", batch_rows=4)
    answered, replies = both_calls(llm, "", music, 6)
    assert all(row["error"] == "" and row["reply"] for row in [*answered, *replies])
    assert all(row["tokens"] > 0 for row in replies)
    table = pa.Table.from_pylist([{"id": r["id"], "reply": r["reply"]} for r in replies])
    selection = Selection(music, TEXT, "en")
    taken = selection.offer_replies([table])
    assert (taken.candidates, taken.accepted) == (6 * 4, music.utterances)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_vllm_answers_on_two_cpus_and_a_bad_row_alone_fails(two_cpus, music):
    from das_lib.models import resolve_model

    llm = Llm(model=MODEL, num_cpus=1.5, temperature=0.7, top_p=0.9, max_tokens=160)
    rows = codec.seed_rows(music, 3, 0).to_pylist()
    rows[0]["persona"] = "singer " * 5000  # longer than the engine's context

    answered = ask(
        llm,
        str(resolve_model(MODEL)),
        rows,
        codec.instruction_messages,
        codec.instruction_pattern(),
    )
    by_id = {row["id"]: row for row in answered}
    failed = by_id.pop(rows[0]["id"])
    assert failed["reply"] == ""
    assert "length" in failed["error"]
    for row in by_id.values():
        assert row["error"] == ""
        made = codec.parse_instruction(row, row["reply"])
        assert isinstance(made, dict), made
        assert made["keywords"]
