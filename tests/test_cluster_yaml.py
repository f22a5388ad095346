from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import fillout_defaults, validate_config  # private: only here

CLUSTER = Path(__file__).parents[1] / "cluster.yaml"


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))


def check(cluster: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does before it talks to the cloud; defaults go first, or the error misleads."""
    filled = fillout_defaults(cluster)
    validate_config(filled)
    return filled


def test_ray_accepts_the_cluster(cluster):
    check(cluster)


@pytest.mark.parametrize("where", ["top", "node type"])
def test_a_misspelt_key_is_refused(cluster, where):
    target = cluster if where == "top" else cluster["available_node_types"]["tts"]
    target["max_wrokers"] = target.pop("max_workers")
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        check(cluster)


def test_the_head_takes_no_work(cluster):
    filled = check(cluster)
    assert filled["available_node_types"][filled["head_node_type"]]["resources"] == {"CPU": 0}


@pytest.mark.parametrize(("name", "gpus"), [("llm", 8), ("tts", 1), ("asr", 1)])
def test_a_gpu_type_scales_from_none(cluster, name, gpus):
    node = check(cluster)["available_node_types"][name]
    assert node["resources"]["GPU"] == gpus
    assert node["min_workers"] == 0
    assert node["max_workers"] >= 1


def test_only_idle_workers_are_given_back_and_the_limits_add_up(cluster):
    filled = check(cluster)
    workers = [node for name, node in filled["available_node_types"].items() if name != "head"]
    assert all(node["min_workers"] == 0 for node in workers)
    assert sum(node["max_workers"] for node in workers) == filled["max_workers"]
    assert filled["idle_timeout_minutes"] > 0


def test_every_node_has_the_same_image_and_python(cluster):
    images = {node["node_config"]["ImageId"] for node in cluster["available_node_types"].values()}
    assert len(images) == 1
    assert any("--python 3.11" in command for command in cluster["setup_commands"])


def test_token_authentication_is_on_everywhere(cluster):
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    for kind in ("head", "worker"):
        starts = [c for c in cluster[f"{kind}_start_ray_commands"] if "ray start" in c]
        assert starts
        assert all("RAY_AUTH_MODE=token" in command for command in starts)


def test_the_mounted_requirements_are_in_the_repository(cluster):
    mounted = {remote: local for remote, local in cluster["file_mounts"].items() if local[0] != "~"}
    commands = " ".join(cluster["setup_commands"] + cluster["head_setup_commands"])
    for remote, local in mounted.items():
        named = {word for word in commands.split() if word.startswith(f"{remote}/")}
        assert named
        for word in named:
            assert (CLUSTER.parent / word.replace(remote, local, 1)).is_file(), word
