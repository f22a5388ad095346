"""What a model of 135 million parameters really replied, through the whole text stage."""

import json

import pyarrow.parquet as pq
import pytest
import yaml
from job_project import ROOT

from das_lib.config.load import load_config
from das_lib.errors import DasError
from ray_jobs.generate import generate
from ray_jobs.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

# Made by: das generate -c configs/demo.yaml --set llm.record=tests/text/smollm2.jsonl, for the
# first domain and three instructions a seed.
RECORDING = ROOT / "tests" / "text" / "smollm2.jsonl"


def music(folder, recording) -> Run:
    tree = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    tree |= {"output": str(folder / "out"), "domains": tree["domains"][:1], "evaluation": {}}
    tree["llm"] |= {"engine": "recorded", "recording": str(recording)}
    tree["text"] |= {"instructions_per_seed": 3, "max_rounds": 1, "on_domain": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return Run(load_config(folder / "config.yaml"))


def test_real_replies_of_a_small_model_are_read_and_sifted(two_cpus, tmp_path):
    run = music(tmp_path, RECORDING)
    generate(run)
    texts = run.source(run.plan.texts["music"])
    summary = texts.summary()
    assert (summary.rows_in, summary.rows_out) == (6 * 8, 38)
    assert summary.reasons == {"duplicate": 7, "near-duplicate": 3}
    assert run.source(run.plan.instructions["music"]).summary().rejected == 0


def test_a_prompt_that_was_not_recorded_is_rejected_and_says_so(two_cpus, tmp_path):
    lines = RECORDING.read_text().splitlines()
    short = tmp_path / "short.jsonl"
    short.write_text("\n".join(line for line in lines if "keywords" in json.loads(line)["reply"]))
    run = music(tmp_path, short)
    with pytest.raises(DasError, match=r"replies/music: none of 6 .*llm-failed"):
        generate(run)
    (folder,) = (tmp_path / "out" / "replies").glob("music-*")
    (detail,) = set(pq.read_table(folder / "rejects")["detail"].to_pylist())
    assert "record it with llm.record" in detail
