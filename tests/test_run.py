"""A run's bookkeeping, without Ray."""

import time
from pathlib import Path

import pyarrow as pa
import pytest

from das_lib.config import load_config
from das_lib.dataset import Dataset
from das_lib.storage import Folder
from ray_jobs.run import Run


def test_datasets_made_side_by_side_share_the_stage_s_seconds_and_its_line(tmp_path, capsys):
    run = Run(load_config(Path(__file__).parents[1] / "configs" / "demo.yaml"))
    datasets = {
        name: Dataset(Folder(str(tmp_path / name)), pa.schema([]), "adapters", name)
        for name in ("music", "sports")
    }
    run.finish(datasets, {"music": 30, "sports": 10}, time.monotonic() - 40)
    assert datasets["music"].summary().seconds == pytest.approx(30, abs=1)
    assert datasets["sports"].summary().seconds == pytest.approx(10, abs=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("adapters     done: 40 of 40 rows in 2 datasets, 0:4")
