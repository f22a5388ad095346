import os
import shutil
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.kinds import is_left_out
from das_lib.bulk.seen import SeenIds
from das_lib.bulk.sources import list_recordings
from das_lib.errors import DasError, Reject
from schemas.bulk import RECORDINGS
from schemas.validate import validate


def listed(source):
    """Recordings, rejects and the number of the skipped; what a caller may store of them."""
    listing = list_recordings(str(source))
    items = list(listing)
    good = [item for item in items if not isinstance(item, Reject)]
    bad = [item for item in items if isinstance(item, Reject)]
    validate(pa.Table.from_pylist([r.to_row() for r in good], schema=RECORDINGS), RECORDINGS)
    pa.array([text for reject in bad for text in (reject.id, reject.reason, reject.detail)])
    ids = [item.id for item in items]
    assert len(ids) == len(set(ids))
    return good, bad, listing.skipped


def touch(root, *names, content=b"sound"):
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_a_folder_gives_its_audio_files_by_path_with_their_bytes(tmp_path):
    touch(
        tmp_path, "b.WAV", "a/d.flac", "a/ä ö\n.Opus", "a.mp3", "video.MKV", "read.me", "a/x.json"
    )
    good, bad, skipped = listed(tmp_path)
    assert [r.id for r in good] == ["a.mp3", "a/d.flac", "a/ä ö\n.Opus", "b.WAV", "video.MKV"]
    assert [r.url for r in good] == [f"{tmp_path}/{r.id}" for r in good]
    assert {r.size for r in good} == {5}
    assert (bad, skipped) == ([], 2)


def test_what_is_hidden_or_not_yet_whole_is_left_out_and_not_counted(tmp_path):
    touch(tmp_path, "a.wav", ".b.wav", ".git/c.wav", "d.wav.tmp", "e.tmp/f.wav")
    good, bad, skipped = listed(tmp_path)
    assert ([r.id for r in good], bad, skipped) == (["a.wav"], [], 0)


def test_the_root_itself_may_be_hidden_a_link_or_relative(tmp_path, monkeypatch):
    touch(tmp_path, ".data/a.wav")
    (tmp_path / "link").symlink_to(tmp_path / ".data")
    monkeypatch.chdir(tmp_path)
    for source in (".data", "./.data/", "link", f"file://{tmp_path}/.data"):
        good, _, _ = listed(source)
        assert [r.id for r in good] == ["a.wav"]
        assert os.path.isabs(good[0].url)


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    touch(tmp_path, "a/a.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a" / "a.wav")
    (tmp_path / "loop").symlink_to(tmp_path)
    good, bad, skipped = listed(tmp_path)
    assert [r.id for r in good] == ["a/a.wav", "b.wav"]
    assert (bad, skipped) == ([], 1)


def test_what_has_a_name_of_audio_but_is_no_file_is_rejected(tmp_path):
    touch(tmp_path, "a.wav")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.wav").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.tar")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.wav"))
        _, bad, _ = listed(tmp_path)
    assert {r.reason for r in bad} == {"not-a-file"}
    assert [r.id for r in bad] == ["dangling.wav", "folder.wav", "pipe.tar", "socket.wav"]


def test_a_name_that_is_no_utf_8_is_rejected_with_an_id_that_can_be_stored(tmp_path):
    touch(tmp_path, "a.wav", "\udcff.wav", "\udce4/b.wav", "\\udcff.wav")
    good, bad, _ = listed(tmp_path)
    assert [r.id for r in good] == ["\\udcff.wav", "a.wav"]
    assert [(r.id, r.reason) for r in bad] == [
        ("\\udce4/b.wav", "bad-name"),
        ("\\udcff.wav#2", "bad-name"),
    ]


def test_a_folder_that_vanishes_while_it_is_listed_is_one_reject(tmp_path):
    touch(tmp_path, "a.wav", "b/c.wav", "d.wav")
    listing = list_recordings(str(tmp_path))
    first = next(listing)
    shutil.rmtree(tmp_path / "b")
    rest = list(listing)
    assert [first.id, *(r.id for r in rest)] == ["a.wav", "b/", "d.wav"]
    assert rest[0].reason == "unreadable-folder"


def test_a_single_audio_file_is_one_recording(tmp_path):
    soundfile.write(tmp_path / "a b.wav", np.zeros(100), 16000)
    good, bad, skipped = listed(tmp_path / "a b.wav")
    assert (good[0].id, good[0].url) == ("a b.wav", f"{tmp_path}/a b.wav")
    assert good[0].size == (tmp_path / "a b.wav").stat().st_size
    assert (len(good), bad, skipped) == (1, [], 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", "cannot read .*/nothing: No such file or directory; check the path"),
        ("empty", r"no audio below empty \(1 other files\); .*\.wav"),
        ("some.zip", "some.zip is of no known kind; .*a manifest .*csv"),
        ("gs://bucket/x", "no local path"),
        ("", "source is empty"),
    ],
)
def test_what_cannot_be_listed_says_why_and_what_to_do(source, message, tmp_path, monkeypatch):
    touch(tmp_path, "empty/notes.txt", "some.zip")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DasError, match=message):
        list(list_recordings(source))


