"""Rows of a user's file: JSONL, CSV, Parquet or TXT, local or ``s3://``."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from das_lib.errors import DasError, Reject
from das_lib.storage import read_file

FORMATS = (".jsonl", ".csv", ".parquet", ".txt")

Row = Mapping[str, Any]


def read_rows(
    path: str, setting: str, columns: Sequence[str]
) -> Iterator[tuple[int, Row | Reject]]:
    """(line or row from 1, its columns, or a Reject where a line of JSONL is no object).

    A line of TXT has the first of ``columns``; blank lines are no rows.

    Args:
        path: The file.
        setting: What names it in the configuration, for messages.
        columns: Of these, every row must have one.

    Raises:
        DasError: the file is missing, broken, of another format, or has none of ``columns``.
    """
    try:
        for number, row in _rows(path, setting, columns):
            if not isinstance(row, Reject) and not any(name in row for name in columns):
                raise _wrong_column(f"{setting}={path}, line {number}", row, columns)
            yield number, row
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise DasError(
            f"{setting}={path} cannot be read: {error}; give a whole file in UTF-8, or a Parquet "
            "file"
        ) from error


def _rows(path: str, setting: str, columns: Sequence[str]) -> Iterator[tuple[int, Row | Reject]]:
    suffix = next((s for s in FORMATS if path.lower().endswith(s)), None)
    content = read_file(path)
    if suffix == ".txt":
        for number, line in enumerate(content.decode("utf-8-sig").splitlines(), 1):
            if line.strip():
                yield number, {columns[0]: line}
    elif suffix == ".jsonl":
        for number, line in enumerate(content.decode("utf-8-sig").split("\n"), 1):
            if line.strip():
                yield number, _json_object(line)
    elif suffix == ".csv":
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = reader.fieldnames or ()
        if content.strip() and not set(columns) & set(header):
            raise _wrong_column(f"{setting}={path}", header, columns)
        for row in reader:
            yield reader.line_num, row
    elif suffix == ".parquet":
        yield from enumerate(pq.read_table(pa.BufferReader(content)).to_pylist(), 1)
    else:
        raise DasError(f"{setting}={path}: unknown format; name the file *{', *'.join(FORMATS)}")


def _json_object(line: str) -> Row | Reject:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else Reject("", "no-json", line[:200])


def _wrong_column(where: str, found: Any, wanted: Sequence[str]) -> DasError:
    return DasError(
        f"{where} has the columns {', '.join(map(repr, found)) or 'none'}; "
        f"name the one to read {' or '.join(map(repr, wanted))}"
    )
