"""Blocks through a pool of workers, on a Ray of this process."""

import asyncio
import os
import re
import time
import urllib.request
from functools import partial

import pyarrow as pa
import pytest
import ray

from das_lib.config.section import Pool
from das_lib.dataset import Dataset
from das_lib.errors import Reject
from das_lib.rows import Outcome
from das_lib.storage import Folder
from ray_jobs import flow
from ray_jobs.flow import OneOutput, Unhurried, pending_items, run_items
from schemas.text import TEXTS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
BLOCKS = 12


class Leaks:
    """Keeps 30 MB of every block; rejects one row of each, and says which process it was."""

    def __init__(self) -> None:
        self.kept = []

    def __call__(self, rows: pa.Table) -> Outcome:
        self.kept.append(bytearray(os.urandom(1 << 20) * 30))
        good = [row | {"source": str(os.getpid())} for row in rows.to_pylist()]
        rejects = [Reject(good.pop()["id"], "last", "")]
        return Outcome(pa.Table.from_pylist(good, schema=TEXTS), rejects, 2.5)


class Dies(Leaks):
    """Is killed once in the middle of its second block."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    def __call__(self, rows: pa.Table) -> Outcome:
        if len(self.kept) == 1 and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), 9)
        return super().__call__(rows)


class Meets:
    """Has two blocks at a time, or none: each waits for another."""

    def __init__(self) -> None:
        self.meeting = asyncio.Barrier(2)

    async def __call__(self, rows: pa.Table, outputs: list[str]) -> dict[str, Outcome]:
        async with asyncio.timeout(60):
            await self.meeting.wait()
        return dict.fromkeys(outputs, Outcome(rows))


def datasets(folder) -> tuple[Dataset, Dataset]:
    given = Dataset(Folder(str(folder / "in")), TEXTS, "texts", "music")
    out = Dataset(Folder(str(folder / "out")), TEXTS, "speech", folder.name)
    rows = [
        {"id": f"r{n:03d}", "domain": "music", "text": "t", "split": "train", "source": "s"}
        for n in range(BLOCKS * 3)
    ]
    given.commit("00000", Outcome(pa.Table.from_pylist(rows, schema=TEXTS)), 3)
    out.begin({})
    return given, out


def run(given: Dataset, out: Dataset, make, **options) -> None:
    items = pending_items({"music": given}, {"music": out})
    assert len(items) == BLOCKS
    run_items("speech", items, partial(OneOutput, make), {"music": out}, Pool(actors=1), **options)


def test_ray_data_looks_around_less_often_while_blocks_are_slow(two_cpus, tmp_path, monkeypatch):
    given, out = datasets(tmp_path)
    pauses, looks = [], []

    class Clock:
        monotonic = staticmethod(time.monotonic)
        sleep = staticmethod(pauses.append)

    look = Unhurried.on_execution_step
    monkeypatch.setattr(flow, "time", Clock)
    monkeypatch.setattr(flow, "SLOW_S", -1.0)
    monkeypatch.setattr(Unhurried, "finished", 0.0)
    monkeypatch.setattr(
        Unhurried, "on_execution_step", lambda self, executor: looks.append(look(self, executor))
    )
    started = time.monotonic()
    run(given, out, Leaks)
    assert Unhurried.finished > started, "blocks came"
    assert len(pauses) == len(looks) > 0
    assert set(pauses) == {flow.PAUSE_S}
    others = ray.data.DataContext.get_current().custom_execution_callback_classes
    assert others == [], "prompts come by the batch, and would wait"

    pauses.clear()
    monkeypatch.setattr(flow, "SLOW_S", 3600.0)
    look(Unhurried(), None)
    assert pauses == []


def test_a_worker_that_grows_is_started_anew_and_no_block_is_lost(two_cpus, tmp_path):
    given, out = datasets(tmp_path)
    run(given, out, Leaks, max_growth=100 << 20)
    out.finish(BLOCKS * 3, 1.0, {})
    processes = set(out.read()["source"].to_pylist())
    assert 2 <= len(processes) <= 4, "about five blocks of 30 MB each"


def test_a_worker_that_is_killed_loses_no_block(two_cpus, tmp_path):
    given, out = datasets(tmp_path)
    run(given, out, partial(Dies, str(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()
    summary = out.finish(BLOCKS * 3, 1.0, {})
    assert (summary.rows_out, summary.rejected) == (BLOCKS * 2, BLOCKS)
    assert len(set(out.read()["source"].to_pylist())) == 2


def test_a_worker_has_several_blocks_at_a_time_where_they_may_overlap(two_cpus, tmp_path):
    given, out = datasets(tmp_path)
    items = pending_items({"music": given}, {"music": out})
    run_items("speech", items, Meets, {"music": out}, Pool(actors=1), overlap=2)
    assert sorted(out.read()["id"].to_pylist()) == sorted(given.read()["id"].to_pylist())


def test_prometheus_sees_rows_rejections_and_audio(two_cpus, tmp_path):
    given, out = datasets(tmp_path)
    run(given, out, Leaks)
    assert _metric("ray_das_rows_accepted_total", tmp_path.name) == BLOCKS * 2
    assert _metric("ray_das_rows_rejected_total", tmp_path.name) == BLOCKS
    assert _metric("ray_das_audio_seconds_total", tmp_path.name) == BLOCKS * 2.5


def _metric(name: str, dataset: str) -> float:
    """Sum over the exported series of a dataset; waits until the workers have reported."""

    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline, last = time.monotonic() + 60, -1.0
    while time.monotonic() < deadline:
        text = urllib.request.urlopen(address, timeout=10).read().decode()
        values = re.findall(rf'^{name}\{{[^}}]*"{dataset}"[^}}]*\}} (\S+)$', text, re.M)
        found = sum(map(float, values))
        if found and found == last:
            return found
        last = found
        time.sleep(12)
    return last
