import errno
import os
import pickle

import pytest

from das_lib.errors import StorageError
from das_lib.storage import Folder


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.write("a.bin", b"old")

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        folder.write("a.bin", b"new")
    monkeypatch.undo()
    assert folder.read("a.bin") == b"old"
    assert folder.names() == ["a.bin"]


def test_what_a_killed_writer_left_is_neither_listed_nor_kept(tmp_path):
    (tmp_path / "x.parquet.123.tmp").write_bytes(b"half")
    folder = Folder(tmp_path)
    assert folder.names() == []
    folder.clean()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_with_what_to_do(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk is full.*free room or set output.*resumes"):
        Folder(tmp_path).write("a.bin", b"x")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [], "the half-written file is gone"


def test_an_unwritable_output_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*file/out"):
        Folder(tmp_path / "file" / "out").require_writable()


def test_a_folder_pickles_as_its_address(tmp_path):
    folder = Folder(tmp_path) / "deep"
    folder.write("a", b"1")
    again = pickle.loads(pickle.dumps(folder))
    assert (again.url, again.read("a")) == (folder.url, b"1")


def test_missing_files_are_storage_errors(tmp_path):
    assert Folder(tmp_path / "none").names() == []
    with pytest.raises(StorageError, match="cannot read"):
        Folder(tmp_path).read("none")


def test_json_round_trips(tmp_path):
    Folder(tmp_path).write_json("a.json", {"ü": [1, None]})
    assert Folder(tmp_path).read_json("a.json") == {"ü": [1, None]}
