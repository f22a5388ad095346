import json

import pytest
from peft import PeftModel
from transformers import WhisperForConditionalGeneration

from das_lib.adapters.describe import describe
from das_lib.errors import ModelError


def test_ranks_parameters_and_norms_are_those_of_the_merged_weights(base, make_adapter):
    folder = make_adapter(seed=1, r=4, rank_pattern={"encoder_attn.v_proj": 6})
    found = describe(folder, base)
    stock = WhisperForConditionalGeneration.from_pretrained(base)
    count = sum(weight.numel() for weight in stock.parameters())
    before = {n: w.detach().clone() for n, w in stock.named_parameters()}
    merged = PeftModel.from_pretrained(stock, folder)
    size = sum(w.numel() for n, w in merged.named_parameters() if "lora_" in n)
    after = dict(merged.merge_and_unload().named_parameters())
    assert found.ranks == {
        "encoder_attn.q_proj": [4],
        "encoder_attn.v_proj": [6],
        "self_attn.q_proj": [4],
        "self_attn.v_proj": [4],
    }
    assert (found.parameters, found.share) == (size, size / count)
    for projection, share in found.change.items():
        names = [n for n in before if f"decoder.layers.{n.split('.')[3]}.{projection}.w" in n]
        assert len(names) == 2
        change = sum((after[n] - before[n]).square().sum().item() for n in names)
        weight = sum(before[n].square().sum().item() for n in names)
        assert share == pytest.approx((change / weight) ** 0.5, rel=1e-4)


def test_the_probe_tells_a_large_change_from_a_small_one(base, make_adapter):
    small, large = (describe(make_adapter(seed=1, size=s), base) for s in (0.001, 0.2))
    assert 0 < small.probe_logit < 0.1 < large.probe_logit
    assert 0 <= small.probe_kl < large.probe_kl
    again = describe(make_adapter(seed=1, size=0.2), base)
    assert again.probe_logit == large.probe_logit


def test_an_adapter_of_another_base_is_refused(base, make_adapter):
    folder = make_adapter(seed=1)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 5}))
    with pytest.raises(ModelError, match="r is 5"):
        describe(folder, base)
