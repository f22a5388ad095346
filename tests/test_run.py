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


def write_texts(run, domain, texts):
    """The texts stage, without its work; ids are t0, t1, ..."""
    step = run.plan.texts[domain]
    made = run.dataset(step)
    made.begin(step.config)
    rows = [
        {"id": f"t{i}", "domain": domain, "text": text, "split": split, "source": "own"}
        for i, (text, split) in enumerate(texts.items())
    ]
    rows = [{name: row.get(name) for name in made.schema.names} for row in rows]
    made.commit("00000", Outcome(pa.Table.from_pylist(rows, schema=made.schema)), 1)
    run.finish({domain: made}, {domain: len(rows)}, time.monotonic())


def test_an_adapter_is_kept_from_what_a_test_set_tests(tmp_path):
    def run_with(**transcripts):
        sets = []
        for name, text in transcripts.items():
            (tmp_path / f"{name}.jsonl").write_text(f'{{"audio": "a.wav", "text": "{text}"}}\n')
            sets.append({"name": name, "manifest": str(tmp_path / f"{name}.jsonl")})
        domains = []
        for name in ("music", "sports"):
            (tmp_path / f"{name}.txt").write_text("x\n")
            domains.append({"name": name, "utterances": 9, "texts": str(tmp_path / f"{name}.txt")})
        tree = {"name": "x", "output": str(tmp_path / "out"), "domains": domains}
        return Run(parse_config({**tree, "evaluation": {"test_sets": sets}}))

    def adapters(run):
        return {domain: step.hash for domain, step in run.plan.adapters.items()}

    run = run_with(calls="Turn it up!")
    unaware = adapters(run)
    write_texts(run, "music", {"turn it up": "train", "play a song": "train"})
    write_texts(run, "sports", {"who won": "train", "play a song": "test"})
    assert adapters(run) == unaware
    run.plan_again()
    # One by the recordings, one by what the other domain holds out.
    assert run.plan.adapters["music"].params["excluded"] == ["t0", "t1"]
    assert adapters(run)["music"] != unaware["music"]
    assert adapters(run)["sports"] == unaware["sports"]
    das = run.plan.transcripts["das", "calls"]
    assert run.plan.adapters["music"] in das.deps
    # Another test set matters where it shares a text, and nowhere else.
    assert adapters(run_with(calls="Turn it up!", more="hello there")) == adapters(run)
    more = adapters(run_with(calls="Turn it up!", more="Who won?"))
    assert more["music"] == adapters(run)["music"]
    assert more["sports"] != adapters(run)["sports"]


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

    write_texts(run, "own", {"a text of mine": "train"})
    assert not run.has_work(["generate"])
    assert run.has_work(["synthesize"])
