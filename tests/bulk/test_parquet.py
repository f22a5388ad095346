"""Recordings in Parquet files, and archives on s3."""

import datetime
import json
import threading
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_files import AUDIO, MEMBERS, listed, sound, tar_bytes, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk import archives
from das_lib.bulk.archives import read_row
from das_lib.speech.audio import AudioError


def test_rows_of_a_dataset_are_recordings_that_can_be_read(tmp_path):
    audio = pa.array([{"bytes": sound(row), "path": f"{row}.wav"} for row in range(8)], AUDIO)
    path = write_parquet(
        tmp_path / "d" / "train.parquet",
        {"audio": audio, "text": [f"t{row}" for row in range(8)], "image": [b"x"] * 8},
    )
    good, bad, skipped = listed(tmp_path)
    assert [r.id for r in good] == [f"d/train.parquet#{row}" for row in range(8)]
    assert [(r.url, r.row, r.column) for r in good] == [
        (str(path), row, "audio.bytes") for row in range(8)
    ]
    assert good[3].extra == '{"text": "t3"}'
    assert [read_row(r.url, r.row, r.column) for r in good] == [sound(row) for row in range(8)]
    assert (bad, skipped) == ([], 0)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("column", ["wav", "audio", "bytes", "a.bytes"])
def test_the_only_column_of_bytes_may_have_any_name(column, kind, tmp_path):
    columns = {column: pa.array([b"1", b"2"], kind), "key": ["x", ""], "path": ["p", None]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    good, bad, _ = listed(path)
    assert [r.id for r in good] == ["x", "a.parquet#1"]
    assert [r.extra for r in good] == ['{"path": "p"}', '{"path": null}']
    assert [read_row(r.url, r.row, r.column) for r in good] == [b"1", b"2"]
    assert bad == []


def test_other_columns_that_json_can_say_are_kept(tmp_path):
    when = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    columns = {
        "audio": [b"1"],
        "id": [7],
        "n": [1.5],
        "ok": [True],
        "when": pa.array([when], pa.timestamp("ns", tz="UTC")),
        "price": [Decimal("1.20")],
        "kind": pa.array(["a"]).dictionary_encode(),
        "list": [[1]],
        "none": pa.nulls(1),
    }
    good, _, _ = listed(write_parquet(tmp_path / "a.parquet", columns))
    assert good[0].id == "7"
    assert json.loads(good[0].extra) == {
        "n": 1.5,
        "ok": True,
        "when": "2024-05-01 12:00:00.000000000Z",
        "price": "1.20",
        "kind": "a",
    }


def test_a_row_without_bytes_is_its_path_or_a_reject(tmp_path):
    audio = [
        *({"bytes": b"0", "path": "0.wav"}, None, {"bytes": None, "path": "2.wav"}),
        *({"bytes": None, "path": None}, None, None),
        *({"bytes": b"6", "path": None}, {"bytes": b"", "path": None}),
    ]
    path = write_parquet(tmp_path / "a.parquet", {"audio": pa.array(audio, AUDIO)})
    good, bad, _ = listed(path)
    assert [(r.id, r.row, r.url) for r in good] == [
        ("a.parquet#0", 0, str(path)),
        ("a.parquet#2", None, f"{tmp_path}/2.wav"),
        ("a.parquet#6", 6, str(path)),
        ("a.parquet#7", 7, str(path)),
    ]
    assert [(r.id, r.reason) for r in bad] == [
        (f"a.parquet#{row}", "no-audio") for row in (1, 3, 4, 5)
    ]
    for row in (1, 3):
        with pytest.raises(AudioError) as error:
            read_row(str(path), row, "audio.bytes")
        assert error.value.reason == "no-audio"


def test_in_a_folder_parquet_without_bytes_is_skipped_and_with_two_kinds_rejected(tmp_path):
    write_parquet(tmp_path / "list.parquet", {"audio": ["a.wav"]})
    write_parquet(tmp_path / "two.parquet", {"left": [b"1"], "right": [b"2"]})
    good, bad, skipped = listed(tmp_path)
    assert (good, skipped) == ([], 1)
    assert [(r.id, r.reason) for r in bad] == [("two.parquet", "bad-archive")]
    assert "left, right" in bad[0].detail


def test_listing_does_not_read_the_bytes(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path, {"audio": [bytes([row]) * 9999 for row in range(6)], "text": ["t"] * 6})
    metadata = pq.read_metadata(path)
    damaged = bytearray(path.read_bytes())
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(0)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        damaged[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(damaged)
    good, bad, _ = listed(path)
    assert (len(good), bad) == (6, [])
    with pytest.raises(AudioError, match="bad-archive"):
        read_row(str(path), 0, "audio")


def test_rows_of_a_file_before_its_break_stay(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet", {"audio": [b"1"] * 6, "text": [f"{n}" for n in range(6)]}
    )
    chunk = pq.read_metadata(path).row_group(1).column(1)
    damaged = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    damaged[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(damaged)
    good, bad, _ = listed(path)
    assert [r.row for r in good] == [0, 1, 2]
    assert [(r.id, r.reason) for r in bad] == [("a.parquet", "bad-archive")]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    audio = pa.array([{"bytes": sound(row), "path": None} for row in range(50)], AUDIO)
    return [
        str(write_parquet(folder / "a.parquet", {"audio": audio}, rows_per_group=7)),
        str(write_parquet(folder / "b.parquet", {"audio": audio[10:]}, rows_per_group=1000)),
    ]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 39)), max_size=30))
