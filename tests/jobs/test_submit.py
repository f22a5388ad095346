"""`ray job submit` to a cluster with token authentication, with all results on s3://."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from job_project import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def cluster(tmp_path, s3):
    """A head with its own ports, session folder and token; yields address and environment.

    Its jobs find the S3 server as they would on a real cluster, through the nodes' environment.
    """
    port, dashboard, agent = free_port(), free_port(), free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    # Jobs run with the head's PATH: its `python` must be the one with the packages.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ray = Path(sys.executable).parent / "ray"
    head = [ray, "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
    head += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    process = subprocess.Popen(
        head,
        env=environment,
        stdout=(tmp_path / "head.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    for wanted in (dashboard, agent):
        wait_for(wanted)
    yield f"http://127.0.0.1:{dashboard}", environment
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(3)  # longer waits were seen to be in vain
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(port):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.mark.timeout(600)
def test_submitted_jobs_run_the_pipeline_and_transcribe_a_corpus_on_s3(cluster, small_project):
    address, environment = cluster
    ray = Path(sys.executable).parent / "ray"
    submit = [ray, "job", "submit", "--address", address, "--working-dir", str(ROOT), "--"]
    there = ["--set", "output=s3://das/run"]
    job = ["python", "-m", "ray_jobs.pipeline", "--config", str(small_project.config), *there]

    wrong = subprocess.run(
        [*submit, *job],
        env=environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert wrong.returncode != 0

    done = submitted([*submit, *job], environment)
    assert "lora:music" in done.stdout
    assert "report: s3://das/run/report/" in done.stdout
    again = small_project.das("run", *there)
    assert again.stdout in done.stdout
    assert "done" not in again.stderr
    assert not small_project.output.exists()

    corpus = small_project.config.with_name("m.jsonl")  # two recordings, four bad lines
    job = ["python", "-m", "ray_jobs.transcribe", str(corpus), "s3://das/bulk", *job[3:]]
    submitted([*submit, *job], environment)
    body = boto3.client("s3").get_object(Bucket="das", Key="bulk/summary.json")["Body"]
    summary = json.load(body)
    assert (summary["in"], summary["out"], summary["rejected"]) == (6, 2, 4)


def submitted(command, environment):
    """A job that succeeded."""
    for _ in range(12):  # the agent needs some seconds more to register with the head
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        if "No available agent" not in done.stderr:
            break
        time.sleep(5)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert "succeeded" in done.stdout
    return done
