"""A domain's own instructions in the place of those that the LLM writes from seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from das_lib.config.tree import Domain
from das_lib.errors import DasError, Reject
from das_lib.ids import row_id
from das_lib.rows import Outcome
from das_lib.text.catalogues import Catalogue, entities_of
from das_lib.text.codec import MAX_INSTRUCTION_CHARACTERS
from das_lib.text.files import read_rows
from schemas.text import INSTRUCTIONS

USE_CASE, PERSONA = "question generation", "somebody"


def read_own_instructions(
    domain: Domain, seed: int, *, number: int = 0, catalogues: Sequence[Catalogue] = ()
) -> Outcome:
    """Rows of INSTRUCTIONS for those of ``domain.instructions``, once each.

    Column ``instruction`` must be there; ``use_case``, ``skills``, ``persona`` and ``keywords`` are
    taken where they are (lists, or words between commas), so that an edited dataset of instructions
    can be given back. Ids also depend on the round ``number``: what the LLM writes differs.

    Rejected are lines of JSONL that are no object (``no-json``) and instructions that are missing
    (``no-instruction``), longer than 1000 characters (``too-long``) or there twice (``duplicate``).

    Raises:
        DasError: the file is missing, broken, of another format, lacks the column, or has no
            usable instruction.
    """
    path = str(domain.instructions)
    name = path.rsplit("/", 1)[-1]
    rows: dict[str, dict[str, Any]] = {}
    rejects: list[Reject] = []
    setting = f"domain {domain.name!r}: instructions"
    for place, given in read_rows(path, setting, ("instruction",)):
        source = f"{name}:{place}"
        if isinstance(given, Reject):
            rejects.append(Reject(source, given.reason, given.detail))
            continue
        row = _row(domain, given)
        instruction = row["instruction"]
        identity = row_id(domain.name, instruction, str(number), str(seed))
        if not instruction:
            rejects.append(Reject(source, "no-instruction", repr(given["instruction"])[:200]))
        elif len(instruction) > MAX_INSTRUCTION_CHARACTERS:
            rejects.append(Reject(source, "too-long", instruction[:200]))
        elif identity in rows:
            rejects.append(Reject(source, "duplicate", instruction[:200]))
        else:
            rows[identity] = {"id": identity, **row}
    if not rows:
        raise DasError(
            f"{setting}={path} holds no usable instruction ({len(rejects)} rejected); give a file "
            "with some in the column 'instruction'"
        )
    for draw, row in enumerate(rows.values(), number * len(rows)):
        named = dict.fromkeys([*entities_of(catalogues, draw, seed), *row["keywords"]])
        row["keywords"] = list(named)
    return Outcome(pa.Table.from_pylist(list(rows.values()), schema=INSTRUCTIONS), rejects)


def _row(domain: Domain, given: Mapping[str, Any]) -> dict[str, Any]:
    def text(name: str, otherwise: str = "") -> str:
        value = given.get(name)
        return " ".join(value.split()) if isinstance(value, str) and value.strip() else otherwise

    keywords = _words(given.get("keywords"))
    return {
        "domain": domain.name,
        "use_case": text("use_case", USE_CASE),
        "skills": _words(given.get("skills")) or keywords or [domain.name],
        "persona": text("persona", PERSONA),
        "keywords": keywords or [domain.name],
        "instruction": text("instruction"),
    }


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.split(",")
    found = [" ".join(word.split()) for word in value or () if isinstance(word, str)]
    return [word for word in dict.fromkeys(found) if word]
