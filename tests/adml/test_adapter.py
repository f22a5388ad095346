"""Every adapter that cannot share its base is refused by name, with both values and a remedy."""

import json
import re
import shutil

import pytest
import torch
from adml_helpers import pissa_adapter, random_adapter
from safetensors.torch import load_file, save_file

from das_lib.adml.bank import AdapterBank, merge
from das_lib.adml.checkpoint import read_checkpoint
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


def change(delta, part):
    """B_i A_i of every branch. [K, O, I]."""
    return (delta.a_KIR[..., part.ranks] @ part.b_KRO).transpose(1, 2)


def test_a_converted_pissa_adapter_is_plain_lora(tmp_path, base):
    folder, merged = pissa_adapter(tmp_path / "music", base, seed=1)
    bank = AdapterBank.load(base, {"music": folder})
    assert bank.common == {}, "one adapter alone shares nothing"
    delta = bank.stack((0, 1), dtype=torch.float32, device=torch.device("cpu"))
    got = delta["0.self_attn.qkv"]
    assert got.a_KIR.shape[-1] == 2 * (4 + 4), "q and v, each of twice the rank"
    stock = read_checkpoint(base)
    for name, part in zip("qv", got.parts, strict=True):
        part_OI = change(got, part)[0]
        want = merged[f"0.self_attn.{name}_proj"]
        want = want - stock[f"decoder.layers.0.self_attn.{name}_proj.weight"]
        torch.testing.assert_close(part_OI, want, atol=1e-5, rtol=1e-4)
        assert part.outputs == {"q": slice(0, 32), "v": slice(64, 96)}[name]


def test_pissa_adapters_of_one_start_run_at_their_own_rank_over_the_common_residual(tmp_path, base):
    made = [pissa_adapter(tmp_path / f"a{i}", base, seed=i) for i in (1, 2, 3)]
    bank = AdapterBank.load(base, {f"a{i}": folder for i, (folder, _) in enumerate(made)})
    stock = read_checkpoint(base)
    assert len(bank.common) == 2 * 4, "q and v of both attentions in both layers"
    deltas = bank.stack((0, 1, 2, 3), dtype=torch.float32, device=torch.device("cpu"))
    assert {delta.a_KIR.shape[-1] for delta in deltas.values()} == {4, 8}
    for site, pair in bank.common.items():
        weight_OI = stock[f"decoder.layers.{site}.weight"]
        residual_OI = merge(weight_OI, pair)
        branches = [weight_OI, *(merged[site] for _, merged in made)]
        layer, block, projection = site.split(".")
        fused = block == "self_attn"
        delta = deltas[f"{layer}.self_attn.qkv" if fused else site]
        part = delta.parts["qv".index(projection[0]) if fused else 0]
        changed_NOI = residual_OI + change(delta, part)
        torch.testing.assert_close(changed_NOI, torch.stack(branches), atol=1e-5, rtol=1e-4)
    before = bank.common
    bank.remove("a2")
    assert bank.common is before, "the same residual: the base's weights stay packed"
    bank.remove("a1")
    assert bank.common == {}


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


def test_the_folder_around_an_adapter_is_refused_and_the_adapter_named(base, folder):
    refused(base, folder.parent, "cannot be read", f"name {folder}")


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
