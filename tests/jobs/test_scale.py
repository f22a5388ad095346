"""kill -9 of a worker, of a node's raylet and of the driver, on a cluster of two raylets."""

import random
import tempfile
from pathlib import Path

import pytest

from ray_jobs.cluster import Cluster
from ray_jobs.scale import KILLED, Chaos, measure_run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
UTTERANCES = 1600


def test_whatever_is_killed_every_utterance_is_there_once():
    # Not pytest's folder: a path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="das-") as folder, Cluster(Path(folder)) as cluster:
        chaos = Chaos(cluster, len(KILLED), random.Random(0), 1, 3)
        row = measure_run(Path(folder), UTTERANCES, chaos)
    assert tuple(chaos.killed) == KILLED
    assert (row["missing"], row["twice"]) == (0, 0)
    assert row["unique"] + row["rejected"] == UTTERANCES
