"""The benchmarks of size, on a cluster of two raylets: kill -9 of a worker, a raylet, the driver;
many files."""

import random
import tempfile
from pathlib import Path

import pytest

from ray_jobs.cluster import Cluster
from ray_jobs.scale import KILLED, Chaos, measure_run
from ray_jobs.scale_files import measure_files

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
UTTERANCES = 3200
FILES = 520


def test_whatever_is_killed_every_utterance_is_there_once():
    # Not pytest's folder: a path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="das-") as folder, Cluster(Path(folder)) as cluster:
        chaos = Chaos(cluster, len(KILLED), random.Random(0), 0.5, 1.5)
        row = measure_run(Path(folder), UTTERANCES, chaos)
    assert tuple(chaos.killed) == KILLED
    assert (row["missing"], row["twice"]) == (0, 0)
    assert row["unique"] + row["rejected"] == UTTERANCES


def test_every_short_file_is_transcribed_once_a_block_at_a_time():
    (row,) = measure_files([FILES])
    assert (row["files"], row["unique"]) == (FILES, FILES)
    assert (row["missing"], row["twice"], row["rejected"]) == (0, 0, 0)
    assert row["blocks"] == -(-FILES // 64)
    assert row["files_per_s"] > 0
    assert row["driver_last"] > 0
