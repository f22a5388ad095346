"""CodecLM's way from seed instructions to texts, as prompts and parsers (paper section III-A).

The LLM first encodes a seed as metadata (keywords made on the fly) and decodes the metadata into a
tailored instruction, in one reply; then it writes texts for each instruction. Worked examples in
two other domains precede each prompt and a pattern binds the reply's form, so that a model of 135
million parameters answers in form too; prompts differ in the example sentences, so that such a
model's sentences begin in many ways. Parsers are total: any string becomes rows or a Reject.
"""

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template
from typing import Any

import pyarrow as pa

from das_lib.config.tree import Domain, Text
from das_lib.errors import Reject
from das_lib.ids import content_hash, row_id
from das_lib.text.catalogues import Catalogue, entities_of

Message = dict[str, str]

PROMPT_FILES = ("examples.json", "instruction.txt", "improve.txt", "judge.txt", "texts.txt")
MAX_EXAMPLE_TEXTS = 8
EXAMPLE_VARIANTS = 4  # few, for the engine computes what many prompts begin with once
MAX_MENTIONED = 3  # keywords in one prompt; more of them make a small model recite them
NUM_KEYWORDS = (4, 6)
MAX_KEYWORD_CHARACTERS = 60
MAX_INSTRUCTION_CHARACTERS = 1000
_WORD = r"[A-Za-z0-9À-ɏ$€£&][A-Za-z0-9À-ɏ'’&%°-]{0,19}([:.][0-9]{1,3})?"

PROMPTS = pa.schema(
    [
        ("id", pa.string()),
        ("domain", pa.string()),
        ("use_case", pa.string()),
        ("skills", pa.list_(pa.string())),
        ("persona", pa.string()),
        ("instruction", pa.string()),
        ("entities", pa.list_(pa.string())),
    ]
)
"""Rows of call 1: a seed instruction with some of its skills; ``instruction`` is the seed's."""


