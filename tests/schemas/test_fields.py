import pyarrow as pa
import pytest

from schemas.fields import field, schema


def test_a_field_carries_only_the_metadata_that_was_given():
    rate = field("rate", pa.int32(), "sampling rate", unit="Hz", min=8000)
    assert rate.metadata == {b"doc": b"sampling rate", b"unit": b"Hz", b"min": b"8000"}
    assert not rate.nullable
    assert field("note", pa.string(), "free text", nullable=True).nullable


def test_a_schema_carries_its_name_and_version():
    described = schema("clips", 2, [field("id", pa.string(), "content hash")])
    assert described.metadata == {b"name": b"clips", b"version": b"2"}


@pytest.mark.parametrize(
    ("type_", "options", "words"),
    [
        (pa.string(), {"min": 1}, "min and max need a number"),
        (pa.int64(), {"values": ["a"]}, "values need a string"),
        (pa.string(), {"values": ["a,b"]}, "without a comma"),
        (pa.string(), {"values": []}, "without a comma"),
        (pa.float32(), {"min": 2, "max": 1}, "min 2 is above max 1"),
    ],
)
def test_a_bound_that_does_not_fit_the_type_is_refused(type_, options, words):
    with pytest.raises(ValueError, match=words):
        field("x", type_, "a column", **options)


def test_a_doc_of_no_or_two_lines_and_a_repeated_name_are_refused():
    with pytest.raises(ValueError, match="one non-empty line"):
        field("x", pa.int64(), " ")
    with pytest.raises(ValueError, match="one non-empty line"):
        field("x", pa.int64(), "a\nb")
    with pytest.raises(ValueError, match="named twice: x"):
        schema("s", 1, [field("x", pa.int64(), "a"), field("x", pa.int64(), "b")])
