"""What tests of several folders share."""

import pytest


@pytest.fixture(scope="module")
def two_cpus():
    """A local Ray of two CPUs in this process."""
    import ray

    # "local": without an address, Ray joins whatever cluster was started last on the machine. With
    # the dashboard, as `das` starts it.
    ray.init("local", num_cpus=2, include_dashboard=True, log_to_driver=False)
    yield
    ray.shutdown()