def test_a_deep_tree_is_walked_without_recursion(tmp_path):
    depth, here = 1010, os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("a.wav").write_bytes(b"")
        good, bad, _ = listed(tmp_path)
    finally:
        Path("a.wav").unlink(missing_ok=True)  # pytest's own cleaning is recursive
        while os.getcwd() != str(tmp_path):
            os.chdir("..")
            os.rmdir("d")
        os.chdir(here)
    assert [r.id.count("/") for r in good] == [depth]
    assert bad == []


SOUND = (".wav", ".flac", ".ogg", ".mp3")
names = st.sampled_from(
    ["a.wav", "b.FLAC", "c", "c.wav", ".h", "t.tmp", "d.txt", "ä.ogg", "\udcff.mp3", "e.csv"]
)


@given(st.sets(st.lists(names, min_size=1, max_size=3).map("/".join), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_visible_file_of_a_tree_is_listed_rejected_or_skipped_once(tmp_path_factory, paths):
    root = tmp_path_factory.mktemp("tree")
    files = []
    for path in sorted(paths):
        try:
            touch(root, path)
        except OSError:  # a file of this tree is a folder of that path
            continue
        files.append(path)
    visible = sorted((f for f in files if not is_left_out(f)), key=os.fsencode)
    try:
        good, bad, skipped = listed(root)
    except DasError:
        good, bad, skipped = [], [], len(visible)
        assert not any(f.lower().endswith(SOUND) for f in visible)
    assert len(good) + len(bad) + skipped == len(visible)
    heard = [r.id for r in good]
    assert heard == [f for f in visible if f in heard]
    assert Counter(r.reason for r in bad) == Counter(
        "bad-name" for f in visible if "\udcff" in f and f.lower().endswith(SOUND)
    )


@given(st.lists(st.text(max_size=2), max_size=60))
def test_seen_ids_are_a_set_and_make_ids_unique(ids):
    seen, plain = SeenIds(), set()
    for id in ids:
        assert seen.add(id) == (id not in plain)
        plain.add(id)
    made = [seen.unique(id) for id in ids]
    assert len(plain | set(made)) == len(plain) + len(ids) == len(seen)


def test_seen_ids_stay_a_set_while_the_table_grows():
    seen = SeenIds()
    assert all(seen.add(str(number)) for number in range(20_000))
    assert not any(seen.add(str(number)) for number in range(20_000))
    assert len(seen) == 20_000


def put(client, prefix, folder):
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        client.put_object(Bucket="das", Key=key, Body=path.read_bytes())


def test_a_prefix_on_s3_is_listed_like_the_folder_on_disk(bucket, tmp_path):
    touch(tmp_path, "b.wav", "a/d.flac", "a.mp3", "a/ä ö+%.ogg", ".h/x.wav", "x.tmp", "notes.txt")
    put(bucket, "corpus", tmp_path)
    bucket.put_object(Bucket="das", Key="corpus/a/", Body=b"")
    bucket.put_object(Bucket="das", Key="corpus-other/z.wav", Body=b"")
    local, remote = listed(tmp_path), listed("s3://das/corpus/")
    assert [r.id for r in remote[0]] == [r.id for r in local[0]]
    assert [r.size for r in remote[0]] == [r.size for r in local[0]]
    assert [r.url for r in remote[0]] == [f"s3://das/corpus/{r.id}" for r in local[0]]
    assert remote[1:] == local[1:] == ([], 1)
    assert len(listed("s3://das")[0]) == 5


@pytest.mark.slow
def test_a_prefix_of_more_than_a_page_is_listed_whole_a_page_at_a_time(bucket):
    for number in range(1001):
        bucket.put_object(Bucket="das", Key=f"many/{number:04d}.wav", Body=b"")
    listing = list_recordings("s3://das/many")
    first = next(listing)
    bucket.put_object(Bucket="das", Key="many/9999.wav", Body=b"")  # on the page not yet read
    assert [first.id, *(r.id for r in listing)] == [
        *(f"{number:04d}.wav" for number in range(1001)),
        "9999.wav",
    ]


def test_a_file_and_a_manifest_on_s3(bucket):
    bucket.put_object(Bucket="das", Key="m/a.wav", Body=b"123")
    bucket.put_object(Bucket="das", Key="m/list.csv", Body=b"path,text\na.wav,hello\n")
    good, bad, _ = listed("s3://das/m/a.wav")
    assert (good[0].id, good[0].size, bad) == ("a.wav", 3, [])
    good, bad, _ = listed("s3://das/m/list.csv")
    assert (good[0].id, good[0].url, good[0].extra) == (
        "a.wav",
        "s3://das/m/a.wav",
        '{"text": "hello"}',
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://das/nothing", "no audio below"),
        ("s3://other/x", "cannot read s3://other/x: .*bucket.*; check the bucket"),
    ],
)
def test_a_prefix_without_audio_and_a_missing_bucket_say_so(bucket, source, message):
    with pytest.raises(DasError, match=message):
        list(list_recordings(source))
