"""CodecLM's Self-Rubrics: the LLM improves an instruction by a rubric and an action of its own.

One reply has all three (in Wang et al. 2024 they are calls of their own): a rubric
that good texts meet, an action that brings the task nearer to it, and what it adds to the task.
"""

from collections.abc import Mapping
from string import Template
from typing import Any

from das_lib.errors import Reject
from das_lib.text.codec import (
    MAX_INSTRUCTION_CHARACTERS,
    MAX_MENTIONED,
    Message,
    chat_of,
    clean,
    examples,
    json_value,
    prompt_file,
    sentence_pattern,
)

FIELDS = ("rubric", "action", "instruction")


def improve_messages(row: Mapping[str, Any]) -> list[Message]:
    """Chat for a row of INSTRUCTIONS."""
    turns = []
    for example in examples():
        shown = example | {"instruction": f"{example['instruction']} {example['tailored']}"}
        reply = {name: example["improved"][name] for name in FIELDS}
        turns.append((_prompt(shown), reply))
    return chat_of(turns, _prompt(row))


def improve_pattern() -> str:
    """Regular expression that binds the reply."""
    fields = ", ".join(f'"{name}": "{sentence_pattern(3, 24)}"' for name in FIELDS)
    return rf"\{{{fields}\}}"


def parse_improved(row: Mapping[str, Any], reply: str) -> dict[str, Any] | Reject:
    """Row of IMPROVED from the reply to a row of INSTRUCTIONS: what the action adds comes behind.

    Reasons: ``no-rubric`` (or no action), ``no-instruction`` (or one that has grown too long).
    """
    found = json_value(reply, "{")
    texts = {name: "" for name in FIELDS}
    if isinstance(found, dict):
        texts |= {name: clean(v) for name in FIELDS if isinstance(v := found.get(name), str)}
    if not texts["rubric"] or not texts["action"]:
        return Reject(row["id"], "no-rubric", reply[:200])
    better = f"{row['instruction']} {texts['instruction']}"
    if not texts["instruction"] or len(better) > MAX_INSTRUCTION_CHARACTERS:
        return Reject(row["id"], "no-instruction", reply[:200])
    return {**row, "instruction": better, "rubric": texts["rubric"], "action": texts["action"]}


def _prompt(row: Mapping[str, Any]) -> str:
    return Template(prompt_file("improve.txt")).substitute(
        skills=", ".join(row["skills"]),
        persona=row["persona"],
        keywords=", ".join(row["keywords"][:MAX_MENTIONED]),
        instruction=row["instruction"],
    )
