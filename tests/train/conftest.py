"""A tiny base model on disk, and features made of noise for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_tiny import END, ENGLISH, FRAMES, NO_TIMESTAMPS, START, TASK, WIDTH

from das_lib.config.tree import Lora, Train
from das_lib.testing import tiny_whisper
from das_lib.train.job import FitJob
from schemas.speech import FEATURES

MakeFeatures = Callable[..., list[str]]


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return tiny_whisper(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_features(tmp_path) -> MakeFeatures:
    def make(rows: int, *, files: int = 1, rows_per_group: int = 4, name: str = "f") -> list[str]:
        rng = np.random.default_rng(0)
        prompt = [START, ENGLISH, TASK, NO_TIMESTAMPS]
        table = [
            {
                "id": f"row-{i:04d}",
                "domain": "music",
                "labels": [*prompt, *rng.integers(0, 256, rng.integers(2, 9)).tolist(), END],
                "prompt_length": len(prompt),
                "encoded": rng.normal(size=(FRAMES, WIDTH)).astype(np.float16).tobytes(),
                "frames": FRAMES,
                "width": WIDTH,
            }
            for i in range(rows)
        ]
        paths = []
        for i in range(files):
            paths.append(str(tmp_path / f"{name}-{i}.parquet"))
            part = pa.Table.from_pylist(table[i::files], schema=FEATURES)
            pq.write_table(part, paths[-1], row_group_size=rows_per_group)
        return paths

    return make


@pytest.fixture
def make_job(base, tmp_path) -> Callable[..., FitJob]:
    def make(files: list[str], *, domain: str = "music", lora=None, excluded=(), **train) -> FitJob:
        recipe = {"learning_rate": 3e-3, "epochs": 2, "batch_size": 4, "max_failures": 0}
        return FitJob(
            domain=domain,
            run_name=f"{domain}-12345678",
            storage_path=str(tmp_path / "runs"),
            feature_files=tuple(files),
            excluded=excluded,
            model=str(base),
            base_name="openai/whisper-base",
            lora=Lora(**{"rank": 4, "alpha": 8, **(lora or {})}),
            train=Train(**{**recipe, **train}),
            seed=7,
            adapter_dir=str(tmp_path / "adapters" / domain),
            curve_dir=str(tmp_path / "curves" / domain),
        )

    return make
