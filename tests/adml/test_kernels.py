"""The fused kernels in Triton's interpreter, each against torch's operations.

On a GPU, `das bench parity --device cuda` compares the tokens that come of them.
"""

import importlib

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from adml_helpers import clips, random_adapter
from test_replay import same

from das_lib.adml import Adml, Transcriber
from das_lib.adml.gpu import fused
from das_lib.adml.norm import add_norm, layer_norm
from das_lib.adml.scores import Scores

pytest.importorskip("triton", reason="Triton comes with torch for GPUs alone")


@pytest.fixture
def kernels(monkeypatch):
    """The module, interpreted."""
    from das_lib.adml.gpu import kernels, products

    def again():
        importlib.reload(products)
        return importlib.reload(kernels)

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    yield again()
    monkeypatch.undo()
    again()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the kernels can be built")
def test_where_they_cannot_be_built_torch_does_the_same_with_a_warning():
    fused._kernels.cache_clear()
    with pytest.warns(UserWarning, match="more slowly"):
        assert fused.kernels(torch.device("cuda")) is None
    fused._kernels.cache_clear()
    assert fused.kernels(torch.device("cpu")) is None


def near(got, want, tolerance=1e-5):
    torch.testing.assert_close(got, want, atol=tolerance, rtol=tolerance)


def norm(width):
    return torch.randn(width), torch.randn(width)


@pytest.mark.parametrize("width", [16, 40])
@pytest.mark.parametrize("summed", [False, True])
def test_a_sum_and_its_norm(kernels, width, summed):
    x, more, n = torch.randn(3, 2, width), torch.randn(3, 2, width), norm(width)
    more = more if summed else None
    x_too = x.clone()
    near(kernels.add_norm(x, more, n, torch.float32, 8, 1e-5), add_norm(x_too, more, n, x.dtype, 8))
    near(x, x_too)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 5])  # up to 4 by vectors, then by matrices
@pytest.mark.parametrize("width", [16, 40])
@pytest.mark.parametrize("gelu", [False, True])
def test_a_projection_of_a_normed_sum(kernels, own, rows, width, gelu):
    x, more, n = torch.randn(3, rows, width), torch.randn(3, rows, width), norm(width)
    weight = torch.randn(*([3] if own else []), 24, width + 8)
    bias = weight[..., width]
    y, summed = kernels.linear(x, weight, bias, more=more, norm=n, eps=1e-5, gelu=gelu)
    near(summed, x + more)
    want = layer_norm(x + more, n, torch.float32) @ weight[..., :width].mT + bias.unsqueeze(-2)
    near(y, F.gelu(want) if gelu else want, 1e-4)


@pytest.mark.parametrize("shape", [(20, 40), (20, 2100), (3, 20, 24), (9000, 24)])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_plain_projection(kernels, shape, rows):
    weight, bias = torch.randn(shape), torch.randn(shape[:-1])
    x = torch.randn(3, rows, shape[-1])
    y, same_x = kernels.linear(x, weight, bias)
    near(y, x @ weight.mT + bias.unsqueeze(-2), 1e-3)
    assert same_x is x


def test_outputs_of_common_weights_are_read_from_the_first(kernels):
    x, weight = torch.randn(3, 1, 16), torch.randn(3, 24, 16)
    weight[:, 8:16] = weight[0, 8:16]
    want = x @ weight.mT
    weight[1:, 8:16] = torch.nan
    near(kernels.linear(x, weight, None, common=range(8, 16))[0], want, 1e-4)


@pytest.mark.parametrize("rows", [1, 5])
def test_heads_come_out_side_by_side(kernels, rows):
    x, weight = torch.randn(4, 3, rows, 16), torch.randn(4, 3, 8, 16)  # 4 heads of 3 branches
    strided = x.flatten(0, 1).transpose(0, 1).contiguous().transpose(0, 1)
    y, _ = kernels.linear(strided, weight.flatten(0, 1), None, heads=4)
    near(y, (x @ weight.mT).permute(1, 2, 0, 3).flatten(2), 1e-4)


@pytest.mark.parametrize("position", [0, 1, 63, 64, 150])
def test_attention_over_the_cache(kernels, position):
    kv, qkv = torch.randn(2, 3, 2, 200, 16), torch.randn(3, 1, 3, 2, 16)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    want_kv = kv.clone()
    want_kv[:, :, :, position : position + 1] = torch.stack([k, v])
    keys, values = want_kv[..., : position + 1, :]
    want = F.scaled_dot_product_attention(q, keys, values).transpose(1, 2).flatten(1)
    near(kernels.self_attend(qkv, kv, torch.tensor([position])), want)
    near(kv, want_kv)


def test_frames_behind_the_last_get_nothing(kernels):
    s = torch.randn(2, 5, 64)
    p = kernels.softmax_frames(s, 50)
    near(p[..., :50], s[..., :50].softmax(-1))
    assert not p[..., 50:].any()


def test_peaks_of_suppressed_and_equal_logits(kernels):
    logits = torch.randn(3, 4, 9000)
    logits[0, 0, :4096] = logits[:, :, 5] = -torch.inf
    logits[1, 1, 100] = logits[1, 1, 7000] = 9.0
    c, logz, top = kernels.peaks(logits)
    near(c, logits.softmax(-1).amax(-1))
    near(logz, logits.logsumexp(-1))
    assert torch.equal(top, logits.argmax(-1))


@pytest.mark.parametrize("branches", [1, 2, 4, 11])
@pytest.mark.parametrize("tau", [0.0, 0.025, 0.3, 1.0])
def test_the_rule(kernels, branches, tau):
    c = torch.rand(50, branches)
    c[::5] = c[::5].round(decimals=1)  # ties
    top = torch.randint(0, 99, c.shape)
    logits = torch.full((*c.shape, 100), -torch.inf).scatter(-1, top.unsqueeze(-1), 0.0)
    want = Adml(tau=tau).choose(Scores(c, c, (logits,)))
    token, branch, rule, logprob = kernels.adml(c, top, tau)
    assert torch.equal(token, want.token_B)
    assert torch.equal(branch, want.branch_B)
    assert torch.equal(rule, want.rule_B)
    near(logprob, want.logprob_B)


def test_a_decode_with_all_of_them(kernels, base, tmp_path, monkeypatch):
    adapters = {f"a{i}": random_adapter(tmp_path / f"a{i}", base, seed=i) for i in range(2)}
    engine = Transcriber.from_pretrained(base, adapters, language="en", max_new_tokens=6)
    for user in ("gpu.branches", "norm", "scores", "select", "vocabulary"):
        monkeypatch.setattr(f"das_lib.adml.{user}.kernels", lambda device: kernels)
    same(engine, clips(2), Adml())
