"""The check that a table keeps its schema, made before rows are written and after they are read.

After lhotse's ``qa.py``: a failure names the row and both values, because "invalid schema" sends
the reader back to the data with nothing to look for.
"""

# pyarrow.compute makes its functions when it is imported, so pyright sees none of them.
# pyright: reportAttributeAccessIssue=false

import pyarrow as pa
import pyarrow.compute as pc

from das_lib.errors import DasError
from schemas.fields import is_list

_REMEDY = "convert the table, or recompute the dataset with this version of the schema"


def validate(table: pa.Table, schema: pa.Schema, id_column: str | None = "id") -> None:
    """Check columns, types, nulls, unique ids and the ranges in the field metadata.

    Column order is free, and metadata of the table itself is not compared. A null in a nullable
    field has no range; NaN lies outside every range. ``id_column`` None is for a dataset whose
    rows have no id of their own: errors then give the row number alone.

    Raises:
        DasError: The first difference, with column, row id, expected and found value.
        ValueError: ``id_column`` is not in the schema.
    """
    name = (schema.metadata or {}).get(b"name", b"dataset").decode()
    if id_column is not None and id_column not in schema.names:
        raise ValueError(f"{name}: id_column {id_column!r} is not in the schema {schema.names}")
    _check_columns(table, schema, name)
    for field in schema:
        if not field.nullable:
            _check_no_null(table, field, name, id_column)
        _check_range(table, field, name, id_column)
    if id_column is not None:
        _check_unique(table.column(id_column), name, id_column)


def _check_columns(table: pa.Table, schema: pa.Schema, name: str) -> None:
    found = table.column_names
    repeated = sorted({column for column in found if found.count(column) > 1})
    missing = [column for column in schema.names if column not in found]
    extra = [column for column in found if column not in schema.names]
    for what, columns in (("repeated", repeated), ("missing", missing), ("extra", extra)):
        if columns:
            raise DasError(
                f"{name}: {what} column {', '.join(columns)}: expected {', '.join(schema.names)}, "
                f"found {', '.join(found)}; {_REMEDY}"
            )
    for field in schema:
        type_ = table.schema.field(field.name).type
        if type_ != field.type:
            raise DasError(
                f"{name}: column {field.name}: expected type {field.type}, found {type_}; {_REMEDY}"
            )


def _check_no_null(table: pa.Table, field: pa.Field, name: str, id_column: str | None) -> None:
    column = table.column(field.name)
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise DasError(
            f"{name}: column {field.name}, {_row(table, id_column, row)}: expected a value of type "
            f"{field.type}, found null"
        )


def _check_range(table: pa.Table, field: pa.Field, name: str, id_column: str | None) -> None:
    metadata = {key: value.decode() for key, value in (field.metadata or {}).items()}
    values = table.column(field.name)
    rows = None
    if is_list(field.type):
        values, rows = pc.list_flatten(values), pc.list_parent_indices(values)
    for key, words, keeps in (
        (b"min", "at least", pc.greater_equal),
        (b"max", "at most", pc.less_equal),
        (b"values", "one of", _is_one_of),
    ):
        if key not in metadata:
            continue
        bound = metadata[key] if key == b"values" else _number(metadata[key], values.type)
        at = pc.index(keeps(values, bound), False).as_py()  # nulls compare to null: not found
        if at >= 0:
            row = at if rows is None else rows[at].as_py()
            raise DasError(
                f"{name}: column {field.name}, {_row(table, id_column, row)}: expected {words} "
                f"{metadata[key]}, found {values[at].as_py()!r}"
            )


def _is_one_of(values: pa.ChunkedArray, allowed: str) -> pa.ChunkedArray:
    found = pc.is_in(values, value_set=pa.array(allowed.split(","), values.type))
    return pc.if_else(pc.is_valid(values), found, None)


def _number(text: str, type_: pa.DataType) -> pa.Scalar:
    """Read a bound; a float32 column needs it rounded the same way, or 0.1 exceeds a max of 0.1."""
    if pa.types.is_floating(type_):
        return pa.scalar(float(text), pa.float64()).cast(type_)
    return pa.scalar(float(text) if any(c in text for c in ".en") else int(text))


def _check_unique(ids: pa.ChunkedArray, name: str, id_column: str) -> None:
    counts = pc.value_counts(ids)
    at = pc.index(pc.greater(counts.field("counts"), 1), True).as_py()
    if at < 0:
        return
    twice = counts.field("values")[at]
    rows = [row.as_py() for row in pc.indices_nonzero(pc.equal(ids, twice))]
    raise DasError(
        f"{name}: column {id_column}, id {twice.as_py()!r}: expected each id once, found it "
        f"{len(rows)} times, first in rows {rows[0]} and {rows[1]}"
    )


def _row(table: pa.Table, id_column: str | None, row: int) -> str:
    return f"row {row}" + ("" if id_column is None else f" (id {table[id_column][row].as_py()!r})")
