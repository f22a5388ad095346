"""The encoder and the packed products against stock transformers and plain torch."""

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from das_lib.adml.checkpoint import read_checkpoint
from das_lib.adml.encoder import Encoder
from das_lib.adml.linear import check_precision, has_onednn, pack, project
from das_lib.errors import DasError, ModelError

CPU = torch.device("cpu")
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-5, "bfloat16-all": 0.02, "int8": 0.04}
"""Root mean square of the error, relative to the spread of what is wanted."""


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def error(got, want):
    return (got.float() - want).square().mean().sqrt() / want.std()


@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_encoder_gives_what_stock_transformers_gives(base, precision):
    mel = torch.randn(3, 20, 100)
    want = WhisperForConditionalGeneration.from_pretrained(base).eval().model.encoder(mel)
    got = Encoder(read_checkpoint(base), precision=precision, device=CPU)(mel)
    assert error(got, want.last_hidden_state) < TOLERANCE[precision]


@pytest.mark.parametrize("amx", [False, True])
def test_both_forms_of_attention_in_bfloat16_hold_on_any_cpu(base, monkeypatch, amx):
    monkeypatch.setattr("das_lib.adml.encoder.has_amx", lambda: amx)
    test_the_encoder_gives_what_stock_transformers_gives(base, "bfloat16-all")


@pytest.mark.skipif(
    not has_onednn(torch.bfloat16), reason="this CPU has no packed bfloat16 product (AVX-512)"
)
def test_a_bias_is_not_rounded_to_bfloat16():
    weight, bias = torch.full((1, 16), -16.0), torch.tensor([256.7])
    linear = pack(weight, bias, precision="bfloat16-all", device=CPU)
    y = linear(torch.ones(1, 16, dtype=torch.bfloat16))
    assert y.item() == pytest.approx(0.7, abs=0.01)


def test_a_cpu_without_bfloat16_packing_or_vnni_decodes_all_the_same(base, monkeypatch):
    monkeypatch.setattr("das_lib.adml.linear.has_vnni", lambda: False)
    monkeypatch.setattr("das_lib.adml.linear.has_onednn", lambda dtype: dtype == torch.float32)
    for precision in ("bfloat16-all", "int8"):
        test_the_encoder_gives_what_stock_transformers_gives(base, precision)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(1, 16), (5, 16), (2, 3, 16)])
def test_a_packed_projection_is_the_plain_one(precision, gelu, shape):
    x, weight, bias = torch.randn(shape), torch.randn(24, 16), torch.randn(24)
    linear = pack(weight, bias, precision=precision, device=CPU)
    other = torch.randn(24)
    x_cast = x.bfloat16() if precision == "bfloat16-all" else x
    if precision == "bfloat16":
        weight = weight.bfloat16().float()
    for used, b in ((linear, bias), (linear.with_bias(other), other)):
        want = torch.nn.functional.linear(x, weight, b)
        want = torch.nn.functional.gelu(want) if gelu else want
        assert error(used(x_cast, gelu=gelu), want) < TOLERANCE[precision]


def test_a_product_with_weights_of_one_use_is_the_plain_one():
    x, weight = torch.randn(2, 7, 16), torch.randn(24, 16)
    torch.testing.assert_close(project(x, weight), x @ weight.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("precision", "device", "known"),
    [
        ("float16", "cpu", "bfloat16-all, int8"),
        ("int8", "cuda", "float16"),
        ("fp8", "cpu", "float32"),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused_with_those_it_has(precision, device, known):
    with pytest.raises(DasError, match=known):
        check_precision(precision, torch.device(device))


def test_a_checkpoint_without_a_weight_is_refused_by_name(base):
    with pytest.raises(ModelError, match=r"no weight 'encoder\.conv9\.weight'"):
        read_checkpoint(base)["encoder.conv9.weight"]


def test_a_folder_without_safetensors_is_refused_with_the_remedy(base, tmp_path):
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    with pytest.raises(ModelError, match="safe_serialization"):
        read_checkpoint(tmp_path)


def test_weights_in_several_files_are_read_together(base, tmp_path):
    model = WhisperForConditionalGeneration.from_pretrained(base)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    (tmp_path / "generation_config.json").write_bytes(
        (base / "generation_config.json").read_bytes()
    )
    one, several = read_checkpoint(base), read_checkpoint(tmp_path)
    assert one.tensors.keys() == several.tensors.keys()
    assert all(torch.equal(one.tensors[n], several.tensors[n]) for n in one.tensors)
