"""Apps of Ray Serve: a cluster may run several jobs, and each ends its own."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from das_lib.errors import DasError

# Its import, not before, has it tell every step of an app.
logging.getLogger("ray.serve").setLevel(logging.ERROR)

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


STARTING = {ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING}
LOOK_S = 0.25
"""Between two looks at an app that starts."""


@contextmanager
def running(
    app: serve.Application, name: str, route_prefix: str | None = None, *, wait: bool = True
) -> Iterator[None]:
    """Run an app as long as the context lasts; Serve, which is there, ends with its last app.

    Without ``wait`` its replicas still start when the context begins: whoever asks them calls
    `await_app` first, for Serve would hold requests back for ever if they cannot.
    """
    try:
        target = serve.RunTarget(app, name=name, route_prefix=route_prefix)
        serve.run_many([target], wait_for_applications_running=wait)
        yield
    finally:
        end_app(name)


def await_app(name: str) -> None:
    """Return when an app's replicas are there.

    Where Serve's controller cannot be asked, as while it restarts, they count as there: a request
    finds out.

    Raises:
        DasError: they cannot start.
    """
    with suppress(RayError, RayServeException):
        while (found := serve.status().applications.get(name)) is None or found.status in STARTING:
            time.sleep(LOOK_S)
        if found.status == ApplicationStatus.DEPLOY_FAILED:
            # Traces; who reads this wants the last line.
            told = " ".join(d.message for d in found.deployments.values()) or found.message
            raise DasError(f"the replicas cannot start: {told.strip().splitlines()[-1].strip()}")


def since_running(name: str) -> Callable[[], float]:
    """A clock that begins when an app's replicas are there: seconds, 0 before."""
    began: list[float] = []

    def watch() -> None:
        with suppress(DasError):
            await_app(name)
            began.append(time.monotonic())

    threading.Thread(target=watch, name=f"await-{name}", daemon=True).start()
    return lambda: time.monotonic() - began[0] if began else 0.0


def end_app(name: str) -> None:
    """End an app, and Serve if it was the last."""
    if serve.status().applications.keys() - {name}:
        serve.delete(name)
    else:
        serve.shutdown()
