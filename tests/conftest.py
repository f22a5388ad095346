"""What tests of several folders share."""

import contextlib
import os
from pathlib import Path
from unittest import mock

import pytest

# Triton decides at its import whether its library can be interpreted (tests/adml/test_kernels.py);
# torch imports it for many a test.
with mock.patch.dict(os.environ, TRITON_INTERPRET="1"), contextlib.suppress(ImportError):
    import triton  # noqa: F401


def pytest_collection_modifyitems(items):
    """Last comes what kills processes and waits for them to come back.

    By then the other process of `make test`, which has less to do, leaves the machine to it.
    """
    items.sort(key=lambda item: item.path.stem.endswith("_chaos"))


@pytest.fixture(scope="module")
def two_cpus():
    """A local Ray of two CPUs in this process."""
    import ray

    from ray_jobs.runtime import start_ray

    # "local": without an address, Ray joins whatever cluster was started last on the machine. With
    # the dashboard, as `das` starts it.
    more = {"include_dashboard": True, "log_to_driver": False}
    start_ray({"address": "local", "num_cpus": 2, **more})
    yield
    ray.shutdown()


@pytest.fixture
def worker_errors(two_cpus):
    """A call that reads what each process of that Ray has written to its standard error."""
    from ray._private.worker import global_worker

    folder = Path(global_worker.node.get_logs_dir_path())
    return lambda: [log.read_text() for log in folder.glob("worker-*.err")]
