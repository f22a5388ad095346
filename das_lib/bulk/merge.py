"""All transcripts of an output in one file, on demand sorted, and beside the input's columns."""

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

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
    tables = _tables(recordings, transcripts, join)
    if sort:
        tables = iter([pa.concat_tables(tables).sort_by("id")])
    buffer, count = io.BytesIO(), 0
    writer = None
    for table in tables:
        count += table.num_rows
        if file.endswith(".parquet"):
            writer = writer or pq.ParquetWriter(buffer, table.schema, compression="zstd")
            writer.write_table(table)
        else:
            for row in table.to_pylist():
                buffer.write(_line(row).encode("utf-8", "replace"))
    if writer is not None:
        writer.close()
    parent, _, name = file.rpartition("/")
    Folder(parent or ".").write(name, buffer.getvalue())
    return count


def _tables(recordings: Dataset, transcripts: Dataset, join: bool) -> Iterator[pa.Table]:
    """A block at a time; blocks of both datasets have the same names."""
    for name in transcripts.data.names(".parquet"):
        table = open_parquet(transcripts.data.path(name)).read()
        if join:
            listed = open_parquet(recordings.data.path(name)).read(["id", "extra"])
            extra = dict(zip(listed["id"].to_pylist(), listed["extra"].to_pylist(), strict=True))
            column = pa.array([extra.get(id) for id in table["id"].to_pylist()], pa.string())
            table = table.append_column(INPUT, column)
        yield table.replace_schema_metadata(None)


def _line(row: Mapping[str, Any]) -> str:
    more = {INPUT: json.loads(row[INPUT] or "{}")} if INPUT in row else {}
    return jsonl(from_row(row), **more)