@settings(deadline=None)
def test_rows_can_be_read_in_any_order(rows, wanted):
    for file, row in wanted:
        assert read_row(rows[file], row, "audio.bytes") == sound(row + 10 * file)


def test_rows_in_rising_order_are_read_once_and_kept_within_the_bound(tmp_path, monkeypatch):
    size, count = 10_000, 400
    path = tmp_path / "a.parquet"
    table = pa.table({"audio": [bytes([row % 251]) * size for row in range(count)]})
    pq.write_table(table, path, use_dictionary=False, write_batch_size=4, data_page_size=size)
    del table
    monkeypatch.setattr(archives, "CACHE_BYTES", 100_000)
    monkeypatch.setattr(archives, "READ_BYTES", 50_000)
    before = pa.total_allocated_bytes()
    most = 0
    for row in range(count):
        assert read_row(str(path), row, "audio") == bytes([row % 251]) * size
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < size * count / 10


def test_threads_read_rows_of_different_files_at_once(rows):
    wrong = []

    def work(file):
        for row in range(40):
            if read_row(rows[file], row, "audio.bytes") != sound(row + 10 * file):
                wrong.append((file, row))

    threads = [threading.Thread(target=work, args=(file,)) for file in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("none.parquet", 0, "audio.bytes"),
        ("a.parquet", 50, "audio.bytes"),
        ("a.parquet", -1, "audio.bytes"),
        ("a.parquet", 0, "sound"),
    ],
)
def test_a_row_that_is_not_there_has_a_reason(rows, name, row, column):
    with pytest.raises(AudioError, match="bad-archive") as error:
        read_row(rows[0].replace("a.parquet", name), row, column)
    assert error.value.reason == "bad-archive"


def test_archives_on_s3_are_listed_and_read_like_files(bucket, rows):
    tar = tar_bytes(*MEMBERS, ("3.txt", b"three"))
    bucket.put_object(Bucket="das", Key="c/s.tar", Body=tar)
    with open(rows[0], "rb") as file:
        bucket.put_object(Bucket="das", Key="c/a.parquet", Body=file.read())
    good, bad, skipped = listed("s3://das/c")
    assert [r.id for r in good] == [
        *(f"a.parquet#{row}" for row in range(50)),
        *(f"s.tar/{number}.wav" for number in range(4)),
    ]
    assert good[53].extra == '{"text": "three"}'
    for number, recording in enumerate(good[50:]):
        end = recording.byte_offset + recording.byte_length
        assert tar[recording.byte_offset : end] == MEMBERS[number][1]
    for recording in good[:50:9]:
        assert read_row(recording.url, recording.row, recording.column) == sound(recording.row)
    assert (bad, skipped) == ([], 1)
