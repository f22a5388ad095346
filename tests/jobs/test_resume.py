"""kill -9 of the driver in the middle of stages, then the same command."""

import contextlib
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from job_project import ROOT, make_project
from safetensors.numpy import load_file

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def kill_when(project, pattern, count):
    """Start a run, kill its driver once ``count`` files match; it must still be at work then."""
    log = project.config.with_name("killed.log")
    with log.open("w") as out:
        process = subprocess.Popen(
            project.command("run"), cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
    deadline = time.monotonic() + 400  # a slow machine takes minutes to start a stage
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(project.output.glob(pattern))) >= count:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    pytest.fail(f"ended, or never came to {pattern}: {log.read_text()[-4000:]}")


SEED = {
    "use_case": "question generation in English",
    "skills": ["singer", "album"],
    "persona": "teenager",
    "instruction": "Generate questions about music.",
}
# Instructions are made as replies are, and features as speech is.
KILLS = (  # stage, files that show it at work, how many of them
    ("replies", "replies/*/data/*.parquet", 2),
    ("speech", "speech/*/data/*.parquet", 3),
    ("adapters", "train/*/checkpoint_*", 1),
    ("transcripts", "transcripts/*/data/*.parquet", 3),
)


def small_blocks(tiny, folder):
    """A domain that the LLM writes, so that every stage has work, in blocks of two rows."""
    project = make_project(
        tiny,
        folder,
        domains=("music",),
        tts={"engine": "piper"},
        rows_per_block=2,
        llm={"engine": "fake", "batch_rows": 1},
        text={"instructions_per_seed": 60, "texts_per_reply": 2},
    )
    tree = yaml.safe_load(project.config.read_text())
    tree["domains"] = [{"name": "music", "utterances": 16, "held_out": 3, "seeds": [SEED]}]
    project.config.write_text(yaml.safe_dump(tree))
    return project


@pytest.mark.timeout(2000)
def test_a_run_killed_in_one_stage_after_the_other_ends_as_an_undisturbed_one(tiny, tmp_path):
    calm, killed = (small_blocks(tiny, tmp_path / name) for name in ("calm", "killed"))
    with ThreadPoolExecutor(1) as beside:
        undisturbed = beside.submit(calm.das, "run", timeout=900)
        for stage, pattern, count in KILLS:
            kill_when(killed, pattern, count)
            assert len(list(killed.output.glob(f"{stage}/*/summary.json"))) == 0
        undisturbed.result()
    killed.das("run")

    for folder in calm.output.glob("*/*-????????/data"):
        stage, name = folder.parent.parent.name, folder.parent.name.rsplit("-", 1)[0]
        ids = [row["id"] for row in calm.rows(stage, name)]
        assert [row["id"] for row in killed.rows(stage, name)] == ids, (stage, name)
        assert len(set(ids)) == len(ids)
    weights = [
        load_file(p.step("adapters", "music") / "adapter" / "adapter_model.safetensors")
        for p in (calm, killed)
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, values in weights[0].items():
        assert (values == weights[1][name]).all(), name
    leftovers = [p for p in killed.output.rglob("*.tmp") if "train" not in p.parts]
    assert leftovers == []
