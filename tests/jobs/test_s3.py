"""Folders on s3:// through a local S3 server over HTTP; `test_submit` runs the stages on it."""

import pytest

from das_lib.storage import Folder

pytestmark = pytest.mark.slow


def test_a_folder_on_s3_writes_lists_and_reads(s3):
    folder = Folder("s3://das/run") / "data"
    assert folder.names() == []
    folder.write("a.parquet", b"1")
    folder.write_json("b.json", {"x": 1})
    assert folder.names(".parquet") == ["a.parquet"]
    assert folder.read("a.parquet") == b"1"
    assert folder.exists("b.json")
    folder.require_writable()
