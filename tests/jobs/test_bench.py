"""The benchmarks that need Ray, on fake engines."""

import json

import pytest

from ray_jobs.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def test_speech_through_ray_data_is_measured_beside_bare_engines(capsys):
    command = ["bench", "synthesize", "--engine", "fake", "--texts", "60", "--rounds", "1"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bench"] == "synthesize"
    (row,) = found["rows"]
    assert (row["engine"], row["actors"], row["texts"]) == ("fake", 2, 60)
    assert row["pipeline_rate"] > 0
    assert row["ratio"] == pytest.approx(row["pipeline_rate"] / row["bare_rate"])


def test_the_sentences_differ_and_a_rate_leaves_the_start_out():
    from ray_jobs.measured import marginal_rate, sentences

    assert len(set(sentences(250))) == 250
    assert marginal_rate(lambda count: (10 * count, 60 + 2 * count), 5) == pytest.approx(5)
