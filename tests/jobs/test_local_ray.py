"""The Ray that a job starts on one machine."""

import ctypes
import os
import platform
import sys
from pathlib import Path

import pytest
import ray

from das_lib.config import parse_config
from ray_jobs.runtime import CALM, ray_session
from ray_jobs.scheduling import SCHED_SETATTR, SLICE_NS, Attributes

pytestmark = pytest.mark.ray


@pytest.fixture
def config(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("One text.\nAnother text.\n")
    domain = {"name": "music", "utterances": 2, "texts": str(texts)}
    tree = {"name": "run", "output": str(tmp_path), "domains": [domain], "ray": {"num_cpus": 2}}
    return parse_config(tree)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has batch work")
@pytest.mark.parametrize("bulk", [False, True])
def test_its_processes_do_not_interrupt_one_another(config, bulk):
    def scheduled():
        found, number = Attributes(), SCHED_SETATTR[platform.machine()] + 1  # sched_getattr
        size = ctypes.sizeof(Attributes)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(found), size, 0)
        return found.policy, found.runtime

    before = os.sched_getscheduler(0)
    try:
        with ray_session(config, bulk=bulk):
            policy, slice_ns = ray.get(ray.remote(num_cpus=0.1)(scheduled).remote())
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
    assert policy == os.SCHED_BATCH
    if tuple(map(int, platform.release().split(".")[:2])) >= (6, 12):
        assert (slice_ns == SLICE_NS) == bulk


SLOW_AT_FIRST = """
import pathlib, sys, time

if any(argument.endswith("dashboard/agent.py") for argument in sys.orig_argv):
    try:
        pathlib.Path(__file__).with_suffix(".begun").touch(exist_ok=False)
    except FileExistsError:
        pass
    else:
        time.sleep(20)
"""


def test_it_is_started_again_where_a_helper_takes_longer_than_ray_waits(
    config, tmp_path, monkeypatch, capsys
):
    (tmp_path / "sitecustomize.py").write_text(SLOW_AT_FIRST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ray_session(config, bulk=True):
        assert ray.get(ray.remote(num_cpus=0.1)(lambda: 1).remote()) == 1
    assert (tmp_path / "sitecustomize.begun").exists()
    assert "did not start in time, trying again" in capsys.readouterr().err


def test_its_processes_look_around_seldom(config, monkeypatch):
    for name in CALM:
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    with ray_session(config, bulk=True):
        ask = ray.remote(num_cpus=0.1)(lambda: dict(os.environ))
        seen = ray.get(ask.remote())
    assert {name: seen.get(name) for name in CALM} == CALM


@pytest.mark.parametrize("name", CALM)
def test_ray_knows_how_often_that_is_set(name):
    folder, plain = Path(ray.__file__).parent, name.removeprefix("RAY_")
    if plain.islower():  # of Ray's core
        assert plain.encode() in (folder / "_raylet.so").read_bytes()
    else:
        read = (file.read_text("utf-8") for file in folder.rglob("*.py"))
        assert any(f'"{name}"' in text for text in read)
