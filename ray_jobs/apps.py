"""Apps of Ray Serve: a cluster may run several jobs, and each ends its own."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import serve

ROUND_ROBIN: dict[str, Any] = {
    "request_router_class": "ray.serve.experimental.round_robin_router.RoundRobinRouter"
}
"""How a deployment's requests are shared among its replicas, in turn.

Serve's own router chooses the less busy replica of those that it has just heard of: of requests
that come all at once, the one that answered last gets nearly all.
"""


def app_name(kind: str, owner: str) -> str:
    """The name of a job's app, the same whenever the job is run again.

    A driver that dies leaves its app behind with its CPUs and GPUs; who runs it again takes it
    over.

    Args:
        kind: Of its replicas, such as ``asr``.
        owner: What no other job has, such as its output.
    """
    return f"das-{kind}-{hashlib.sha256(owner.encode()).hexdigest()[:8]}"


@contextmanager
def running(app: serve.Application, name: str, route_prefix: str | None = None) -> Iterator[None]:
    """Run an app as long as the context lasts; Serve, which is there, ends with its last app."""
    try:
        serve.run(app, name=name, route_prefix=route_prefix)
        yield
    finally:
        end_app(name)


def end_app(name: str) -> None:
    """End an app, and Serve if it was the last."""
    if serve.status().applications.keys() - {name}:
        serve.delete(name)
    else:
        serve.shutdown()
