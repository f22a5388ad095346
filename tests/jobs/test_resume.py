"""kill -9 of the driver in the middle of stages, then the same command."""

import contextlib
import os
import signal
import subprocess
import time

import pytest
from job_project import ROOT, make_project
from safetensors.numpy import load_file

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def kill_when(project, pattern, count):
    """Start a run, kill its driver once ``count`` files match; whether it was still at work."""
    process = subprocess.Popen(
        project.command("run"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(project.output.glob(pattern))) >= count:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return False


@pytest.mark.timeout(900)
def test_a_run_killed_three_times_ends_as_an_undisturbed_one(tiny, tmp_path):
    slow_enough = {"tts": {"engine": "piper"}, "rows_per_block": 2}
    calm = make_project(tiny, tmp_path / "calm", texts=16, **slow_enough)
    calm.das("run")
    killed = make_project(tiny, tmp_path / "killed", texts=16, **slow_enough)
    for stage, pattern, count in (
        ("speech", "speech/*/data/*.parquet", 3),
        ("adapters", "train/*/checkpoint_*", 1),
        ("transcripts", "transcripts/*/data/*.parquet", 3),
    ):
        assert kill_when(killed, pattern, count), f"{stage} ended before it could be killed"
        assert len(list(killed.output.glob(f"{stage}/*/summary.json"))) == 0
    killed.das("run")

    for stage in ("texts", "speech", "features", "corpus", "transcripts"):
        for folder in (calm.output / stage).iterdir():
            name = folder.name.rsplit("-", 1)[0]
            ids = [row["id"] for row in calm.rows(stage, name)]
            assert [row["id"] for row in killed.rows(stage, name)] == ids, (stage, name)
            assert len(set(ids)) == len(ids)
    for domain in ("music", "sports"):
        weights = [
            load_file(p.step("adapters", domain) / "adapter" / "adapter_model.safetensors")
            for p in (calm, killed)
        ]
        # Not the values: a Piper session draws its noise in turn, so a clip depends on what the
        # same actor spoke before, and a resumed run hears slightly other speech.
        assert weights[0].keys() == weights[1].keys()
    leftovers = [p for p in killed.output.rglob("*.tmp") if "train" not in p.parts]
    assert leftovers == []
