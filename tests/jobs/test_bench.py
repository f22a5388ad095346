"""The benchmarks that need Ray, on fake engines."""

import json
import os
import statistics
from pathlib import Path

import pytest

from das_lib.errors import DasError
from ray_jobs import measured_transcribe
from ray_jobs.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SHARED = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "speech"


def test_speech_through_ray_data_is_measured_beside_bare_engines(capsys):
    command = ["bench", "synthesize", "--engine", "fake", "--texts", "60", "--rounds", "1"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bench"] == "synthesize"
    (row,) = found["rows"]
    assert (row["engine"], row["actors"], row["texts"]) == ("fake", 2, 60)
    assert row["pipeline_rate"] > 0
    assert row["ratio"] == pytest.approx(row["pipeline_rate"] / row["bare_rate"])


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared speech in {SHARED}: DAS_SHARED_DATA")
def test_the_bulk_job_is_measured_between_two_runs_of_the_bare_loop(tiny, capsys, monkeypatch):
    bare, measure = [], measured_transcribe.bare_rtfx
    monkeypatch.setattr(
        measured_transcribe, "bare_rtfx", lambda *args: bare.append(measure(*args)) or bare[-1]
    )
    command = ["bench", "transcribe", "--model", str(tiny), "--k", "1", "--batch", "2"]
    assert main([*command, "--recordings", "12", "--bare", "4"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["k"], row["recordings"], row["replicas"]) == (1, 12, 2)
    assert len(bare) == 2
    assert row["bare_rtfx"] == pytest.approx(statistics.harmonic_mean(bare))
    assert row["ratio"] == pytest.approx(row["pipeline_rtfx"] / row["bare_rtfx"])
    assert 0 < row["batch_fill"] <= 1


def test_the_sentences_differ_and_a_rate_leaves_start_and_end_out():
    from ray_jobs.measured import sentences, steady_rate

    assert len(set(sentences(250))) == 250
    # Two workers that begin at 30 s and 31 s, then 4 amounts of 5 until 41 s; what each still has
    # then is done sooner, for nothing new is begun beside it.
    commits = [(30, 5), (31, 5), (35, 5), (36, 5), (40, 5), (41, 5), (43, 5), (43, 5)]
    assert steady_rate(commits, 2) == pytest.approx(20 / 10)
    with pytest.raises(DasError, match="give more texts"):
        steady_rate(commits[:4], 2)


def test_many_files_are_compared_with_the_median_of_the_fewest():
    from ray_jobs.scale_files import compared

    rows = [{"files": n, "files_per_s": r} for n, r in ((10, 4), (10, 9), (99, 3), (10, 6))]
    assert [row["ratio"] for row in compared(rows)] == [4 / 6, 9 / 6, 3 / 6, 1]
