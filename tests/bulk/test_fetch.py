import io
import logging
import os
import tarfile

import boto3
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import use_s3
from stumbling_s3 import StumblingS3

from das_lib import retry
from das_lib.bulk import fetch
from das_lib.bulk.fetch import open_recording
from das_lib.bulk.media import decode
from das_lib.bulk.recording import Recording
from das_lib.retry import retry_count
from das_lib.speech.audio import AudioError, to_flac

CONTENT = np.random.default_rng(0).bytes(200_000)


def recording(url, **where):
    return Recording(id="a", url=str(url), **where)


def reason(url, **where):
    with pytest.raises(AudioError) as error:
        open_recording(recording(url, **where)).read()
    assert str(url).rpartition("/")[2] in error.value.detail
    return error.value.reason


@pytest.fixture
def small(monkeypatch):
    """Limits so low that a recording of 200 kB is a long one."""
    monkeypatch.setattr(fetch, "WHOLE", 10_000)
    monkeypatch.setattr(fetch, "BLOCK", 30_000)
    monkeypatch.setattr(fetch, "BUFFER", 1_000)


def tar(path, members):
    """Write a tar; gives the place and length of each member."""
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as file:
        return {m.name: (m.offset_data, m.size) for m in file.getmembers()}


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_file_is_its_bytes(prefix, tmp_path):
    (tmp_path / "a.wav").write_bytes(CONTENT)
    with open_recording(recording(f"{prefix}{tmp_path}/a.wav")) as file:
        assert file.read() == CONTENT


def test_what_is_no_file_with_bytes_has_a_reason(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "none") == "missing-audio"
    assert reason(tmp_path / "empty" / "none") == "missing-audio"
    assert reason(tmp_path / "folder") == "missing-audio"
    assert reason(tmp_path / "link") == "missing-audio"
    assert reason(tmp_path / "pipe") == "missing-audio"
    assert reason(tmp_path / "empty") == "empty-audio"
    assert reason(f"{tmp_path}/{'x' * 300}") == "storage"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_denied(tmp_path):
    (tmp_path / "a.wav").write_bytes(CONTENT)
    (tmp_path / "a.wav").chmod(0)
    assert reason(tmp_path / "a.wav") == "denied"


@pytest.mark.parametrize("is_long", [False, True])
def test_a_member_of_a_tar_is_a_file_of_its_own(is_long, tmp_path, request):
    if is_long:
        request.getfixturevalue("small")
    members = {"a.wav": CONTENT[:50_000], "none.wav": b"", "b.wav": CONTENT[50_000:]}
    places = tar(tmp_path / "t.tar", members)
    for name in ("a.wav", "b.wav"):
        offset, length = places[name]
        where = {"byte_offset": offset, "byte_length": length}
        with open_recording(recording(tmp_path / "t.tar", **where)) as file:
            assert file.read() == members[name]
            assert file.read() == b""
    offset, _ = places["none.wav"]
    assert reason(tmp_path / "t.tar", byte_offset=offset, byte_length=0) == "empty-audio"
    assert reason(tmp_path / "t.tar", byte_offset=10**6, byte_length=9) == "truncated"
    assert reason(tmp_path / "t.tar", byte_offset=offset, byte_length=10**6) == "truncated"


@given(
    moves=st.lists(
        st.tuples(st.sampled_from([0, 1, 2]), st.integers(-60_000, 60_000), st.integers(0, 9_000)),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=40)
def test_a_member_of_a_tar_seeks_as_a_file_does(moves, tmp_path_factory):
    path = tmp_path_factory.mktemp("tar") / "t"
    path.write_bytes(CONTENT)
    real = io.BytesIO(CONTENT[1000:51_000])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "WHOLE", 10_000)
        file = open_recording(recording(path, byte_offset=1000, byte_length=50_000))
    with file:
        for whence, offset, count in moves:
            base = {0: 0, 1: real.tell(), 2: 50_000}[whence]
            if base + offset >= 0:
                assert file.seek(offset, whence) == real.seek(base + offset)
            assert file.read(count) == real.read(count)
            assert file.tell() == real.tell()


def test_a_row_of_parquet_is_its_bytes(tmp_path):
    rows = pa.table({"audio": pa.array([CONTENT, None, b"", b"x"], pa.binary())})
    pq.write_table(rows, tmp_path / "p.parquet")
    row = {"row": 0, "column": "audio"}
    assert open_recording(recording(tmp_path / "p.parquet", **row)).read() == CONTENT
    assert reason(tmp_path / "p.parquet", row=1, column="audio") == "no-audio"
    assert reason(tmp_path / "p.parquet", row=2, column="audio") == "empty-audio"
    assert reason(tmp_path / "p.parquet", row=9, column="audio") == "bad-archive"
    assert reason(tmp_path / "none.parquet", **row) == "missing-audio"


@pytest.fixture
def s3(moto, monkeypatch):
    """The bucket ``das`` with ``long.wav``, ``empty.wav`` and ``t.tar`` behind a proxy."""
    with StumblingS3(moto) as proxy:
        use_s3(monkeypatch, proxy.url)
        monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
        proxy.client = boto3.client("s3", endpoint_url="http://{}:{}".format(*moto))
        proxy.client.create_bucket(Bucket="das")
        for key, content in {"long.wav": CONTENT, "empty.wav": b"", "d/t.tar": CONTENT}.items():
            proxy.client.put_object(Bucket="das", Key=key, Body=content)
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # else it keeps the old address
        proxy.requests.clear()
        yield proxy
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize("size", [len(CONTENT), 7, None])
def test_a_short_object_is_read_whole(size, s3):
    assert open_recording(recording("s3://das/long.wav", size=size)).read() == CONTENT
    assert s3.requests == ({"GET": 1} if size else {"GET": 1, "HEAD": 1})


