"""The rows that a stage could not use."""

import pyarrow as pa

from schemas.fields import field, schema

REJECTS = schema(
    "rejects",
    1,
    [
        field("id", pa.string(), "Id that the row would have had in the output."),
        field("reason", pa.string(), "Short stable code, e.g. silent."),
        field("detail", pa.string(), "What a person needs to see the cause; may be empty."),
    ],
)
