"""The training forward pass against transformers' own, values and gradients."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from das_lib.config.tree import Lora
from das_lib.train.base import load_base
from das_lib.train.forward import absorbs, decode
from das_lib.train.lora import make_peft_model

LORAS = {
    "pissa on q and v": {"targets": ("q_proj", "v_proj")},
    "every projection": {
        "targets": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        "init": "default",
    },
}
FEW, MANY = 5, 30


@pytest.fixture
def adapted(base):
    def make(which: str):
        model = make_peft_model(load_base(base), Lora(rank=4, alpha=8, **LORAS[which]), 0).train()
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight) * 0.1)
        return model

    return make


def gradients(model, hidden_BTD):
    weights = [w for w in model.parameters() if w.requires_grad]
    direction = torch.linspace(-1, 1, hidden_BTD.numel()).view_as(hidden_BTD)
    return torch.autograd.grad((hidden_BTD * direction).sum(), weights)


@pytest.mark.parametrize("which", LORAS)
@pytest.mark.parametrize("tokens", [FEW, MANY])
def test_values_and_gradients_are_those_of_transformers(adapted, which, tokens):
    model = adapted(which)
    whisper = model.base_model.model.model
    encoded = torch.randn(3, 50, 32)
    inputs = torch.randint(0, 256, (3, tokens))
    out = BaseModelOutput(last_hidden_state=encoded)
    want = whisper(encoder_outputs=out, decoder_input_ids=inputs, use_cache=False)
    got = decode(whisper.decoder, encoded, inputs)
    torch.testing.assert_close(got, want.last_hidden_state, atol=2e-5, rtol=1e-4)
    pairs = zip(gradients(model, got), gradients(model, want.last_hidden_state), strict=True)
    for ours, theirs in pairs:
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_both_orders_of_the_products_are_used_above(base):
    config = load_base(base).config
    few, many = (absorbs(t, config.d_model, config.decoder_attention_heads) for t in (FEW, MANY))
    assert few
    assert not many
    # whisper-base: the utterances of a voice assistant, not the longest that it knows.
    assert absorbs(20, 512, 8)
    assert not absorbs(200, 512, 8)


def test_a_base_with_dropout_drops_while_it_trains_and_not_afterwards(base):
    whisper = load_base(base).model
    whisper.config.dropout = 0.5
    encoded, inputs = torch.randn(1, 50, 32), torch.randint(0, 256, (1, FEW))
    trained = [decode(whisper.decoder.train(), encoded, inputs) for _ in range(2)]
    tested = [decode(whisper.decoder.eval(), encoded, inputs) for _ in range(2)]
    assert not torch.equal(*trained)
    assert torch.equal(*tested)
