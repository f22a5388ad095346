import json

import pytest
import torch
from peft import PeftModel
from transformers import WhisperForConditionalGeneration

from das_lib.config.tree import Lora
from das_lib.errors import DasError, ModelError
from das_lib.train.base import load_base
from das_lib.train.lora import make_peft_model, save_adapter, save_initial

TOKENS = torch.tensor([[257, 258, 260, 261, 5, 6, 7]])


def logits(model, base) -> torch.Tensor:
    torch.manual_seed(3)
    encoded = (torch.randn(1, 50, 32),)
    with torch.no_grad():
        return model.eval()(encoder_outputs=encoded, decoder_input_ids=TOKENS).logits


def disturb(model) -> None:
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)


@pytest.mark.parametrize("init", ["pissa", "default"])
def test_an_untrained_adapter_changes_nothing_and_only_the_decoder_trains(base, init):
    before = logits(load_base(base), base)
    model = make_peft_model(load_base(base), Lora(rank=4, init=init), 0)
    assert (logits(model, base) - before).abs().max() < 1e-5
    trained = [n for n, w in model.named_parameters() if w.requires_grad]
    assert len(trained) == 2 * 2 * 2 * 2  # layers, attentions, targets, factors
    assert all(".decoder." in n and "lora_" in n for n in trained)


def test_all_targets_are_found_in_the_decoder_alone(base):
    targets = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    model = make_peft_model(load_base(base), Lora(rank=4, targets=targets), 0)
    trained = [n for n, w in model.named_parameters() if w.requires_grad]
    assert len(trained) == 2 * (2 * 4 + 2) * 2
    assert all(".decoder." in n for n in trained)


@pytest.mark.parametrize("rank_stabilized", [True, False])
@pytest.mark.parametrize("init", ["pissa", "default"])
def test_the_stored_adapter_on_the_stock_base_is_the_trained_model(
    base, tmp_path, init, rank_stabilized
):
    lora = Lora(rank=4, alpha=8, init=init, rank_stabilized=rank_stabilized)
    model = make_peft_model(load_base(base), lora, 0)
    save_initial(model, tmp_path / "init")
    disturb(model)
    trained = logits(model, base)
    out = tmp_path / "adapters" / "music"
    save_adapter(model, tmp_path / "init", out, "openai/whisper-base", "what was done")
    stock = WhisperForConditionalGeneration.from_pretrained(base)
    plain = logits(stock, base)
    loaded = logits(PeftModel.from_pretrained(stock, out), base)
    assert (loaded - trained).abs().max() < 1e-4
    assert (loaded - plain).abs().max() > 1e-2
    assert (logits(model, base) - trained).abs().max() == 0  # saving left the model alone
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "openai/whisper-base"
    assert config["r"] == (8 if init == "pissa" else 4)
    assert config["task_type"] is None
    assert config["init_lora_weights"] is True
    assert (out / "README.md").read_text() == "what was done"
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert [p.name for p in out.parent.iterdir()] == ["music"]


def test_saving_replaces_an_older_adapter(base, tmp_path):
    model = make_peft_model(load_base(base), Lora(rank=4, init="default"), 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    save_adapter(model, tmp_path / "init", tmp_path / "out", "b", "")
    assert not (tmp_path / "out" / "old").exists()


def test_a_base_without_a_target_and_a_rank_above_its_width_are_refused(base):
    whisper = load_base(base)
    for layer in whisper.model.decoder.layers:
        layer.fc1, layer.dense = None, layer.fc1
    with pytest.raises(ModelError, match="no fc1"):
        make_peft_model(whisper, Lora(rank=4, targets=("q_proj", "fc1")), 0)
    with pytest.raises(DasError, match=r"lora\.rank=33.*width 32"):
        make_peft_model(load_base(base), Lora(rank=33), 0)
