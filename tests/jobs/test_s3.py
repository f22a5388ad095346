"""The stages on s3:// through a local S3 server over HTTP."""

import boto3
import pytest
from moto.server import ThreadedMotoServer

from das_lib.storage import Folder

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def s3(monkeypatch):
    """An S3 server with the bucket ``das``; its environment is set."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="das")
    yield environment
    server.stop()


def test_a_folder_on_s3_writes_lists_and_reads(s3):
    folder = Folder("s3://das/run") / "data"
    assert folder.names() == []
    folder.write("a.parquet", b"1")
    folder.write_json("b.json", {"x": 1})
    assert folder.names(".parquet") == ["a.parquet"]
    assert folder.read("a.parquet") == b"1"
    assert folder.exists("b.json")
    folder.require_writable()


@pytest.mark.timeout(600)
def test_the_pipeline_runs_on_s3_and_its_second_call_finds_everything_done(s3, small_project):
    small_project.environment = s3
    first = small_project.das("run", "--set", "output=s3://das/run")
    assert "report: s3://das/run/report/" in first.stdout
    again = small_project.das("run", "--set", "output=s3://das/run")
    assert again.stdout == first.stdout
    assert "done" not in again.stderr
    assert not small_project.output.exists()
