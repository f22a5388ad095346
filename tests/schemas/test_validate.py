import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from das_lib.errors import DasError
from schemas.fields import field, schema
from schemas.validate import validate

CLIPS = schema(
    "clips",
    1,
    [
        field("id", pa.string(), "content hash of text and voice"),
        field("split", pa.string(), "what the row is for", values=["train", "test"]),
        field("duration_s", pa.float32(), "length of the audio", unit="s", min=0.1, max=30),
        field("steps", pa.int64(), "frames", min=0),
        field("gain", pa.float32(), "applied gain", nullable=True, min=0.0),
        field("tags", pa.list_(pa.string()), "labels", values=["loud", "soft"]),
    ],
)


def clips(**changes: list) -> pa.Table:
    """Three valid rows, with some columns' values replaced."""
    columns = {
        "id": ["a", "b", "c"],
        "split": ["train", "test", "train"],
        "duration_s": [0.1, 1.5, 30.0],
        "steps": [0, 3, 2],
        "gain": [1.0, None, 0.0],
        "tags": [["loud"], [], ["soft", "loud"]],
    }
    return pa.table(columns | changes, schema=CLIPS)


def test_a_valid_table_passes_with_values_on_both_bounds_and_nulls_where_allowed():
    validate(clips(), CLIPS)


def test_column_order_chunks_and_a_round_trip_through_parquet_change_nothing(tmp_path):
    table = pa.concat_tables([clips(), clips(id=["d", "e", "f"])])
    pq.write_table(table, tmp_path / "clips.parquet")
    read = pq.read_table(tmp_path / "clips.parquet")
    validate(read.select(CLIPS.names[::-1]), CLIPS)
    assert read.schema.metadata[b"name"] == b"clips"
    kept = read.schema.field("duration_s").metadata
    assert (kept[b"unit"], kept[b"min"], kept[b"max"]) == (b"s", b"0.1", b"30")


def test_an_empty_table_passes():
    validate(CLIPS.empty_table(), CLIPS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": ["train", "test", "dev"]}, ["split", "row 2", "'c'", "train,test", "'dev'"]),
        ({"duration_s": [0.05, 1.0, 1.0]}, ["duration_s", "'a'", "at least 0.1", "found 0.05"]),
        ({"duration_s": [1.0, 31.0, 1.0]}, ["duration_s", "'b'", "at most 30", "found 31.0"]),
        ({"duration_s": [1.0, 1.0, float("nan")]}, ["duration_s", "'c'", "at least", "nan"]),
        ({"steps": [0, -1, 0]}, ["steps", "'b'", "at least 0", "found -1"]),
        ({"gain": [None, None, -1.0]}, ["gain", "'c'", "at least 0.0", "found -1.0"]),
        ({"tags": [["loud"], [], ["soft", "mid"]]}, ["tags", "row 2", "'c'", "'mid'"]),
    ],
)
def test_a_value_out_of_range_is_named_with_its_row(changes, words):
    with pytest.raises(DasError) as caught:
        validate(clips(**changes), CLIPS)
    for word in ["clips", *words]:
        assert word in str(caught.value)


def test_a_bad_row_in_a_later_chunk_is_named_by_its_row_in_the_table():
    later = clips(id=["d", "e", "f"], tags=[[], ["mid"], []])
    with pytest.raises(DasError, match=r"tags, row 4 \(id 'e'\).*found 'mid'"):
        validate(pa.concat_tables([clips(), later]), CLIPS)


def test_a_null_in_a_required_column_names_the_row():
    table = clips(steps=[0, None, 1])
    with pytest.raises(DasError, match=r"steps, row 1 \(id 'b'\).*int64, found null"):
        validate(table, CLIPS)


def test_a_repeated_id_is_named_with_both_rows():
    with pytest.raises(DasError, match=r"id 'b': expected each id once, found it 2 .* 1 and 2"):
        validate(clips(id=["a", "b", "b"]), CLIPS)


def test_a_missing_an_extra_and_a_repeated_column_are_named():
    table = clips()
    with pytest.raises(DasError, match="missing column gain"):
        validate(table.drop_columns("gain"), CLIPS)
    with pytest.raises(DasError, match="extra column note"):
        validate(table.append_column("note", pa.array(["x"] * 3)), CLIPS)
    with pytest.raises(DasError, match="repeated column id"):
        validate(table.append_column("id", table["id"]), CLIPS)


def test_a_wrong_type_names_both_types():
    table = clips().cast(CLIPS.set(3, pa.field("steps", pa.int32())))
    with pytest.raises(DasError, match="steps: expected type int64, found int32"):
        validate(table, CLIPS)


def test_rows_without_ids_are_named_by_number_and_a_wrong_id_column_is_our_bug():
    plain = schema("counts", 1, [field("n", pa.int64(), "how many", max=5)])
    with pytest.raises(DasError, match="counts: column n, row 1: expected at most 5, found 9"):
        validate(pa.table({"n": [1, 9]}, schema=plain), plain, id_column=None)
    with pytest.raises(ValueError, match="id_column 'id' is not in the schema"):
        validate(pa.table({"n": [1]}, schema=plain), plain)
