"""Projects on fakes that the tests of the jobs run."""

from pathlib import Path

import boto3
import pytest
from job_project import Project, make_project
from s3_server import s3_environment, s3_server, use_s3

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
    with s3_server() as (host, port):
        url = f"http://{host}:{port}"
        use_s3(monkeypatch, url)
        boto3.client("s3").create_bucket(Bucket="das")
        yield s3_environment(url)