@pytest.mark.parametrize("name", ["a::b.wav", "a b*[1]?.wav", "ü#%20.wav"])
def test_an_object_may_have_any_name(name, s3):
    s3.client.put_object(Bucket="das", Key=name, Body=CONTENT)
    for size in (9, None):
        assert open_recording(recording(f"s3://das/{name}", size=size)).read() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), 7, None])
def test_a_long_object_is_read_in_blocks_as_it_is_needed(size, s3, small):
    with open_recording(recording("s3://das/long.wav", size=size)) as file:
        s3.requests.clear()
        file.seek(-100, io.SEEK_END)
        assert file.read() == CONTENT[-100:]
        file.seek(0)
        assert file.read(100) == CONTENT[:100]
        assert s3.requests["GET"] <= 3
        file.seek(0)
        assert file.read() == CONTENT
        assert s3.requests["GET"] <= 10


@pytest.mark.parametrize("length", [5_000, 150_000])
def test_a_member_of_a_remote_tar_is_read_by_itself(length, s3, small):
    where = {"byte_offset": 512, "byte_length": length}
    with open_recording(recording("s3://das/d/t.tar", **where)) as file:
        assert file.read() == CONTENT[512 : 512 + length]
    assert s3.requests["GET"] == (1 if length == 5_000 else 6)
    assert reason("s3://das/d/t.tar", byte_offset=512, byte_length=0) == "empty-audio"
    for offset in (199_000, 300_000):
        assert reason("s3://das/d/t.tar", byte_offset=offset, byte_length=length) == "truncated"


@pytest.mark.parametrize("size", [0, None])
def test_what_is_no_object_with_bytes_has_a_reason(size, s3):
    assert reason("s3://das/empty.wav", size=size) == "empty-audio"
    assert reason("s3://das/none.wav", size=size) == "missing-audio"
    assert reason("s3://nobucket/none.wav", size=size) == "missing-audio"
    assert reason("s3://das/d", size=size) == "missing-audio"
    before = retry_count()
    s3.faults = [(403, "AccessDenied")] * 9
    assert reason("s3://das/long.wav", size=size) == "denied"
    assert len(s3.faults) >= 7
    assert retry_count() == before


FAULTS = {
    "reset": "reset",
    "cut": "cut",
    "slow down": (503, "SlowDown"),
    "internal": (500, "InternalError"),
    "gateway": (502, "BadGateway"),
    "throttled": (400, "ThrottlingException"),
    "too many": (429, "TooManyRequests"),
    "time-out": (400, "RequestTimeout"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_passes_is_tried_again_counted_and_logged(fault, s3, caplog):
    caplog.set_level(logging.INFO, "das_lib.retry")
    before = retry_count()
    s3.faults = [fault] * 3
    assert open_recording(recording("s3://das/long.wav", size=9)).read() == CONTENT
    logged = [r.getMessage() for r in caplog.records if r.name == "das_lib.retry"]
    # aiohttp repeats a request by itself when the server closed a connection that was used before.
    assert len(logged) == 3 or (fault == "reset" and logged)
    assert retry_count() - before == len(logged)
    assert "s3://das/long.wav" in logged[-1]
    assert f"attempt {len(logged) + 1} of 8" in logged[-1]


def test_a_long_object_survives_what_passes_while_it_is_read(s3, small):
    with open_recording(recording("s3://das/long.wav")) as file:
        s3.faults = ["reset", (503, "SlowDown"), None, "cut", (500, "InternalError"), None] * 2
        assert file.read() == CONTENT
        assert not s3.faults


def test_a_storage_that_stays_down_is_given_up(s3):
    s3.faults = [(500, "InternalError")] * 99
    assert reason("s3://das/long.wav", size=9) == "storage"
    assert len(s3.faults) == 99 - retry.ATTEMPTS


def test_the_total_time_is_bounded(s3, monkeypatch):
    monkeypatch.setattr(retry, "MAX_SECONDS", 0.0)
    s3.faults = [(503, "SlowDown")] * 99
    assert reason("s3://das/long.wav", size=9) == "storage"
    assert len(s3.faults) == 98


def test_a_server_that_is_not_there_is_given_up(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    before = retry_count()
    assert reason("s3://das/long.wav", size=9) == "storage"
    assert retry_count() - before == retry.ATTEMPTS - 1


def test_an_object_that_changes_or_goes_while_it_is_read_has_a_reason(s3, small):
    file = open_recording(recording("s3://das/long.wav"))
    s3.client.put_object(Bucket="das", Key="long.wav", Body=CONTENT[::-1])
    with pytest.raises(AudioError) as error:
        file.read(40_000)
    assert error.value.reason == "storage"
    s3.client.delete_object(Bucket="das", Key="long.wav")
    with pytest.raises(AudioError) as error:
        file.read(40_000)
    assert error.value.reason == "missing-audio"


def test_an_unknown_kind_of_address_has_a_reason():
    assert reason("nowhere://b/long.wav") == "storage"


def test_a_fault_in_the_middle_of_decoding_keeps_its_reason(s3, small, monkeypatch):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000).astype(np.float32)
    s3.client.put_object(Bucket="das", Key="a.flac", Body=to_flac(noise))
    with open_recording(recording("s3://das/a.flac")) as file:
        blocks = decode(file, block_s=0.5)
        first = next(blocks)
        s3.faults = [(403, "AccessDenied")] * 9
        with pytest.raises(AudioError) as error:
            list(blocks)
    assert np.allclose(first, noise[:8000], atol=1e-4)
    assert error.value.reason == "denied"
