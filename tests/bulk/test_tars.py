"""Recordings in tars."""

import json
import tarfile
import tracemalloc

import pytest
from archive_files import MEMBERS, listed, tar_bytes, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.archives import tar_recordings
from das_lib.bulk.recording import Recording
from das_lib.bulk.sources import list_recordings


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
