import json

from das_lib.models.folders import model_problem, weights_problem


def make(folder, *names, model_type="llama"):
    for name in names:
        (folder / name).write_text("x")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def test_a_whole_folder_has_no_problem(tmp_path):
    make(tmp_path, "model.safetensors", "tokenizer.json")
    assert model_problem(tmp_path) is None


def test_every_shard_that_the_index_names_must_be_there(tmp_path):
    make(tmp_path, "a.safetensors", "tokenizer.json")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights_problem(tmp_path) == "lacks 1 of 2 weight files (b.safetensors)"
    (tmp_path / "b.safetensors").write_text("x")
    assert model_problem(tmp_path) is None


def test_a_dangling_link_is_no_weight_file(tmp_path):
    make(tmp_path, "tokenizer.json")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "pruned")
    assert weights_problem(tmp_path) == "has no model.safetensors"


def test_a_model_without_tokenizer_is_not_whole(tmp_path):
    make(tmp_path, "model.safetensors")
    assert model_problem(tmp_path) == "has no tokenizer"


def test_whisper_needs_its_feature_extractor(tmp_path):
    make(tmp_path, "model.safetensors", "tokenizer.json", model_type="whisper")
    assert model_problem(tmp_path) == "has no preprocessor_config.json"
