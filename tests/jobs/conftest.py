"""Projects on fakes that the tests of the jobs run."""

from pathlib import Path

import boto3
import pytest
from job_project import Project, make_project
from moto.server import ThreadedMotoServer

from das_lib.testing import tiny_whisper


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A random Whisper of a few thousand weights that hears 30 s."""
    return tiny_whisper(tmp_path_factory.mktemp("tiny"), chunk_s=30)


@pytest.fixture
def project(tiny, tmp_path) -> Project:
    """Two domains of own texts, one test set with good and bad recordings."""
    return make_project(tiny, tmp_path)


@pytest.fixture
def small_project(tiny, tmp_path) -> Project:
    """One domain: for what does not depend on their number, in half the time."""
    return make_project(tiny, tmp_path, domains=("music",))


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
