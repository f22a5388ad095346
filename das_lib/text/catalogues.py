"""Entity catalogues: names that a domain's texts must mention, spread evenly over the prompts."""

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from das_lib.config.tree import Domain
from das_lib.errors import DasError, Reject
from das_lib.storage import read_file
from das_lib.text.filters import normal_form

MAX_ENTITY_CHARACTERS = 60
PER_PROMPT = 2  # more names in one prompt make a small model recite them


@dataclass(frozen=True)
class Catalogue:
    """Entities of one kind, once each, in the order of the file."""

    kind: str
    entities: list[str]
    rejects: list[Reject] = field(default_factory=list)
    """Lines that are no entity: ``not-utf8``, ``no-name``, ``too-long``, ``duplicate``."""

    def draw(self, number: int, seed: int) -> str:
        """The entity of draw ``number``: each once, in random order, before any comes again."""
        cycle, place = divmod(number, len(self.entities))
        order = list(range(len(self.entities)))
        random.Random(f"{seed} {self.kind} {cycle}").shuffle(order)
        return self.entities[order[place]]


def read_catalogue(kind: str, path: str) -> Catalogue:
    """Read a TXT file with an entity a line, or the column ``kind`` of a CSV file.

    Raises:
        DasError: the file is missing, of another format, lacks the column, or holds no entity.
    """
    lines = read_file(path).split(b"\n")
    if path.lower().endswith(".csv"):
        lines = _column(lines, kind, path)
    elif not path.lower().endswith(".txt"):
        raise DasError(f"catalogues.{kind}={path}: unknown format; name the file *.txt or *.csv")
    found: dict[str, str] = {}
    rejects: list[Reject] = []
    for number, line in enumerate(lines, 1):
        try:
            entity = " ".join(line.decode("utf-8-sig").split())
        except UnicodeDecodeError:
            rejects.append(Reject(f"{kind}:{number}", "not-utf8", repr(line[:60])))
            continue
        form = normal_form(entity)
        if not entity:
            continue
        if not form:
            rejects.append(Reject(f"{kind}:{number}", "no-name", entity[:60]))
        elif len(entity) > MAX_ENTITY_CHARACTERS:
            rejects.append(Reject(f"{kind}:{number}", "too-long", entity[:60]))
        elif form in found:
            rejects.append(Reject(f"{kind}:{number}", "duplicate", entity))
        else:
            found[form] = entity
    if not found:
        raise DasError(
            f"catalogues.{kind}={path} holds no name ({len(rejects)} lines rejected); give a file "
            "with one name a line, in UTF-8"
        )
    return Catalogue(kind, list(found.values()), rejects)


def read_catalogues(domain: Domain) -> list[Catalogue]:
    """All catalogues of a domain, in the order of their kinds.

    Raises:
        DasError: see `read_catalogue`.
    """
    return [read_catalogue(kind, path) for kind, path in sorted(domain.catalogues.items())]


def entities_of(catalogues: Sequence[Catalogue], number: int, seed: int) -> list[str]:
    """Entities that prompt ``number`` mentions: one each of `PER_PROMPT` catalogues, in turn."""
    count = len(catalogues)
    if count <= PER_PROMPT:
        return [catalogue.draw(number, seed) for catalogue in catalogues]
    draws = range(number * PER_PROMPT, (number + 1) * PER_PROMPT)
    return [catalogues[draw % count].draw(draw // count, seed) for draw in draws]


def _column(lines: list[bytes], kind: str, path: str) -> list[bytes]:
    """The cells of a CSV file's column; latin-1 keeps odd bytes as they are."""
    text = b"\n".join(lines).removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [
        name.encode("latin-1").decode("utf-8", "replace") for name in reader.fieldnames or ()
    ]
    if kind not in columns:
        raise DasError(
            f"catalogues.{kind}={path} has the columns {', '.join(map(repr, columns)) or 'none'}; "
            f"name the one with the entities {kind!r}"
        )
    index = columns.index(kind)
    name = list(reader.fieldnames or ())[index]
    return [(row[name] or "").encode("latin-1") for row in reader]
