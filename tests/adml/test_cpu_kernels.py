"""The kernels for CPUs against the formulas that they compute; `test_gathered` has the products."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.bank import Delta, Part, add_delta
from das_lib.adml.cpu import fused
from das_lib.adml.cross import project_keys
from das_lib.adml.linear import pack
from das_lib.adml.scores import Scores

K = 5


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_they_run_here():
    assert fused.kernels(torch.zeros(1)) is not None, "Numba is a dependency"
    assert fused.kernels(torch.zeros(1, dtype=torch.bfloat16)) is None
    assert fused.kernels(torch.zeros(1, device="meta")) is None


def test_kernels_of_other_sources_are_not_taken_from_the_disk(tmp_path, monkeypatch):
    from das_lib.adml.cpu.openmp import cache_folder

    monkeypatch.setenv("DAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tile.py").write_text("one")
    before = cache_folder(tmp_path)
    assert before == cache_folder(tmp_path)
    assert before.parent == tmp_path / "cache" / "kernels"
    (tmp_path / "tile.py").write_text("two")
    assert cache_folder(tmp_path) != before


# A width below, at and above what is under way at once, and with a rest.
@pytest.mark.parametrize("width", [1, 7, 64, 100, 8192, 2713])
def test_peaks_equal_torch(width, threads):
    logits = 5 * draw(2, 3, width)
    logits[0, 0] = -torch.inf
    logits[1, 1, : width // 2] = -torch.inf
    logits[1, 2] -= 300  # the exponentials of the unshifted ones would vanish
    top, logz = fused.kernels(logits).peaks(logits)
    assert torch.equal(top, logits.amax(-1))
    torch.testing.assert_close(logz, logits.double().logsumexp(-1).float(), atol=1e-6, rtol=3e-7)


def test_peaks_show_what_is_no_number():
    logits = torch.zeros(3, 100)
    logits[0, 10], logits[1, 99], logits[2, 98] = torch.nan, torch.nan, torch.inf
    _, logz = fused.kernels(logits).peaks(logits)
    assert logz.isnan().tolist() == [True, True, True]


def test_peaks_read_logits_in_any_layout():
    logits = draw(70, 3).t()
    top, logz = fused.kernels(logits).peaks(logits)
    assert torch.equal(top, logits.amax(-1))
    torch.testing.assert_close(logz, logits.logsumexp(-1))


@pytest.mark.parametrize("slices", [2, 3])
def test_scores_are_those_without_kernels(slices, monkeypatch):
    logits = 3 * draw(2, 4, 999)
    logits[..., :400] = -torch.inf  # a slice and more that is suppressed as a whole
    parts = logits.chunk(slices, -1)
    native = Scores.of(parts)
    monkeypatch.setattr(fused, "load", lambda: None)
    other = Scores.of(parts)
    torch.testing.assert_close(native.c_BN, other.c_BN)
    torch.testing.assert_close(native.logz_BN, other.logz_BN)


# One position of one utterance, and a prompt of several; branches before the first change.
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("batch", [1, 3])
def test_changes_are_added_where_they_belong(batch, length, threads, monkeypatch):
    width, ranks = 24, (3, 5)
    parts = (
        Part(draw(K, ranks[0], 24), slice(0, 3), slice(0, 24)),
        Part(draw(K, ranks[1], 24), slice(3, 8), slice(48, 72)),
    )
    delta = Delta(draw(K, width, sum(ranks)), parts)
    x_NBTI, y_NBTO = draw(K + 1, batch, length, width), draw(K + 1, batch, length, 72)
    native = add_delta(y_NBTO.clone(), x_NBTI, delta)
    want = y_NBTO.double()
    u_KBTR = torch.einsum("kbti,kir->kbtr", x_NBTI[1:].double(), delta.a_KIR.double())
    for part in parts:
        b_KRO = part.b_KRO.double()
        change = torch.einsum("kbtr,kro->kbto", u_KBTR[..., part.ranks], b_KRO)
        want[1:, ..., part.outputs] += change
    torch.testing.assert_close(native, want.float(), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(fused, "load", lambda: None)
    torch.testing.assert_close(add_delta(y_NBTO.clone(), x_NBTI, delta), native)


CPU = torch.device("cpu")


# Outputs below, at and above those of a tile, and with a rest; rows of one tile, some, and many.
@pytest.mark.parametrize("outputs", [3, 64, 100, 333])
@pytest.mark.parametrize("rows", [1, 5, 26, 130])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_projections_of_few_rows_equal_torch(outputs, rows, precision, threads, monkeypatch):
    weight_OI, bias_O, x = draw(outputs, 72), draw(outputs), draw(2, 72, rows).transpose(1, 2)
    linear = pack(weight_OI, bias_O, precision=precision, device=CPU)
    if precision == "bfloat16":
        weight_OI = weight_OI.bfloat16().float()
    want = F.linear(x.double(), weight_OI.double(), bias_O.double())
    torch.testing.assert_close(linear(x), want.float(), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(linear(x, gelu=True), F.gelu(want).float(), atol=2e-5, rtol=1e-5)
    other = linear.with_bias(torch.zeros(outputs))
    torch.testing.assert_close(other(x), (want - bias_O).float(), atol=2e-5, rtol=1e-5)
    monkeypatch.setattr(fused, "load", lambda: None)
    torch.testing.assert_close(
        pack(weight_OI, bias_O, precision=precision, device=CPU)(x), linear(x)
    )


def test_a_masked_token_stays_masked():
    linear = pack(draw(70, 8), torch.zeros(70), precision="float32", device=CPU)
    mask = torch.zeros(70)
    mask[[0, 65]] = -torch.inf
    assert linear.with_bias(mask)(draw(3, 8))[:, [0, 65]].eq(-torch.inf).all()


def test_a_projected_row_does_not_depend_on_the_others_or_the_threads(threads):
    linear = pack(draw(100, 512), draw(100), precision="float32", device=CPU)
    x_MI = draw(70, 512)
    whole = linear(x_MI)
    torch.set_num_threads(1)
    assert all(torch.equal(linear(x_I), y_O) for x_I, y_O in zip(x_MI, whole, strict=True))


# More queries than are under way at once, as the encoder has.
@pytest.mark.parametrize("queries", [1, 47, 48, 49, 200])
@pytest.mark.parametrize("frames", [1, 64, 130])
def test_attention_of_many_queries_equals_torch(queries, frames, threads):
    batch, heads, width = 2, 3, 16
    q, k, v = (draw(batch, n, heads, width).transpose(1, 2) for n in (queries, frames, frames))
    got = torch.empty(batch, queries, heads, width).transpose(1, 2)
    fused.kernels(q).attend(q, k.transpose(2, 3).contiguous(), v.contiguous(), None, got)
    want = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(got, want.float(), atol=1e-5, rtol=1e-5)


def test_scores_are_shown_before_the_softmax():
    q, k, v = (draw(2, 3, n, 16) for n in (5, 40, 40))
    got, seen = torch.empty_like(q), torch.empty(2, 3, 2, 40)
    keys = k.transpose(2, 3).contiguous()
    fused.kernels(q).attend(q, keys, v, None, got, seen_BHTS=seen)
    torch.testing.assert_close(seen, q[:, :, :2] @ keys / 4)


@pytest.mark.parametrize("position", [0, 1, 30, 63])
def test_a_step_of_self_attention_equals_torch(position, threads):
    branches, batch, heads, width, room = 3, 2, 4, 8, 64
    qkv = draw(branches, batch, 1, 3 * heads * width)
    caches = [draw(branches, batch, heads, room, width) * s for s in (1, -1)]
    for cache in caches:
        cache[..., position:, :] = torch.nan  # what is not written yet is not read
    q, k, v = qkv.unflatten(-1, (3, heads, width)).permute(3, 0, 1, 4, 2, 5)
    before = [cache[..., :position, :].clone() for cache in caches]
    got = fused.kernels(qkv).self_attend(qkv, *caches, position)
    keys, values = (
        torch.cat([old, new], -2).double() for old, new in zip(before, (k, v), strict=True)
    )
    want = F.scaled_dot_product_attention(q.double(), keys, values).float()
    torch.testing.assert_close(got, want.transpose(2, 3).flatten(3))
    for cache, new in zip(caches, (k, v), strict=True):
        assert torch.equal(cache[..., position : position + 1, :], new)


def test_keys_are_projected_as_torch_does(threads, monkeypatch):
    weights, h_BSD = [draw(24, 24), draw(24, 24) + 1], draw(3, 50, 24)
    native = project_keys(weights, h_BSD, heads=4)
    monkeypatch.setattr(fused, "load", lambda: None)
    for one, other in zip(native, project_keys(weights, h_BSD, heads=4), strict=True):
        assert one.is_contiguous()
        torch.testing.assert_close(one, other)
