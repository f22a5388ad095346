"""How a dataset's Arrow schema is written down: fields with a doc line, a unit and a range.

The metadata travels inside the Parquet file, so a reader without this package still sees what a
column means. ``schemas.validate`` reads the same metadata back to check the rows.
"""

from collections.abc import Sequence

import pyarrow as pa


def field(
    name: str,
    type: pa.DataType,
    doc: str,
    *,
    unit: str | None = None,
    nullable: bool = False,
    min: float | None = None,
    max: float | None = None,
    values: Sequence[str] | None = None,
) -> pa.Field:
    """Describe one column.

    ``min`` and ``max`` are inclusive and apply to numbers, ``values`` to strings; on a list column
    all three apply to each element.

    Raises:
        ValueError: ``doc`` is not one line, or a bound does not fit the type.
    """
    if not doc.strip() or "\n" in doc:
        raise ValueError(f"field {name}: doc must be one non-empty line, found {doc!r}")
    element = type.value_type if is_list(type) else type
    number = pa.types.is_integer(element) or pa.types.is_floating(element)
    if (min is not None or max is not None) and not number:
        raise ValueError(f"field {name}: min and max need a number, found {type}")
    if min is not None and max is not None and min > max:
        raise ValueError(f"field {name}: min {min} is above max {max}")
    if values is not None:
        if not (pa.types.is_string(element) or pa.types.is_large_string(element)):
            raise ValueError(f"field {name}: values need a string, found {type}")
        if not values or any("," in value for value in values):
            raise ValueError(f"field {name}: values must be words without a comma, found {values}")
    metadata = {
        "doc": doc,
        "unit": unit,
        "min": None if min is None else repr(min),
        "max": None if max is None else repr(max),
        "values": None if values is None else ",".join(values),
    }
    present = {key: value for key, value in metadata.items() if value is not None}
    return pa.field(name, type, nullable=nullable, metadata=present)


def schema(name: str, version: int | str, fields: Sequence[pa.Field]) -> pa.Schema:
    """Name a dataset's schema; ``version`` changes when an old reader would misread the columns.

    Raises:
        ValueError: Two fields share a name.
    """
    names = [item.name for item in fields]
    twice = sorted({item for item in names if names.count(item) > 1})
    if twice:
        raise ValueError(f"schema {name}: fields named twice: {', '.join(twice)}")
    return pa.schema(list(fields), metadata={"name": name, "version": str(version)})


def is_list(type: pa.DataType) -> bool:
    """Whether the type is one of Arrow's three list types."""
    return (
        pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type)
    )