def seed_rows(
    domain: Domain,
    count_per_seed: int,
    seed: int,
    *,
    number: int = 0,
    catalogues: Sequence[Catalogue] = (),
) -> pa.Table:
    """Rows of PROMPTS: ``count_per_seed`` variants of each of the domain's seeds.

    Variant n of a seed draws on a sample of the seed's skills, at least half of them, in random
    order. Ids depend on the domain, the seed instruction, n and ``seed``; the round ``number`` has
    the variants that follow those of the rounds before it.
    """
    rows = []
    first = number * count_per_seed
    for place, given in enumerate(domain.seeds):
        content = given.model_dump_json()
        for variant in range(first, first + count_per_seed):
            identity = row_id(domain.name, content, str(variant), str(seed))
            draw = random.Random(identity)
            size = draw.randint((len(given.skills) + 1) // 2, len(given.skills))
            rows.append(
                {
                    "id": identity,
                    "domain": domain.name,
                    "use_case": given.use_case,
                    "skills": draw.sample(given.skills, size),
                    "persona": given.persona,
                    "instruction": given.instruction,
                    "entities": entities_of(catalogues, variant * len(domain.seeds) + place, seed),
                }
            )
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def instruction_messages(row: Mapping[str, Any]) -> list[Message]:
    """Chat of call 1 for a row of PROMPTS."""
    turns = [
        (
            _seed_prompt(example),
            {"keywords": example["keywords"], "instruction": example["tailored"]},
        )
        for example in examples()
    ]
    return chat_of(turns, _seed_prompt(row))


def text_messages(row: Mapping[str, Any], texts_per_reply: int) -> list[Message]:
    """Chat of call 2 for a row of INSTRUCTIONS."""
    draw = random.Random(int(row["id"][:8], 16) % EXAMPLE_VARIANTS)
    turns = []
    for example in draw.sample(examples(), len(examples())):
        shown = draw.sample(example["texts"], min(MAX_EXAMPLE_TEXTS, texts_per_reply))
        tailored = example | {"instruction": _tailored(example, example["tailored"])}
        turns.append((_texts_prompt(tailored, len(shown)), shown))
    return chat_of(turns, _texts_prompt(row, texts_per_reply))


def example_texts() -> list[str]:
    """All sentences of the worked examples: a small model may recite them."""
    return [text for example in examples() for text in example["texts"]]


def instruction_pattern() -> str:
    """Regular expression that binds the reply of call 1."""
    keyword = rf'"{_WORD}( {_WORD}){{0,2}}"'
    few, many = (count - 1 for count in NUM_KEYWORDS)
    return (
        rf'\{{"keywords": \[{keyword}(, {keyword}){{{few},{many}}}\], '
        rf'"instruction": "{sentence_pattern(3, 24)}"\}}'
    )


def sentence_pattern(least: int, most: int) -> str:
    """Regular expression of a sentence with so many words between its first and its last."""
    return rf"{_WORD}( {_WORD},?){{{least},{most}}} {_WORD}\."


def texts_pattern(texts_per_reply: int, text: Text) -> str:
    """Regular expression that binds the reply of call 2.

    It lets one word more pass than a text may have: a sentence that the pattern had to cut is then
    rejected as too long.
    """
    least, most = max(0, text.min_words - 2), max(0, text.max_words - 1)
    sentence = rf'"{_WORD},?( {_WORD},?){{{least},{most}}} {_WORD}[.?!]"'
    return rf"\[{sentence}(, {sentence}){{{texts_per_reply - 1}}}\]"


def parse_instruction(row: Mapping[str, Any], reply: str) -> dict[str, Any] | Reject:
    """Row of INSTRUCTIONS from the reply to a row of PROMPTS.

    The tailored instruction is the seed's, sharpened by the LLM's: the seed's keeps a small model
    on its subject. The reply is a JSON object, or lines ``Keywords: a, b`` and
    ``Instruction: ...``. Reasons: ``no-keywords``, ``no-instruction``.
    """
    found = json_value(reply, "{")
    if not isinstance(found, dict):
        pairs = re.findall(r"^\W*(keywords|instruction)\W*:\s*(.+)$", reply, re.I | re.M)
        found = {name.lower(): value for name, value in pairs}
    keywords, instruction = found.get("keywords"), found.get("instruction")
    if isinstance(keywords, str):
        keywords = keywords.split(",")
    if not isinstance(keywords, list):
        return Reject(row["id"], "no-keywords", reply[:200])
    cleaned = [clean(word) for word in keywords if isinstance(word, str)]
    usable = dict.fromkeys(w for w in cleaned if 0 < len(w) <= MAX_KEYWORD_CHARACTERS)
    if not usable:
        return Reject(row["id"], "no-keywords", reply[:200])
    if not isinstance(instruction, str) or not 0 < len(clean(instruction)) <= (
        MAX_INSTRUCTION_CHARACTERS
    ):
        return Reject(row["id"], "no-instruction", reply[:200])
    kept = {name: row[name] for name in ("id", "domain", "use_case", "skills", "persona")}
    tailored = _tailored(row, clean(instruction))
    # Entities first: of the keywords, a prompt mentions the first few.
    named = dict.fromkeys([*row["entities"], *usable])
    return kept | {"keywords": list(named), "instruction": tailored}


def parse_texts(reply_id: str, reply: str) -> list[str] | Reject:
    """Texts in a reply, in its order, or a Reject with reason ``no-list``.

    A JSON list (also within prose, in an object, or cut off: then the whole strings in it), a
    numbered list, or bulleted lines. Elements that are no strings are kept as JSON, for the filters
    to reject and count.
    """
    found = json_value(reply, "[")
    if not isinstance(found, list):
        start = reply.find('["')
        found = re.findall(r'"((?:[^"\\]|\\.)*)"', reply[start:]) if start >= 0 else []
    if not found:
        found = re.findall(r"^\s*(?:\d+\s*[.):]|[-*•])\s+(.+)$", reply, re.M)
    texts = [t if isinstance(t, str) else json.dumps(t, ensure_ascii=False) for t in found]
    texts = [t for t in map(clean, texts) if t]
    return texts or Reject(reply_id, "no-list", reply[:200])


def json_value(reply: str, opening: str) -> Any:
    """First JSON value in ``reply`` that begins with ``opening``; None if there is none."""
    start = reply.find(opening)
    if start < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(reply, start)[0]
    except (ValueError, RecursionError):
        return None


def clean(text: str) -> str:
    """One line, without surrounding quotes or a label such as ``Question 3:``."""
    text = " ".join(text.split()).strip("\"'“” ")
    return re.sub(r"^(?:q|question|sentence|text)\s*\d*\s*:\s*", "", text, flags=re.I)


def _tailored(row: Mapping[str, Any], instruction: str) -> str:
    return f"{row['instruction'].strip()} {instruction}"


def chat_of(turns: Iterable[tuple[str, Any]], prompt: str) -> list[Message]:
    """Worked examples, each a prompt and its reply as JSON, then the prompt to answer."""
    chat: list[Message] = []
    for asked, reply in turns:
        content = json.dumps(reply, ensure_ascii=False)
        chat += [{"role": "user", "content": asked}, {"role": "assistant", "content": content}]
    return [*chat, {"role": "user", "content": prompt}]


def examples() -> list[dict[str, Any]]:
    """Worked examples in domains that nobody asked for."""
    return json.loads(prompt_file("examples.json"))


def _seed_prompt(row: Mapping[str, Any]) -> str:
    return Template(prompt_file("instruction.txt")).substitute(
        use_case=row["use_case"],
        skills=", ".join(row["skills"]),
        persona=row["persona"],
        instruction=row["instruction"],
    )


def _texts_prompt(row: Mapping[str, Any], count: int) -> str:
    return Template(prompt_file("texts.txt")).substitute(
        instruction=row["instruction"],
        skills=", ".join(row["skills"]),
        persona=row["persona"],
        keywords=", ".join(row["keywords"][:MAX_MENTIONED]),
        count=count,
    )


def prompts_fingerprint() -> str:
    """Hash of the prompt files: other prompts make other texts."""
    return content_hash({name: prompt_file(name) for name in PROMPT_FILES})


@cache
def prompt_file(name: str) -> str:
    """A file of ``prompts/``."""
    return resources.files("das_lib.text").joinpath(f"prompts/{name}").read_text("utf-8")
