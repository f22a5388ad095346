"""The Ray that a job starts on one machine."""

import os
import platform
from pathlib import Path

import pytest
import ray

from das_lib.config import parse_config
from ray_jobs.runtime import CALM, ray_session
from ray_jobs.scheduling import SLICE_NS, scheduling

pytestmark = pytest.mark.ray


@pytest.fixture
def config(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("One text.\nAnother text.\n")
    domain = {"name": "music", "utterances": 2, "texts": str(texts)}
    tree = {"name": "run", "output": str(tmp_path), "domains": [domain], "ray": {"num_cpus": 2}}
    return parse_config(tree)


@pytest.mark.skipif(scheduling() is None, reason="Linux alone says how it schedules")
@pytest.mark.parametrize("bulk", [True, False])
def test_its_processes_do_not_interrupt_one_another(config, bulk):
    def scheduled():
        found = scheduling()
        return found.policy, found.runtime, found.nice

    before = scheduled()
    with ray_session(config, bulk=bulk):
        policy, slice_ns, _ = ray.get(ray.remote(num_cpus=0.1)(scheduled).remote())
    assert scheduled() == before  # what is started later has its own way
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
