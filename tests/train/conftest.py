"""A tiny base model on disk, and features made of noise for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_tiny import END, ENGLISH, FRAMES, MEL_BINS, NO_TIMESTAMPS, START, TASK, WIDTH

from das_lib.config.tree import Baselines, Lora, Train
from das_lib.testing import tiny_whisper
from das_lib.train.job import FitJob
from schemas.speech import FEATURES

MakeFeatures = Callable[..., list[str]]


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return tiny_whisper(tmp_path_factory.mktemp("tiny"))


def write_rows(
    folder: Path,
    rows: int,
    frames: int,
    width: int,
    *,
    files: int,
    rows_per_group: int,
    name: str,
    seed: int = 0,
) -> list[str]:
    rng = np.random.default_rng(seed)
    prompt = [START, ENGLISH, TASK, NO_TIMESTAMPS]
    table = [
        {
            "id": f"row-{i:04d}",
            "domain": "music",
            "labels": [*prompt, *rng.integers(0, 256, rng.integers(2, 9)).tolist(), END],
            "prompt_length": len(prompt),
            "encoded": rng.normal(size=(frames, width)).astype(np.float16).tobytes(),
            "frames": frames,
            "width": width,
        }
        for i in range(rows)
    ]
    paths = []
    for i in range(files):
        paths.append(str(folder / f"{name}-{i}.parquet"))
        part = pa.Table.from_pylist(table[i::files], schema=FEATURES)
        pq.write_table(part, paths[-1], row_group_size=rows_per_group)
    return paths


@pytest.fixture
def make_features(tmp_path) -> MakeFeatures:
    """Rows of encoder output."""

    def make(
        rows: int, *, files: int = 1, rows_per_group: int = 4, name: str = "f", seed: int = 0
    ) -> list[str]:
        options = {"files": files, "rows_per_group": rows_per_group, "name": name, "seed": seed}
        return write_rows(tmp_path, rows, FRAMES, WIDTH, **options)

    return make


@pytest.fixture
def make_spectrograms(tmp_path) -> MakeFeatures:
    """Rows of log-mel."""

    def make(rows: int) -> list[str]:
        options = {"files": 1, "rows_per_group": 4, "name": "mel"}
        return write_rows(tmp_path, rows, 2 * FRAMES, MEL_BINS, **options)

    return make


@pytest.fixture
def make_job(base, tmp_path) -> Callable[..., FitJob]:
    def make(
        *files: list[str],
        system: str = "lora:music",
        lora=None,
        excluded=(),
        anchor=(),
        weight=0,
        **train,
    ) -> FitJob:
        recipe = {"learning_rate": 3e-3, "epochs": 2, "batch_size": 4, "max_failures": 0}
        recipe |= {"validation": 0, "interpolation": 1}
        name = system.replace(":", "_")
        return FitJob(
            system=system,
            run_name=f"{name}-12345678",
            storage_path=str(tmp_path / "runs"),
            feature_files=tuple(map(tuple, files)),
            anchor_files=tuple(map(tuple, anchor)),
            excluded=excluded,
            model=str(base),
            base_name="openai/whisper-base",
            lora=Lora(**{"rank": 4, "alpha": 8, "init": "pissa", **(lora or {})}),
            train=Train(**{**recipe, "anchor": weight, **train}),
            baselines=Baselines(learning_rate=1e-3, last_layers=1),
            seed=7,
            out_dir=str(tmp_path / "results" / name),
            curve_dir=str(tmp_path / "curves" / name),
        )

    return make
