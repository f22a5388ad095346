import json

import pytest
import yaml

from ray_jobs.cli import main


def test_show_prints_the_figures_as_json(base, make_adapter, capsys):
    assert main(["adapters", "show", str(make_adapter(seed=1)), "--model", str(base)]) == 0
    assert json.loads(capsys.readouterr().out)["ranks"]["self_attn.q_proj"] == [4]


def test_export_finds_the_base_in_the_adapter(base, make_adapter, tmp_path, capsys):
    adapter = make_adapter(seed=1)
    assert main(["adapters", "export", str(adapter), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert main(["adapters", "export", str(adapter), str(tmp_path / "out")]) == 2
    assert "exists; nothing is overwritten" in capsys.readouterr().err


def test_a_folder_that_is_no_adapter_is_named(tmp_path, capsys):
    assert main(["adapters", "show", str(tmp_path)]) == 2
    assert "adapter_config.json names no base model" in capsys.readouterr().err


def test_what_is_not_trained_yet_is_listed_with_the_folder_to_come(tmp_path, capsys):
    texts = tmp_path / "t.txt"
    texts.write_text("turn it up\nturn it down\nplay a song\n")
    domain = {"name": "music", "utterances": 3, "texts": str(texts)}
    config = {"name": "x", "output": str(tmp_path / "runs"), "domains": [domain]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["adapters", "list", "-c", str(tmp_path / "c.yaml")]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith("music   not trained")
    assert f"{tmp_path}/runs/adapters/music-" in row


@pytest.mark.parametrize("action", ["list", "show", "export"])
def test_every_action_explains_itself(action, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["adapters", action, "--help"])
    assert stopped.value.code == 0
    assert "usage: das adapters" in capsys.readouterr().out
