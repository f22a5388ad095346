import json
import re

import pytest
from text_rows import INSTRUCTION as ROW

from das_lib.config.tree import Llm
from das_lib.errors import Reject
from das_lib.text import codec, rubrics
from das_lib.text.engine import FakeLlm, sampling_params
from schemas.text import IMPROVED

GOOD = {"rubric": "Names are real.", "action": "Add names.", "instruction": "Name Adele and Oasis."}


def test_what_the_action_adds_comes_behind_the_instruction():
    made = rubrics.parse_improved(ROW, f"Here you are: {json.dumps(GOOD)} Good luck.")
    assert isinstance(made, dict)
    assert list(made) == IMPROVED.names
    assert made["instruction"] == f"{ROW['instruction']} Name Adele and Oasis."
    assert (made["rubric"], made["action"]) == ("Names are real.", "Add names.")
    again = rubrics.parse_improved({k: made[k] for k in ROW}, json.dumps(GOOD))
    assert isinstance(again, dict)
    assert again["instruction"].endswith("Name Adele and Oasis. Name Adele and Oasis.")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "no-rubric"),
        ("[1, 2]", "no-rubric"),
        ("{" * 5000, "no-rubric"),
        (json.dumps(GOOD | {"rubric": 5}), "no-rubric"),
        (json.dumps(GOOD | {"action": " "}), "no-rubric"),
        (json.dumps({k: GOOD[k] for k in ("rubric", "action")}), "no-instruction"),
        (json.dumps(GOOD | {"instruction": "word " * 400}), "no-instruction"),
    ],
)
def test_any_reply_becomes_a_row_or_a_reject(reply, reason):
    made = rubrics.parse_improved(ROW, reply)
    assert isinstance(made, Reject)
    assert (made.id, made.reason) == (ROW["id"], reason)


def test_the_examples_obey_the_pattern_and_so_does_the_fake():
    chat = rubrics.improve_messages(ROW)
    replies = [m["content"] for m in chat if m["role"] == "assistant"]
    assert len(replies) == len(codec.examples())
    for reply in replies:
        assert re.fullmatch(rubrics.improve_pattern(), reply)
    assert "Adele, debut album" in chat[-1]["content"]
    params = sampling_params(Llm(), ROW, rubrics.improve_pattern())
    assert isinstance(rubrics.parse_improved(ROW, FakeLlm().reply(chat, params)), dict)
