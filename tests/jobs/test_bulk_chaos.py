"""Bulk transcription while replicas, readers, a node and the driver die, and storage stumbles."""

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import tarfile
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from feeding import outcome_of
from job_project import ROOT, make_project
from s3_server import s3_server, use_s3
from stumbling_s3 import FAULTS, StumblingS3

from das_lib.errors import DasError
from das_lib.speech.audio import to_flac
from das_lib.storage import Folder
from ray_jobs import bulk_feed
from ray_jobs.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
BAD = {"empty.flac": "empty-audio", "text.flac": "not-audio"}
PER_BLOCK = 4
KILLS = ["replica", "reader", "controller", "node", "driver"]
TITLES = {
    "replica": "ray::ServeReplica",
    "reader": "ray::MapWorker",
    "controller": "ray::ServeController",
}


def sound(draw, seconds):
    return to_flac((0.1 * draw.standard_normal(int(16_000 * seconds))).astype(np.float32))


def recordings(count):
    """Short ones by name, and those that cannot be used."""
    draw = np.random.default_rng(0)
    good = {f"{i % 7}/{i:04d}.flac": sound(draw, draw.uniform(0.5, 3.0)) for i in range(count)}
    return good | {"empty.flac": b"", "text.flac": b"this is no recording"}


@pytest.fixture
def command(tiny, tmp_path):
    """Makes the command that transcribes INPUT to OUTPUT with two replicas."""
    project = make_project(
        tiny,
        tmp_path / "project",
        domains=("music",),
        serve={"pool": {"actors": 2, "num_cpus": 0.5}, "batch_utterances": 4},
        transcribe={"vad": False, "recordings_per_block": PER_BLOCK},
    )
    return lambda *where: project.command("transcribe", *map(str, where), "--adapters", "none")


def rows(output, name, kind):
    """What was committed."""
    folder = Folder(f"{output}/{name}/{kind}")
    contents = [folder.read(file) for file in folder.names(".parquet")]
    return [row for content in contents for row in pq.read_table(io.BytesIO(content)).to_pylist()]


def assert_each_once(output, good, bad):
    """Each good id has one transcript, each bad one a rejection with its reason, and no other."""
    rejects = rows(output, "transcripts", "rejects") + rows(output, "recordings", "rejects")
    assert sorted((row["id"], row["reason"]) for row in rejects) == sorted(bad.items())
    assert sorted(row["id"] for row in rows(output, "transcripts", "data")) == sorted(good)
    summary = Folder(str(output)).read_json("summary.json")
    counts = (summary["in"], summary["out"], summary["rejected"])
    assert counts == (len(good) + len(bad), len(good), len(bad))
    assert summary["reasons"] == Counter(bad.values())


class Driver:
    """A process that runs the command."""

    def __init__(self, command, environment, log):
        self.command, self.environment, self.log = command, environment, log
        self.start()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wait_until(self, reached):
        while not reached():
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)

    def end(self):
        assert self.process.wait(600) == 0, self.said()

    def said(self):
        return self.log.read_text()[-4000:]


@contextmanager
def running(*arguments):
    driver = Driver(*arguments)
    try:
        yield driver
    finally:
        driver.kill()


def processes(cluster, title="", nodes=("head", "node")):
    """Of the cluster's nodes, those whose command line begins like that."""
    sessions = {cluster.processes[name].pid for name in nodes}
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if os.getsid(pid := int(entry.name)) in sessions and line.startswith(title):
                found.append(pid)
    return sorted(found)


def kill(pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_whatever_is_killed_every_recording_is_there_once(command, tmp_path):
    files = recordings(120)
    for name, content in files.items():
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    output, draw = tmp_path / "out", random.Random(1)
    data = output / "transcripts" / "data"
    kills = draw.sample(KILLS, len(KILLS))
    moments = sorted(draw.sample(range(1, 24), len(KILLS)))  # in blocks, of 31
    # Not pytest's folder: a path of a socket has at most 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="das-") as folder,
        Cluster(Path(folder)) as cluster,
        ThreadPoolExecutor() as beside,
        running(
            command(tmp_path / "corpus", output), cluster.environment, tmp_path / "driver.log"
        ) as driver,
    ):
        restarts = []
        for what, moment in zip(kills, moments, strict=True):
            driver.wait_until(lambda n=moment: len(list(data.glob("*.parquet"))) >= n)
            time.sleep(draw.uniform(0, 0.5))
            if what == "driver":
                driver.kill()
                driver.start()
            elif what == "node":
                kill(processes(cluster, nodes=["node"]))
                cluster.processes["node"].wait()
                restarts.append(beside.submit(cluster.start_node))
            else:
                driver.wait_until(lambda t=TITLES[what]: processes(cluster, t))
                kill([draw.choice(processes(cluster, TITLES[what]))])
        driver.end()
        for restart in restarts:
            restart.result()
    assert_each_once(output, set(files) - set(BAD), BAD)


