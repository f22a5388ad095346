"""An S3 server over HTTP, and how a process finds it."""

import urllib.request
from contextlib import contextmanager

from moto.server import ThreadedMotoServer


@contextmanager
def s3_server():
    """Host and port of an empty server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # All servers of a process hold the same buckets.
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    yield host, port
    server.stop()


def s3_environment(url):
    """What the environment says of a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def use_s3(monkeypatch, url):
    """Let this process, and those that it starts, find a server."""
    for name, value in s3_environment(url).items():
        monkeypatch.setenv(name, value)
