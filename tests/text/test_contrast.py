"""Two models' replies: what is asked, what is read, what is kept."""

import pyarrow as pa
import pytest

from das_lib.errors import Reject
from das_lib.text.contrast import (
    PAIRS,
    judge_messages,
    judge_pattern,
    kept_ids,
    pairs,
    parse_judgement,
)
from schemas.text import INSTRUCTIONS, JUDGEMENTS
from schemas.validate import validate

IDS = ["aa", "bb", "cc", "dd"]


def rows() -> list[dict]:
    instructions = [
        {
            "id": i,
            "domain": "music",
            "use_case": "u",
            "skills": ["singer"],
            "persona": "teenager",
            "keywords": ["jazz"],
            "instruction": f"Ask {i}.",
        }
        for i in IDS
    ]
    strong = pa.table({"id": IDS, "reply": [f"strong {i}" for i in IDS]})
    target = pa.table({"id": IDS[:3], "reply": [f"target {i}" for i in IDS[:3]]})
    made = pairs(pa.Table.from_pylist(instructions, schema=INSTRUCTIONS), strong, target)
    assert made.schema == PAIRS
    return made.to_pylist()


def test_only_what_both_models_replied_to_is_judged():
    assert [(row["strong"], row["target"]) for row in rows()] == [
        (f"strong {i}", f"target {i}") for i in IDS[:3]
    ]


def test_the_place_of_a_reply_in_the_prompt_does_not_tell_whose_it_is_and_scores_find_back():
    firsts = []
    for row in [row | {"id": f"{row['id']}{n}"} for row in rows() for n in range(20)]:
        prompt = judge_messages(row)[-1]["content"]
        strong_first = prompt.index(row["strong"]) < prompt.index(row["target"])
        firsts.append(strong_first)
        made = parse_judgement(row, '{"first": 8, "second": 3}')
        assert isinstance(made, dict)
        better, worse = ("strong", "target") if strong_first else ("target", "strong")
        assert (made[f"{better}_score"], made[f"{worse}_score"]) == (8, 3)
        validate(pa.Table.from_pylist([made], schema=JUDGEMENTS), JUDGEMENTS)
    assert 15 < sum(firsts) < 45


@pytest.mark.parametrize(
    "reply",
    ["", "8 and 3", '{"first": 8}', '{"first": 80, "second": 3}', '{"first": "a", "second": 1}'],
)
def test_a_reply_without_two_scores_is_rejected(reply):
    made = parse_judgement(rows()[0], reply)
    assert isinstance(made, Reject)
    assert made.reason == "no-scores"


def test_the_largest_leads_are_kept():
    leads = {"aa": 1, "bb": -4, "cc": 6, "dd": 2}
    table = pa.Table.from_pylist(
        [
            {"id": i, "domain": "music", "strong_score": 4.0 + lead, "target_score": 4.0}
            for i, lead in leads.items()
        ],
        schema=JUDGEMENTS,
    )
    assert kept_ids([table.slice(0, 2), table.slice(2)], 0.5) == {"cc", "dd"}
    assert kept_ids([table], 1) == set(leads)


def test_the_pattern_binds_what_the_parser_reads():
    import re

    assert re.fullmatch(judge_pattern(), '{"first": 8, "second": 3}')
    assert not re.fullmatch(judge_pattern(), '{"first": 12, "second": 3}')
