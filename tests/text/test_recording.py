"""Recorded replies: the same prompts get the same answers, others none."""

import json

import pytest

from das_lib.config import parse_config
from das_lib.errors import DasError
from das_lib.text.recording import RecordedLlm, Recorder

PROMPTS = [
    {
        "id": f"r{n}",
        "messages": [{"role": "user", "content": f"Say {n}."}],
        "sampling_params": {"seed": n, "temperature": 1.0},
    }
    for n in range(3)
]
ROWS = [
    {"id": "r1", "reply": "Eins – né.", "error": "", "tokens": 4},
    {"id": "r0", "reply": "", "error": "too long", "tokens": 0},
]


def chat(prompt: dict, **changes):
    return prompt["messages"], prompt["sampling_params"] | changes


def test_answers_come_back_for_the_same_prompt_and_seed_only(tmp_path):
    path = tmp_path / "new" / "replies.jsonl"
    for row in ROWS:  # what is recorded later is added
        Recorder(str(path), PROMPTS).add([row])
    again = RecordedLlm(str(path))
    found = again.replies([chat(PROMPTS[0]), chat(PROMPTS[1], temperature=0.5), chat(PROMPTS[2])])
    assert found[:2] == [("", "too long", 0), ("Eins – né.", "", 4)]
    assert "no recorded reply to this chat" in found[2][1]
    assert again.replies([chat(PROMPTS[1], seed=9)])[0][0] == ""


@pytest.mark.parametrize("content", ["no json", json.dumps({"reply": "a"}), "[1]"])
def test_another_file_is_no_recording(tmp_path, content):
    (tmp_path / "r.jsonl").write_text(content)
    with pytest.raises(DasError, match=r"r\.jsonl is no recording .*llm\.record"):
        RecordedLlm(str(tmp_path / "r.jsonl"))


def test_a_recording_belongs_to_its_engine():
    domain = {"name": "m", "utterances": 4, "texts": "a.txt"}
    tree = {"name": "t", "output": "o", "domains": [domain]}
    with pytest.raises(DasError, match="recorded with no recording"):
        parse_config(tree | {"llm": {"engine": "recorded"}})
    with pytest.raises(DasError, match=r"vllm with recording=r\.jsonl"):
        parse_config(tree | {"llm": {"recording": "r.jsonl"}})
