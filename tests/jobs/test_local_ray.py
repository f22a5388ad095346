"""The Ray that a job starts on one machine."""

import os
import sys

import pytest
import ray

from das_lib.config import parse_config
from ray_jobs.runtime import ray_session

pytestmark = pytest.mark.ray


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has batch work")
def test_its_processes_do_not_interrupt_one_another(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("One text.\nAnother text.\n")
    domain = {"name": "music", "utterances": 2, "texts": str(texts)}
    tree = {"name": "run", "output": str(tmp_path), "domains": [domain], "ray": {"num_cpus": 2}}
    before = os.sched_getscheduler(0)
    try:
        with ray_session(parse_config(tree)):
            ask = ray.remote(num_cpus=0.1)(lambda: os.sched_getscheduler(0))
            assert ray.get(ask.remote()) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
