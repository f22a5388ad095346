"""A run's bookkeeping, without Ray."""

import time
from pathlib import Path

import pyarrow as pa
import pytest

from das_lib.config import load_config, parse_config
from das_lib.dataset import Dataset
from das_lib.errors import DasError
from das_lib.rows import Outcome
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


def test_what_is_left_to_do_and_what_lacks_its_input_is_known_without_ray(tmp_path):
    texts, manifest = tmp_path / "own.txt", tmp_path / "m.jsonl"
    texts.write_text("a text of mine\n")
    manifest.write_text('{"audio": "a.wav", "text": "hello"}\n')
    domain = {"name": "own", "utterances": 9, "texts": str(texts)}
    sets = {"test_sets": [{"name": "human", "manifest": str(manifest)}]}
    tree = {"name": "x", "output": str(tmp_path / "out"), "domains": [domain], "evaluation": sets}
    run = Run(parse_config(tree))
    every = ["generate", "synthesize", "train", "transcribe", "evaluate"]
    assert run.has_work(every)
    with pytest.raises(DasError, match=r"texts/own is not finished .* run `das generate -c"):
        run.has_work(["synthesize"])

    row = {"id": "1", "domain": "own", "text": "a text of mine", "split": "train", "source": "own"}
    made = run.dataset(run.plan.texts["own"])
    made.begin(run.plan.texts["own"].config)
    rows = [{name: row.get(name) for name in made.schema.names}]
    made.commit("00000", Outcome(pa.Table.from_pylist(rows, schema=made.schema)), 1)
    run.finish({"own": made}, {"own": 1}, time.monotonic())
    assert not run.has_work(["generate"])
    assert run.has_work(["synthesize"])
