"""All transcripts of an output in one file, on demand sorted, and beside the input's columns."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from das_lib.bulk.json_forms import jsonl
from das_lib.bulk.rows import from_row
from das_lib.dataset import Dataset, open_parquet
from das_lib.errors import DasError
from das_lib.storage import Folder

FORMS = (".parquet", ".jsonl")
INPUT = "input"
"""Column (Parquet: JSON; JSONL: an object) of what the manifest said beside where the audio is."""


def merge(recordings: Dataset, transcripts: Dataset, file: str, *, sort: bool, join: bool) -> int:
    """Write one file, whole or not at all; how many transcripts it has.

    Args:
        recordings: What was listed.
        transcripts: What was heard.
        file: Its name ends in one of `FORMS`.
        sort: By id; all transcripts are then in memory at once.
        join: With the column `INPUT`.

    Raises:
        DasError: the name has another ending.
        StorageError: the file cannot be written.
    """
    if not file.endswith(FORMS):
        raise DasError(f"--merge: {file!r} must end in {' or '.join(FORMS)}")
    schema = pa.schema(list(transcripts.schema))
    if join:
        schema = schema.append(pa.field(INPUT, pa.string()))
    tables: Iterable[pa.Table] = _tables(recordings, transcripts, schema)
    if sort:
        tables = [pa.concat_tables([schema.empty_table(), *tables]).sort_by("id")]
    write = _parquet if file.endswith(".parquet") else _jsonl
    parent, _, name = file.rpartition("/")
    with Folder(parent or ".").writing(name) as out:
        return write(out, tables, schema)


def _parquet(out: BinaryIO, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    count = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            count += table.num_rows
    return count


def _jsonl(out: BinaryIO, tables: Iterable[pa.Table], _schema: pa.Schema) -> int:
    count = 0
    for table in tables:
        for row in table.to_pylist():
            out.write(_line(row).encode("utf-8", "replace"))
            count += 1
    return count


def _tables(recordings: Dataset, transcripts: Dataset, schema: pa.Schema) -> Iterator[pa.Table]:
    """A block at a time; blocks of both datasets have the same names."""
    for name in transcripts.data.names(".parquet"):
        table = open_parquet(transcripts.data.path(name)).read()
        if INPUT in schema.names:
            listed = open_parquet(recordings.data.path(name)).read(["id", "extra"])
            extra = dict(zip(listed["id"].to_pylist(), listed["extra"].to_pylist(), strict=True))
            column = pa.array([extra.get(id) for id in table["id"].to_pylist()], pa.string())
            table = table.append_column(INPUT, column)
        yield pa.Table.from_arrays(table.columns, schema=schema)


def _line(row: Mapping[str, Any]) -> str:
    more = {INPUT: json.loads(row[INPUT] or "{}")} if INPUT in row else {}
    return jsonl(from_row(row), **more)
