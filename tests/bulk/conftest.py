"""What the tests of bulk transcription share."""

import boto3
import pytest
import s3fs
from bulk_output import Output
from s3_server import s3_server, use_s3


@pytest.fixture(scope="module")
def moto():
    """Host and port of an S3 server."""
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def bucket(moto):
    """A client of an S3 server over HTTP with the empty bucket ``das``."""
    with pytest.MonkeyPatch.context() as patch:
        use_s3(patch, "http://{}:{}".format(*moto))
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3")
        client.create_bucket(Bucket="das")
        yield client
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def output(tmp_path):
    """The datasets of an output."""
    return Output(tmp_path / "out")
