"""CodecLM's contrastive filtering: the instructions on which two models differ most.

A strong model and a target model write texts for the same instruction, and the strong one scores
both replies (Wang et al. 2024, section 3.3). Where the target does as well, there is little to
learn; the texts kept are the strong model's where its lead is largest.
"""

from collections.abc import Iterable, Mapping
from string import Template
from typing import Any

import pyarrow as pa

from das_lib.errors import Reject
from das_lib.ids import row_id
from das_lib.text.codec import Message, chat_of, examples, json_value, prompt_file

PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("domain", pa.string()),
        ("skills", pa.list_(pa.string())),
        ("persona", pa.string()),
        ("instruction", pa.string()),
        ("strong", pa.string()),
        ("target", pa.string()),
    ]
)
"""Rows that are judged: an instruction and what both models replied."""
MAX_SHOWN = 600  # characters of a reply; two of them must fit into a small model's context


def pairs(instructions: pa.Table, strong: pa.Table, target: pa.Table) -> pa.Table:
    """Rows of PAIRS for the instructions that both models replied to."""
    replies = [
        dict(zip(t["id"].to_pylist(), t["reply"].to_pylist(), strict=True))
        for t in (strong, target)
    ]
    rows = [
        {
            **{name: row[name] for name in ("id", "domain", "skills", "persona", "instruction")},
            "strong": replies[0][row["id"]],
            "target": replies[1][row["id"]],
        }
        for row in instructions.to_pylist()
        if row["id"] in replies[0] and row["id"] in replies[1]
    ]
    return pa.Table.from_pylist(rows, schema=PAIRS)


def judge_messages(row: Mapping[str, Any]) -> list[Message]:
    """Chat for a row of PAIRS.

    Which reply comes first follows from the id: models favour a place.
    """
    turns = []
    for number, example in enumerate(examples()):
        task = f"{example['instruction']} {example['tailored']}"
        good, poor = str(example["texts"][:4]), str(example["texts"][:1] * 4)
        shown, scores = ((good, poor), (8, 2)) if number % 2 else ((poor, good), (2, 8))
        asked = _prompt(example | {"instruction": task}, *shown)
        turns.append((asked, dict(zip(("first", "second"), scores, strict=True))))
    given = (row["strong"], row["target"])
    return chat_of(turns, _prompt(row, *(given if _strong_first(row) else given[::-1])))


def judge_pattern() -> str:
    """Regular expression that binds the reply."""
    return r'\{"first": [1-9], "second": [1-9]\}'


def parse_judgement(row: Mapping[str, Any], reply: str) -> dict[str, Any] | Reject:
    """Row of JUDGEMENTS from the reply to a row of PAIRS, or a Reject with ``no-scores``."""
    found = json_value(reply, "{")
    given = [found.get(n) for n in ("first", "second")] if isinstance(found, dict) else []
    scores = [s for s in given if isinstance(s, int | float) and 0 <= s <= 10]
    if len(scores) != 2:
        return Reject(row["id"], "no-scores", reply[:200])
    strong, target = scores if _strong_first(row) else scores[::-1]
    return {
        "id": row["id"],
        "domain": row["domain"],
        "strong_score": strong,
        "target_score": target,
    }


def kept_ids(judgements: Iterable[pa.Table], keep: float) -> set[str]:
    """Ids of the part ``keep`` of the judged instructions with the strong model's largest lead."""
    rows = [row for table in judgements for row in table.to_pylist()]
    rows.sort(key=lambda row: (row["target_score"] - row["strong_score"], row["id"]))
    return {row["id"] for row in rows[: round(keep * len(rows))]}


def _strong_first(row: Mapping[str, Any]) -> bool:
    return int(row_id("judge", row["id"]), 16) % 2 == 0


def _prompt(row: Mapping[str, Any], first: str, second: str) -> str:
    return Template(prompt_file("judge.txt")).substitute(
        skills=", ".join(row["skills"]),
        persona=row["persona"],
        instruction=row["instruction"],
        first=first[:MAX_SHOWN],
        second=second[:MAX_SHOWN],
    )
