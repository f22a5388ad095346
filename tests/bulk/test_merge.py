"""All transcripts in one file."""

import json

import pyarrow.parquet as pq
import pytest
from bulk_output import heard

from das_lib.bulk.merge import merge
from das_lib.errors import DasError, StorageError
from das_lib.storage import Folder


@pytest.fixture
def filled(output):
    extra = json.dumps({"speaker": "Ä", "take": 3})
    output.listed("0000-000000", "d", "b", "gone", extra=extra)
    output.listed("0001-000000", "a", "c")
    output.heard("0000-000000", heard("d", "food"), heard("b"), rejects=[("gone", "vanished")])
    output.heard("0001-000000", heard("a", "base", "food"), heard("c", "base"))
    return output


def merged(output, file, *, sort=False, join=False):
    """Rows of a merged file."""
    count = merge(output.recordings, output.transcripts, str(file), sort=sort, join=join)
    if file.suffix == ".parquet":
        rows = pq.read_table(file).to_pylist()
    else:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert count == len(rows)
    return rows


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_every_transcript_is_there_once_sorted_on_demand(filled, tmp_path, ending):
    file = tmp_path / "new" / f"all.{ending}"
    rows = merged(filled, file)
    assert [row["id"] for row in rows] == ["d", "b", "a", "c"]
    assert [row["text"] for row in rows] == ["food", "", "base food", "base"]
    assert [row["id"] for row in merged(filled, file, sort=True)] == ["a", "b", "c", "d"]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_inputs_columns_stand_beside(filled, tmp_path):
    told = {"speaker": "Ä", "take": 3}
    lines = merged(filled, tmp_path / "all.jsonl", join=True, sort=True)
    assert [line["input"] for line in lines] == [{}, told, {}, told]
    rows = merged(filled, tmp_path / "all.parquet", join=True, sort=True)
    assert [row["input"] and json.loads(row["input"]) for row in rows] == [None, told, None, told]
    assert "input" not in merged(filled, tmp_path / "plain.jsonl")[0]


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_where_all_was_rejected_the_file_is_empty_and_opens(output, tmp_path, ending, sort):
    output.listed("0000-000000", "a")
    output.heard("0000-000000", rejects=[("a", "truncated")])
    assert merged(output, tmp_path / f"all.{ending}", sort=sort) == []


def test_a_failed_merge_leaves_the_older_file(filled, tmp_path):
    file = tmp_path / "all.jsonl"
    before = merged(filled, file)
    [_, last] = Folder(filled.transcripts.data.url).names(".parquet")
    Folder(filled.transcripts.data.url).write(last, b"no Parquet")
    with pytest.raises(StorageError, match=r"all\.jsonl"):
        merged(filled, file)
    assert [json.loads(line) for line in file.read_text("utf-8").splitlines()] == before
    assert [path.name for path in tmp_path.glob("all*")] == [file.name]


def test_a_bucket_takes_a_merged_file(filled, bucket):
    merge(filled.recordings, filled.transcripts, "s3://das/all.jsonl", sort=True, join=False)
    body = bucket.get_object(Bucket="das", Key="all.jsonl")["Body"].read().decode()
    assert [json.loads(line)["id"] for line in body.splitlines()] == ["a", "b", "c", "d"]


def test_another_ending_is_refused(filled, tmp_path):
    with pytest.raises(DasError, match=r"--merge: .*all.csv' must end in .parquet or .jsonl"):
        merged(filled, tmp_path / "all.csv")
