"""Parquet files, local or s3, read by row groups and only in the columns that are needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from das_lib.bulk.folders import open_file
from das_lib.errors import StorageError

ROWS_PER_BATCH = 1000
READ_BYTES = 2**20  # of one read; without it a column's whole row group is in memory


@contextmanager
def open_parquet(url: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, closed when the block ends.

    Raises:
        StorageError: it is missing or cannot be read.
        pyarrow.ArrowInvalid: it is no Parquet file.
    """
    with open_file(url, readahead=0) as source:
        yield pq.ParquetFile(source, buffer_size=READ_BYTES)


def plain_columns(schema: pa.Schema) -> list[str]:
    """The columns of text, numbers, booleans and times: no lists, structs or bytes.

    A name that two columns share means none of them.
    """
    names = schema.names
    return [field.name for field in schema if _is_plain(field.type) and names.count(field.name) < 2]


def plain_rows(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a row group in some of its `plain_columns`, or in a text field ``column.field``.

    Times, dates and decimals come as text.

    Raises:
        pyarrow.ArrowException: the file is broken.
        OSError: it is broken, or cannot be read.
    """
    if not columns:
        yield from ({} for _ in range(file.metadata.row_group(group).num_rows))
        return
    for batch in file.iter_batches(ROWS_PER_BATCH, row_groups=[group], columns=columns):
        values = [_plain_values(leaf(batch, column)) for column in columns]
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))


def leaf(batch: pa.RecordBatch, column: str) -> pa.Array:
    """A column, or a field ``column.field`` of a struct; null where the struct is."""
    if column in batch.schema.names:
        return batch.column(column)
    outer, _, inner = column.rpartition(".")
    struct = batch.column(outer)
    return struct.flatten()[struct.type.get_field_index(inner)]


def holds_bytes(url: str) -> bool:
    """Whether a Parquet file has `bytes_columns`; False also if it cannot be opened."""
    try:
        with open_parquet(url) as file:
            return bool(bytes_columns(file.schema_arrow))
    except (OSError, StorageError, pa.ArrowException):
        return False


def bytes_columns(schema: pa.Schema) -> list[str]:
    """Columns of bytes, and fields ``bytes`` of structs; a column ``audio`` excludes the others."""
    found = [field.name for field in schema if _is_bytes(field.type)]
    found += [f"{field.name}.bytes" for field in schema if _is_bytes(_inner(field, "bytes"))]
    if "audio" in schema.names:
        return [column for column in found if column in ("audio", "audio.bytes")]
    return found


def path_column(schema: pa.Schema, column: str) -> str | None:
    """The ``path`` of text beside the ``bytes`` that are ``column``; None: there is none."""
    name, _, field = column.rpartition(".")
    if (
        column in schema.names
        or field != "bytes"
        or not _is_text(_inner(schema.field(name), "path"))
    ):
        return None
    return f"{name}.path"


def _inner(field: pa.Field, name: str) -> pa.DataType:
    """Type of a struct's field, or null's."""
    if pa.types.is_struct(field.type) and field.type.get_field_index(name) >= 0:
        return field.type.field(name).type
    return pa.null()


def _plain_values(array: pa.Array) -> list[Any]:
    if pa.types.is_temporal(array.type) or pa.types.is_decimal(array.type):
        array = pc.cast(array, pa.string())
    return array.to_pylist()


def _is_plain(type: pa.DataType) -> bool:
    if pa.types.is_dictionary(type):
        type = type.value_type
    if _is_text(type) or pa.types.is_decimal(type):
        return True
    return pa.types.is_primitive(type) and not pa.types.is_interval(type)


def _is_text(type: pa.DataType) -> bool:
    return (
        pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type)
    )


def _is_bytes(type: pa.DataType) -> bool:
    return (
        pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type)
    )
