"""Rows through the engines on Ray: the fake one, and vLLM with the real small model."""

import pytest

from das_lib.config.tree import Llm, Text
from das_lib.text import codec
from das_lib.text.engine import sampling_params
from das_lib.text.select import Selection
from schemas.text import INSTRUCTIONS

pytestmark = pytest.mark.ray

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEXT = Text(texts_per_reply=4, max_words=16)


def ask(engines, rows, messages, pattern: str) -> list[dict]:
    prompts = [
        {
            **row,
            "messages": messages(row),
            "sampling_params": sampling_params(engines.llm, row, pattern),
        }
        for row in rows
    ]
    return engines.answer(prompts).take_all()


def both_calls(engines, seeds: list[dict]) -> tuple[list[dict], list[dict]]:
    answered = ask(engines, seeds, codec.instruction_messages, codec.instruction_pattern())
    assert {row["id"] for row in answered} == {row["id"] for row in seeds}
    assert set(answered[0]) == {*codec.PROMPTS.names, "reply", "error", "tokens"}
    made = [codec.parse_instruction(row, row["reply"]) for row in answered]
    made = [row for row in made if isinstance(row, dict)]
    assert set(made[0]) == set(INSTRUCTIONS.names)
    replies = ask(
        engines,
        made,
        lambda row: codec.text_messages(row, TEXT.texts_per_reply),
        codec.texts_pattern(TEXT.texts_per_reply, TEXT),
    )
    return answered, replies


def replicas() -> list[str]:
    from ray.util import list_named_actors

    names = [actor["name"] for actor in list_named_actors(all_namespaces=True)]
    return [name for name in names if "das-llm" in name]


def test_the_fake_engine_answers_every_row(two_cpus, music):
    import pyarrow as pa

    from ray_jobs.llm import EnginePool

    with EnginePool(Llm(engine="fake", batch_rows=4), "test") as engines:
        answered, replies = both_calls(engines, codec.seed_rows(music, 6, 0).to_pylist())
    assert all(row["error"] == "" and row["reply"] for row in [*answered, *replies])
    assert all(row["tokens"] > 0 for row in replies)
    table = pa.Table.from_pylist([{"id": r["id"], "reply": r["reply"]} for r in replies])
    selection = Selection(music, TEXT, "en")
    taken = selection.offer_replies([table])
    assert (taken.candidates, taken.accepted) == (6 * 4, music.utterances)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_calls_share_one_vllm_and_a_bad_row_alone_fails(two_cpus, worker_errors, music):
    from ray_jobs.llm import EnginePool

    llm = Llm(model=MODEL, num_cpus=1.5, temperature=0.7, top_p=0.9, max_tokens=160)
    seeds = codec.seed_rows(music, 3, 0).to_pylist()
    seeds[0]["persona"] = "singer " * 5000  # longer than the engine's context

    with EnginePool(llm, "test") as engines:
        ask(engines, seeds[1:2], codec.instruction_messages, codec.instruction_pattern())
        first = replicas()
        answered, replies = both_calls(engines, seeds)
        assert len(first) == 1
        assert replicas() == first
    assert not replicas()
    said = worker_errors()
    assert any("LlmServer" in text for text in said)
    assert not any("initialize_remote_node" in text for text in said)  # Ray fetches no model

    by_id = {row["id"]: row for row in answered}
    failed = by_id.pop(seeds[0]["id"])
    assert failed["reply"] == ""
    assert "length" in failed["error"]
    for row in by_id.values():
        assert row["error"] == ""
        made = codec.parse_instruction(row, row["reply"])
        assert isinstance(made, dict), made
        assert made["keywords"]
    assert {row["id"] for row in replies} == set(by_id)
    assert all(codec.parse_texts(row["id"], row["reply"]) for row in replies)
