import logging

import boto3
import fsspec
import pytest
from s3_server import s3_server, use_s3
from stumbling_s3 import LOST, STALL, StumblingS3

from das_lib import retry
from das_lib.bulk.folders import file_size, open_file, walk
from das_lib.errors import StorageError
from das_lib.remote import filesystem
from das_lib.storage import Folder

FAULTS = ["reset", (500, "InternalError"), (503, "SlowDown"), LOST]


@pytest.fixture(scope="module")
def moto():
    with s3_server() as address:
        yield address


@pytest.fixture
def proxy(moto, monkeypatch):
    """A server that stumbles as ``faults`` say, with the empty bucket ``remote``."""
    with StumblingS3(moto, stall_s=30) as proxy:
        use_s3(monkeypatch, proxy.url)
        monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
        bucket = boto3.resource("s3").Bucket("remote")
        bucket.create()
        bucket.objects.delete()
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # else it keeps an old address
        proxy.requests.clear()
        yield proxy
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_folder_does_its_work_on_an_s3_that_stumbles(proxy):
    folder = Folder("s3://remote/run")

    def stumbling(operation):
        proxy.faults = list(FAULTS)
        found = operation()
        assert not proxy.faults
        return found

    stumbling(lambda: folder.write("a.bin", b"0123456789"))
    folder.write("deep/b.bin", b"1")
    folder.write("c.bin.tmp", b"1")
    assert stumbling(lambda: folder.names()) == ["a.bin"]
    assert stumbling(lambda: folder.read("a.bin")) == b"0123456789"
    assert stumbling(lambda: folder.exists("a.bin"))
    assert not stumbling(lambda: folder.exists("none"))
    file = stumbling(lambda: folder.open("a.bin", block_size=4, cache_type="readahead"))
    file.seek(6)
    assert stumbling(lambda: file.read()) == b"6789"
    stumbling(folder.require_writable)
    stumbling(lambda: folder.remove("a.bin"))
    folder.remove("a.bin")
    assert folder.names() == []


def test_a_corpus_is_listed_from_an_s3_that_stumbles(proxy):
    folder = Folder("s3://remote/corpus")
    for number in range(3):
        folder.write(f"{number}.wav", b"12")
    proxy.faults = list(FAULTS)
    assert [(file.name, file.size) for file in walk(folder)] == [(f"{n}.wav", 2) for n in range(3)]
    proxy.faults = list(FAULTS)
    assert file_size(folder / "0.wav") == 2
    proxy.faults = list(FAULTS)
    with open_file("s3://remote/corpus/0.wav") as file:
        proxy.faults = list(FAULTS)
        assert file.read() == b"12"
    assert not proxy.faults


def test_a_storage_that_stays_down_is_given_up_once_with_what_to_do(proxy, caplog):
    caplog.set_level(logging.INFO, "das_lib.retry")
    folder = Folder("s3://remote/run")
    folder.write("a.bin", b"1")
    file = folder.open("a.bin")
    for operation in (
        lambda: folder.write("b.bin", b"1"),
        lambda: folder.read("a.bin"),
        lambda: folder.names(),
        lambda: folder.exists("a.bin"),
        lambda: folder.open("a.bin"),
        lambda: folder.remove("a.bin"),
        lambda: list(walk(folder)),
        lambda: file.read(),
    ):
        proxy.faults = [(503, "SlowDown")] * 99
        with pytest.raises(StorageError, match=r"s3://remote/run.*gave up after 8.*credentials"):
            operation()
        assert len(proxy.faults) == 99 - retry.ATTEMPTS


def test_what_does_not_pass_is_told_at_once(proxy):
    folder = Folder("s3://remote/run")
    with pytest.raises(StorageError, match="cannot read"):
        folder.read("none")
    assert Folder("s3://nowhere/run").names() == []
    with pytest.raises(StorageError, match="cannot write"):
        Folder("s3://nowhere/run").write("a", b"")
    proxy.requests.clear()
    proxy.faults = [(403, "AccessDenied")] * 9
    with pytest.raises(StorageError, match="AccessDenied"):
        folder.write("a", b"1")
    assert proxy.requests == {"PUT": 1}


def test_the_time_that_a_request_may_take_is_the_environments(proxy, monkeypatch):
    conf = {}
    value = {"FSSPEC_S3_CONFIG_KWARGS": '{"read_timeout": 0.2, "connect_timeout": 3}'}
    fsspec.config.set_conf_env(conf, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", conf["s3"])
    folder = Folder("s3://remote/run")
    proxy.faults = [STALL, STALL]
    folder.write("a.bin", b"1")
    assert folder.read("a.bin") == b"1"
    config = filesystem("s3://remote").s3.meta.config
    assert (config.read_timeout, config.connect_timeout) == (0.2, 3)
    assert config.retries["total_max_attempts"] == 1
