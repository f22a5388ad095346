"""Every adapter that cannot share its base is refused by name, with both values and a remedy."""

import json
import re
import shutil

import pytest
import torch
from adml_helpers import ATTENTION_QV, random_adapter
from safetensors.torch import load_file, save_file

from das_lib.adml.bank import AdapterBank
from das_lib.errors import ModelError
from das_lib.testing import tiny_whisper

KEY = "base_model.model.model.decoder.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.fixture
def folder(tmp_path, base):
    return random_adapter(tmp_path / "good", base, seed=1)


def refused(base, folder, *words):
    """Loading fails with a ModelError that holds the adapter's name and all these words."""
    with pytest.raises(ModelError) as error:
        AdapterBank.load(base, {"music": folder})
    message = str(error.value)
    for word in ("adapter 'music'", *words):
        assert word in message, f"{word!r} not in {message!r}"


def edit(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(change(tensors) or tensors, path)


@pytest.mark.parametrize(
    "field",
    [
        {"use_dora": True},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"modules_to_save": ["proj_out"]},
        {"peft_type": "IA3"},
        {"r": 7},
    ],
)
def test_a_configuration_beyond_plain_lora_is_refused(base, folder, field):
    edit(folder, **field)
    [(name, value)] = field.items()
    refused(base, folder, f"{name} is {value!r}", ";")


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16", "olora", "corda", "loftq"])
def test_an_initialisation_that_changed_the_base_is_refused(base, folder, init):
    edit(folder, init_lora_weights=init)
    refused(base, folder, init, "true", "path_initial_model_for_weight_conversion")


def test_a_converted_pissa_adapter_is_plain_lora(tmp_path, base):
    from peft import LoraConfig, get_peft_model
    from transformers import WhisperForConditionalGeneration

    config = LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        init_lora_weights="pissa",
        target_modules=ATTENTION_QV,
    )
    peft = get_peft_model(WhisperForConditionalGeneration.from_pretrained(base), config)
    peft.peft_config["default"].init_lora_weights = True
    peft.save_pretrained(tmp_path / "initial")
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    peft.save_pretrained(tmp_path / "raw")
    peft.peft_config["default"].init_lora_weights = "pissa"
    peft.save_pretrained(
        tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "initial")
    )
    bank = AdapterBank.load(base, {"music": tmp_path / "plain"})
    delta = bank.stack((0, 1), dtype=torch.float32, device=torch.device("cpu"))
    peft.merge_and_unload()
    stock = WhisperForConditionalGeneration.from_pretrained(base).model.decoder.layers[0]
    merged = peft.base_model.model.model.decoder.layers[0].self_attn.q_proj.weight
    got = delta["0.self_attn.q_proj"]
    torch.testing.assert_close(
        (got.a_KIR @ got.b_KRO)[0].T, merged - stock.self_attn.q_proj.weight, atol=1e-5, rtol=1e-4
    )


def test_an_adapter_of_a_wider_base_is_refused_with_both_widths(tmp_path, base):
    other = tiny_whisper(tmp_path / "wide", d_model=48)
    refused(base, random_adapter(tmp_path / "a", other, seed=1), "48", "32", "load the adapter on")


def test_an_adapter_of_a_deeper_base_is_refused_with_both_depths(tmp_path, base):
    other = tiny_whisper(tmp_path / "deep", layers=3)
    refused(base, random_adapter(tmp_path / "a", other, seed=1), "layer 2", "0 to 1")


@pytest.mark.parametrize(
    "targets", [r".*encoder\.layers\.0\.self_attn\.q_proj", "proj_out", ".*embed_tokens"]
)
def test_targets_outside_the_decoder_are_refused(tmp_path, base, targets):
    other = random_adapter(tmp_path / "a", base, seed=1, target_modules=targets)
    refused(base, other, "target_modules reaches", "self_attn.q_proj")


def test_weights_that_match_no_projection_are_refused(base, folder):
    save_file({}, folder / "adapter_model.safetensors")
    refused(base, folder, "0 projections", "at least 1")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(base, folder, value):
    def poison(tensors):
        tensors[KEY.format("A")][1, 2] = value

    rewrite(folder, poison)
    refused(base, folder, KEY.format("A"), "1 values", "0 are allowed")


def test_an_untrained_adapter_is_refused_because_it_changes_no_logit(base, folder):
    def zero(tensors):
        return {k: t * 0 if "lora_B" in k else t for k, t in tensors.items()}

    rewrite(folder, zero)
    refused(base, folder, "lora_B is 0", "train it")


def test_half_a_pair_is_refused(base, folder):
    def drop(tensors):
        del tensors[KEY.format("B")]

    rewrite(folder, drop)
    refused(base, folder, "0.self_attn.q_proj has lora_A alone")


def test_pickled_weights_are_not_read(base, folder):
    torch.save({}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    refused(base, folder, "adapter_model.bin", "safe_serialization=True")


def test_damaged_files_are_refused(base, folder):
    (folder / "adapter_model.safetensors").write_bytes(b"no tensors")
    refused(base, folder, "damaged")
    (folder / "adapter_config.json").write_text("{")
    refused(base, folder, "no JSON")
    shutil.rmtree(folder)
    refused(base, folder, "cannot be read")


def test_a_base_that_is_no_whisper_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="model_type 'llama'"):
        AdapterBank.load(tmp_path, {})


def test_a_name_is_used_once(base, folder):
    bank = AdapterBank.load(base, {"music": folder})
    for name in ("music", "base"):
        with pytest.raises(ModelError, match=re.escape("taken by one of ['base', 'music']")):
            bank.add(name, folder)
    with pytest.raises(ModelError, match="not in the bank"):
        bank.remove("sports")