def tar_of(contents):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def bucket(monkeypatch):
    """A bucket on an S3 server, for a `StumblingS3` before it."""
    with s3_server() as server:
        use_s3(monkeypatch, "http://{}:{}".format(*server))
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # else it keeps an old address
        bucket = boto3.resource("s3").create_bucket(Bucket="chaos")
        bucket.server = server
        yield bucket
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_an_s3_that_stumbles_loses_nothing_and_what_vanished_is_rejected(command, bucket, tmp_path):
    files, draw = recordings(50), np.random.default_rng(9)
    members = {f"{i}.flac": sound(draw, 1.0) for i in range(10)}
    for name, content in {**files, "t.tar": tar_of(members)}.items():
        bucket.put_object(Key=f"corpus/{name}", Body=content)
    blocks, gone = -(-(len(files) + len(members)) // PER_BLOCK), "6/0006.flac"

    def is_listed():
        return len(list(bucket.objects.filter(Prefix="out/recordings/data/"))) == blocks

    with StumblingS3(bucket.server, rate=0.1, stall_s=60) as proxy:
        limits = json.dumps({"connect_timeout": 1, "read_timeout": 1})
        environment = {"AWS_ENDPOINT_URL": proxy.url, "FSSPEC_S3_CONFIG_KWARGS": limits}
        where = command("s3://chaos/corpus", "s3://chaos/out")
        with running(where, os.environ | environment, tmp_path / "driver.log") as driver:
            driver.wait_until(is_listed)
            bucket.delete_objects(Delete={"Objects": [{"Key": f"corpus/{gone}"}]})
            driver.end()
    assert {method for method, _ in proxy.stumbled} >= {"GET", "PUT"}
    assert {fault for _, fault in proxy.stumbled} == set(FAULTS)
    bad = {**BAD, gone: "missing-audio"}
    good = (set(files) | {f"t.tar/{name}" for name in members}) - set(bad)
    assert_each_once("s3://chaos/out", good, bad)


# What the first sample of a recording makes the engine do.
FINE, RAISE, EXIT, HANG = 0.1, 0.5, 0.9, 0.7


@pytest.fixture(scope="module")
def engines(two_cpus):
    """Two replicas of an engine that breaks where the sound says so, two windows at a time."""
    from ray import serve

    class Recognizer:  # not of this module, which workers cannot import
        @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.1)
        async def transcribe(self, requests):
            levels = [round(float(audio[0]), 1) for audio, *_ in requests]
            if EXIT in levels:
                os._exit(1)
            if HANG in levels:
                await asyncio.Event().wait()
            if RAISE in levels:
                raise MemoryError(f"no room for {len(requests)}")
            heard = {"text": "", "language": "en", "words": [], "avg_logprob": 0.0}
            return [{"base": heard | {"temperature": 0.0, "no_speech_prob": 0.0}}] * len(levels)

    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        num_replicas=2, ray_actor_options={"num_cpus": 0.5}, graceful_shutdown_timeout_s=0
    )
    serve.run(deployment(Recognizer).bind(), name="engines", route_prefix=None)
    yield
    serve.shutdown()


def test_a_window_that_breaks_replicas_is_rejected_and_those_beside_it_are_not(
    engines, tmp_path, monkeypatch
):
    # Two break replicas, and each may take the same neighbours along until it is a suspect.
    monkeypatch.setattr(bulk_feed, "TRIES", 2 * bulk_feed.SUSPECT + 1)
    fine = {f"{i}.flac": FINE for i in range(9)}
    outcome = outcome_of("engines", tmp_path, **fine, **{"raises.flac": RAISE, "exits.flac": EXIT})
    assert sorted(outcome.rows["id"].to_pylist()) == sorted(fine)
    rejects = {reject.id: reject for reject in outcome.rejects}
    assert {id: reject.reason for id, reject in rejects.items()} == {
        "raises.flac": "replica-failed",
        "exits.flac": "replica-died",
    }
    assert "MemoryError: no room for" in rejects["raises.flac"].detail


def test_replicas_that_fail_with_every_window_end_the_job(engines, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_feed, "TRIES", 2)
    monkeypatch.setattr(bulk_feed, "IN_A_ROW", 3)
    with pytest.raises(DasError, match=r"4 windows in a row.*MemoryError.*resumes"):
        outcome_of("engines", tmp_path, **{f"{i}.flac": RAISE for i in range(6)})
    outcome = outcome_of("engines", tmp_path, **{f"{i}.flac": RAISE for i in range(3)})
    assert [reject.reason for reject in outcome.rejects] == ["replica-failed"] * 3


def test_replicas_that_never_answer_end_the_job(engines, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_feed, "QUIET_S", 3.0)
    with pytest.raises(DasError, match="no replica has answered"):
        outcome_of("engines", tmp_path, **{f"{i}.flac": HANG for i in range(4)})
