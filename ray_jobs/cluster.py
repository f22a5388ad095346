"""A Ray cluster of two raylets on this machine, of which one may die."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from das_lib.errors import DasError

START_S = 120  # longest wait for a part of the cluster
STARTED = "Ray runtime started"


@dataclass
class Cluster:
    """A head and a node, with a CPU each."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.port = _free_port()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self.environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_BACKEND_LOG_LEVEL": "fatal",
        }
        options = [f"--port={self.port}", f"--dashboard-port={_free_port()}"]
        options += [f"--temp-dir={self.folder}", "--disable-usage-stats"]
        self._start("head", "--head", *options)
        self.start_node()
        self.environment |= {"RAY_ADDRESS": f"127.0.0.1:{self.port}"}
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start_node(self) -> None:
        """Start the node, also in the place of one that has died."""
        self._start("node", f"--address=127.0.0.1:{self.port}")

    def _start(self, name: str, *options: str) -> None:
        ray = Path(sys.executable).parent / "ray"
        ports = [f"--dashboard-agent-listen-port={_free_port()}"]
        path = self.folder / f"{name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [ray, "start", "--block", "--num-cpus=1", *ports, *options],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = process
        deadline = time.monotonic() + START_S
        while STARTED not in (said := path.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DasError(f"the cluster's {name} did not start: {said[-2000:]}")
            time.sleep(0.5)

    def workers(self) -> list[int]:
        """Processes that hold a stage's workers, on both nodes."""
        sessions = {process.pid for process in self.processes.values()}
        return [
            pid
            for pid, command in _commands()
            if command.startswith("ray::MapWorker") and _session(pid) in sessions
        ]

    def raylet(self) -> int | None:
        """The node's raylet."""
        session = self.processes["node"].pid
        found = [
            pid
            for pid, command in _commands()
            if "/raylet " in command and _session(pid) == session
        ]
        return found[0] if found else None


def _commands() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(entry.name), command.decode(errors="replace")


def _session(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
