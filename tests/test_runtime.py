"""Resources and places, before any Ray is started."""

import os
from pathlib import Path

import pytest
import ray

from das_lib.config import load_config
from das_lib.errors import DasError
from ray_jobs.runtime import (
    await_resources,
    output_folder,
    parallel_domains,
    ray_session,
    require_resources,
)

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "demo.yaml"


def test_the_demo_fits_two_cores():
    require_resources(load_config(DEMO), {"CPU": 2.0})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tts.pool.actors=3", r"speech needs 6 CPUs at once \(tts\.pool\), but Ray has 2; lower"),
        ("serve.pool.num_cpus=2", r"transcripts needs 4\.5 CPUs at once \(serve\.pool\)"),
        ("train.workers_per_domain=3", r"adapters needs 3 CPUs .*but Ray has 2"),
        ("features.num_gpus=1", r"features needs 2 GPUs at once .* but Ray has 0"),
        ("llm.num_cpus=4", r"texts needs .* CPUs at once .*but Ray has 2"),
    ],
)
def test_a_plan_that_would_hang_is_refused_with_the_numbers(override, message):
    with pytest.raises(DasError, match=message):
        require_resources(load_config(DEMO, (override,)), {"CPU": 2.0})


def test_a_node_that_is_not_back_yet_is_waited_for(monkeypatch, capsys):
    found = iter([1.0, 1.0, 2.0])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": next(found)})
    monkeypatch.setattr("ray_jobs.runtime.time.sleep", lambda _: None)
    await_resources(load_config(DEMO), patience_s=60.0)
    assert next(found, None) is None
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "waiting up to 60 s for more nodes: speech needs 2 CPUs at once" in said[0]


def test_nodes_that_never_come_are_not_waited_for_longer(monkeypatch, capsys):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    with pytest.raises(DasError, match="speech needs 2 CPUs"):
        await_resources(load_config(DEMO), patience_s=0.01)
    with pytest.raises(DasError, match="speech needs 2 CPUs"):
        await_resources(load_config(DEMO), patience_s=0.0)
    assert len(capsys.readouterr().err.splitlines()) == 1


LATE = Exception("The current node timed out during startup. This could happen because ...")


def starts(monkeypatch, *outcomes):
    """Have `ray.init` end so, one call after the other; what is left of them."""
    left = list(outcomes)

    def init(**_):
        outcome = left.pop(0)
        if outcome is not None:
            raise outcome

    # What a local Ray is given in the environment stays here.
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    monkeypatch.setattr(os, "environ", kept)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr("ray_jobs.runtime._quiet", lambda: None)  # changes this process
    return left


def test_a_local_ray_that_was_not_there_in_time_is_started_again(monkeypatch, capsys):
    left = starts(monkeypatch, LATE, LATE, None)
    with ray_session(load_config(DEMO)):
        assert not left
    assert capsys.readouterr().err.count("ray          did not start in time, trying again") == 2


def test_a_local_ray_that_never_starts_says_where_to_look(monkeypatch):
    left = starts(monkeypatch, LATE, LATE, LATE, None)
    with (
        pytest.raises(DasError, match=r"3 times in turn; .*raylet\.err"),
        ray_session(load_config(DEMO)),
    ):
        pass
    assert left == [None]


def test_another_failure_of_ray_is_not_tried_again(monkeypatch):
    left = starts(monkeypatch, ValueError("no such option"), None)
    with pytest.raises(ValueError, match="no such option"), ray_session(load_config(DEMO)):
        pass
    assert left == [None]


def test_a_growing_cluster_is_not_judged_by_its_head(monkeypatch):
    monkeypatch.setenv("DAS_AUTOSCALING", "1")
    config = load_config(ROOT / "configs" / "paper.yaml")
    require_resources(config, {"CPU": 0.0})
    assert parallel_domains(config, {"CPU": 0.0}) == 3


def test_domains_run_side_by_side_as_far_as_there_is_room():
    config = load_config(DEMO, ("train.pool.actors=5",))
    assert parallel_domains(config, {"CPU": 2.0}) == 2
    assert parallel_domains(config, {"CPU": 16.0}) == 5


def test_a_relative_output_of_a_submitted_job_survives_its_working_directory(tmp_path, monkeypatch):
    config = load_config(DEMO)
    monkeypatch.chdir(tmp_path)
    assert output_folder(config).url == str(tmp_path / "runs" / "demo")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("DAS_HOME", str(tmp_path / "home"))
    assert output_folder(config).url == str(tmp_path / "home" / "runs" / "demo")
    absolute = load_config(DEMO, ("output=s3://bucket/x",))
    assert output_folder(absolute).url == "s3://bucket/x"
