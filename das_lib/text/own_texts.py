"""A domain's own texts instead of the LLM's: JSONL, CSV, Parquet or TXT, local or ``s3://``."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from das_lib.config.tree import Domain, Text
from das_lib.errors import DasError, Reject
from das_lib.rows import Outcome
from das_lib.storage import read_file
from das_lib.text.select import Candidate, Selection

FORMATS = (".jsonl", ".csv", ".parquet", ".txt")
COLUMN, LIST_COLUMN = "text", "texts"


def read_own_texts(path: str, domain: Domain, text: Text, language: str | None) -> Outcome:
    """Rows of TEXTS for the texts of a file that pass the filters, once each, as many as wanted.

    The texts are column ``text``; in JSONL and Parquet also column ``texts``, lists of texts; in
    TXT, lines. Rejected with ``no-json`` are lines of JSONL that are no object, with ``no-text``
    entries that are no string.

    Raises:
        DasError: the file is missing, empty, of another format, or lacks the column; too few texts
            pass for ``domain.held_out``.
    """
    name = path.rsplit("/", 1)[-1]
    candidates: list[Candidate] = []
    rejects: list[Reject] = []
    try:
        for number, entry in _entries(path):
            source = f"{name}:{number}"
            values = entry if isinstance(entry, list) else [entry]
            for n, value in enumerate(values):
                identity = f"{source}:{n}" if isinstance(entry, list) else source
                if isinstance(value, Reject):
                    rejects.append(Reject(identity, value.reason, value.detail))
                elif isinstance(value, str) and value.strip():
                    candidates.append(Candidate(identity, " ".join(value.split()), source))
                else:
                    rejects.append(Reject(identity, "no-text", repr(value)[:200]))
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise DasError(
            f"domain {domain.name!r}: texts={path} cannot be read: {error}; give a whole file in "
            "UTF-8, or a Parquet file"
        ) from error
    if not candidates and not rejects:
        raise DasError(f"domain {domain.name!r}: texts={path} holds no text; give a file with some")
    selection = Selection(domain, text, language)
    selection.offer(candidates)
    outcome = selection.outcome()
    return Outcome(outcome.rows, rejects + outcome.rejects)


def _entries(path: str) -> Iterator[tuple[int, Any]]:
    """(line or row from 1, text or list of texts or Reject)."""
    suffix = next((s for s in FORMATS if path.lower().endswith(s)), None)
    content = read_file(path)
    if suffix == ".txt":
        for number, line in enumerate(content.decode("utf-8-sig").splitlines(), 1):
            if line.strip():
                yield number, line
    elif suffix == ".jsonl":
        for number, line in enumerate(content.decode("utf-8-sig").split("\n"), 1):
            if line.strip():
                yield number, _json_entry(path, number, line)
    elif suffix == ".csv":
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        if content.strip() and COLUMN not in (reader.fieldnames or ()):
            raise _wrong_column(path, reader.fieldnames or (), (COLUMN,))
        for row in reader:
            yield reader.line_num, row[COLUMN]
    elif suffix == ".parquet":
        table = pq.read_table(pa.BufferReader(content))
        found = next((c for c in (COLUMN, LIST_COLUMN) if c in table.column_names), None)
        if found is None:
            raise _wrong_column(path, table.column_names, (COLUMN, LIST_COLUMN))
        yield from enumerate(table[found].to_pylist(), 1)
    else:
        raise DasError(f"texts={path}: unknown format; name the file *{', *'.join(FORMATS)}")


def _json_entry(path: str, number: int, line: str) -> Any:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return Reject("", "no-json", line[:200])
    found = next((c for c in (COLUMN, LIST_COLUMN) if c in value), None)
    if found is None:
        raise _wrong_column(f"{path}, line {number}", list(value), (COLUMN, LIST_COLUMN))
    return value[found]


def _wrong_column(path: str, found: Any, wanted: tuple[str, ...]) -> DasError:
    return DasError(
        f"texts={path} has the columns {', '.join(map(repr, found)) or 'none'}; "
        f"name the one with the texts {' or '.join(map(repr, wanted))}"
    )
