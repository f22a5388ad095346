import datetime
import io
import json
import tarfile
import threading
import tracemalloc
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk import archives
from das_lib.bulk.archives import read_row, tar_recordings
from das_lib.bulk.recording import Recording
from das_lib.bulk.sources import list_recordings
from das_lib.errors import Reject
from das_lib.speech.audio import AudioError
from schemas.bulk import RECORDINGS
from schemas.validate import validate


def listed(source):
    """Recordings, rejects and the number of the skipped."""
    listing = list_recordings(str(source))
    items = list(listing)
    good = [item for item in items if not isinstance(item, Reject)]
    validate(pa.Table.from_pylist([r.to_row() for r in good], schema=RECORDINGS), RECORDINGS)
    ids = [item.id for item in items]
    assert len(ids) == len(set(ids))
    return good, [item for item in items if isinstance(item, Reject)], listing.skipped


def tar_bytes(*members, format=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_tar(path, *members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(*members, **options))
    return path


def content(recording):
    with open(recording.url, "rb") as file:
        file.seek(recording.byte_offset)
        return file.read(recording.byte_length)


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.mark.parametrize("format", FORMATS)
def test_members_of_a_tar_are_found_by_place_and_length(format, tmp_path):
    long = "d" * 90 + "/" + "n" * 90 + ".WAV"
    members = [
        ("a.wav", b"1" * 700),
        ("b.txt", b"x"),
        (long, b"2"),
        ("ä.mp3", b""),
        ("x/y.cls", b""),
    ]
    good, bad, skipped = listed(write_tar(tmp_path / "s.tar", *members, format=format))
    assert [r.id for r in good] == ["a.wav", long, "ä.mp3"]
    assert [content(r) for r in good] == [b"1" * 700, b"2", b""]
    assert [r.size for r in good] == [700, 1, 0]
    assert (bad, skipped) == ([], 2)


def test_tars_in_a_folder_call_their_members_by_both_paths(tmp_path):
    write_tar(tmp_path / "a" / "s.TAR", ("k.wav", b"1"), ("../k.wav", b"2"), ("/k.wav", b"3"))
    write_tar(tmp_path / "b.tar", ("./k.wav", b"4"), ("k.wav", b"5"), ("._k.wav", b"6"))
    (tmp_path / "c.wav").write_bytes(b"7")
    good, bad, skipped = listed(tmp_path)
    assert [r.id for r in good] == [
        *("a/s.TAR/k.wav", "a/s.TAR/../k.wav", "a/s.TAR//k.wav", "b.tar/k.wav", "c.wav")
    ]
    assert [(r.id, r.reason) for r in bad] == [("b.tar/k.wav#2", "duplicate-id")]
    assert skipped == 0


def test_texts_beside_a_member_are_kept(tmp_path):
    members = [
        ("1.json", b'{"speaker": "x", "words": []}'),
        ("1.wav", b""),
        ("1.txt", "hällo\n".encode()),
        ("2.left.flac", b""),
        ("2.right.flac", b""),
        ("2.json", b'{"n": 2}'),
        ("v1.0-a.wav", b""),
        ("v1.0-a.json", b'{"n": "a"}'),
        ("v1.0-b.wav", b""),
        ("v1.0-b.json", b'{"n": "b"}'),
        ("3.wav", b""),
        ("3.json", b"[1]"),
        ("d.d/3.txt", b"of another folder"),
        ("d.d/3.wav", b""),
        ("4.wav", b""),
    ]
    good, bad, skipped = listed(write_tar(tmp_path / "s.tar", *members))
    assert {r.id: json.loads(r.extra or "null") for r in good} == {
        "1.wav": {"speaker": "x", "text": "hällo"},
        "2.left.flac": {"n": 2},
        "2.right.flac": {"n": 2},
        "v1.0-a.wav": {"n": "a"},
        "v1.0-b.wav": {"n": "b"},
        "3.wav": None,
        "d.d/3.wav": {"text": "of another folder"},
        "4.wav": None,
    }
    assert (bad, skipped) == ([], 7)


def test_links_and_folders_in_a_tar_are_no_recordings(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, kind in (("d.wav", tarfile.DIRTYPE), ("l.wav", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("a.wav"))
    good, bad, skipped = listed(tmp_path / "s.tar")
    assert [r.id for r in good] == ["a.wav"]
    assert [(r.id, r.reason) for r in bad] == [("l.wav", "not-a-file")]
    assert skipped == 0


MEMBERS = [(f"{number}.wav", bytes([number]) * 600) for number in range(4)]


def broken(kind):
    whole = tar_bytes(*MEMBERS)
    third = 2 * (512 + 1024)
    return {
        "cut in a member": whole[: third + 512 + 100],
        "cut in a header": whole[: third + 100],
        "no header where one should be": whole[:third] + b"\x01" * 512 + whole[third + 512 :],
        "a size beyond the end": whole[: third + 124] + b"77777777777" + whole[third + 135 :],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "cut in a member",
        "cut in a header",
        "no header where one should be",
        "a size beyond the end",
    ],
)
def test_a_broken_tar_gives_the_members_before_the_break(kind, tmp_path):
    (tmp_path / "a.tar").write_bytes(broken(kind))
    write_tar(tmp_path / "b.tar", ("x.wav", b"1"))
    good, bad, _ = listed(tmp_path)
    assert [r.id for r in good] == ["a.tar/0.wav", "a.tar/1.wav", "b.tar/x.wav"]
    assert [content(r) for r in good[:2]] == [member[1] for member in MEMBERS[:2]]
    assert [(r.id, r.reason) for r in bad] == [("a.tar", "bad-archive")]


def test_what_is_no_tar_or_compressed_is_one_reject(tmp_path):
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "text.tar").write_bytes(b"text" * 500)
    (tmp_path / "x.parquet").write_bytes(b"PAR1" * 50)
    (tmp_path / "x.tar.gz").write_bytes(b"")
    (tmp_path / "x.tgz").write_bytes(b"")
    write_tar(tmp_path / "nothing.tar")
    good, bad, _ = listed(tmp_path)
    assert good == []
    assert {r.id: r.reason for r in bad} == {
        "empty.tar": "bad-archive",
        "text.tar": "bad-archive",
        "x.parquet": "bad-archive",
        "x.tar.gz": "compressed-archive",
        "x.tgz": "compressed-archive",
    }


def test_a_tar_without_the_blocks_at_its_end_is_whole(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes(("a.wav", b"1" * 512))[:1024])
    good, bad, _ = listed(tmp_path)
    assert ([r.id for r in good], bad) == (["a.tar/a.wav"], [])


def test_member_names_that_are_no_utf_8_are_rejected(tmp_path):
    with tarfile.open(
        tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as tar:
        tar.addfile(tarfile.TarInfo("ä.wav"))
    good, bad, _ = listed(tmp_path / "s.tar")
    assert (good, [(r.id, r.reason) for r in bad]) == ([], [("\\udce4.wav", "bad-name")])


def test_a_tar_of_many_members_is_listed_in_little_memory(tmp_path):
    path = write_tar(tmp_path / "s.tar", *((f"k.{number}.wav", b"") for number in range(4000)))
    listing = list_recordings(str(path))
    next(listing)
    tracemalloc.start()
    try:
        assert sum(1 for _ in listing) == 3999
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.integers(0, 5 * 1536), st.integers(0, 255)), max_size=8))
@settings(max_examples=300, deadline=None)
def test_a_tar_with_wrong_bytes_ends_and_gives_only_what_lies_in_it(tmp_path_factory, errors):
    damaged = bytearray(tar_bytes(*MEMBERS, ("0.json", b'{"a": 1}')))
    for place, value in errors:
        damaged[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(damaged)
    items = list(tar_recordings(str(path), "damaged.tar", ""))
    for item in items:
        if isinstance(item, Recording):
            assert 0 <= item.byte_offset <= item.byte_offset + item.byte_length <= len(damaged)
    assert len(items) <= 7


AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(path, columns, rows_per_group=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def sound(row):
    return f"sound {row}".encode() * (row + 1)


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
