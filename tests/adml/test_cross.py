"""Cross-attention in rank space: against copies of keys and values, and what it costs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from das_lib.adml.adapter import BaseShape
from das_lib.adml.bank import AdapterBank, Delta, Part, compress
from das_lib.adml.cpu import fused
from das_lib.adml.cross import LowRank, attend
from das_lib.bench.material import write_adapters

B, H, N, E, S, R = 3, 4, 5, 8, 30, 2
WHISPER_BASE = {"decoder_layers": 6, "d_model": 512, "decoder_ffn_dim": 2048}


def change(of, h_BSD, count, seed):
    """A random change of keys or values by the last ``count`` branches, and what it adds."""
    if not count:
        return None, torch.zeros(B, N, S, H * E)
    generator = torch.Generator().manual_seed(seed)
    a_KIR = torch.randn(count, H * E, R, generator=generator) * 0.1
    b_KRO = torch.randn(count, R, H * E, generator=generator)
    delta = Delta(a_KIR, (Part(b_KRO, slice(0, R), slice(0, H * E)),))
    low = of(compress(h_BSD, delta), delta, H)
    added_BNSD = torch.zeros(B, N, S, H * E)
    added_BNSD[:, N - count :] = torch.einsum("bsi,kir,kro->bkso", h_BSD, a_KIR, b_KRO)
    return low, added_BNSD


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("keys", [0, 2, N])
@pytest.mark.parametrize("values", [0, 4, N])
@pytest.mark.parametrize("kernel", [True, False])
def test_it_equals_attention_over_copies_of_keys_and_values(
    length, keys, values, kernel, monkeypatch
):
    if not kernel:
        monkeypatch.setattr(fused, "load", lambda: None)
    generator = torch.Generator().manual_seed(9)
    q_BHNTE = torch.randn(B, H, N, length, E, generator=generator)
    h_BSD = torch.randn(B, S, H * E, generator=generator)
    k_BHSE = torch.randn(B, H, S, E, generator=generator)
    v_BHSE = torch.randn(B, H, S, E, generator=generator)
    low_k, added_k = change(LowRank.keys, h_BSD, keys, 1)
    low_v, added_v = change(LowRank.values, h_BSD, values, 2)

    def copies(x_BHSE, added_BNSD):
        return x_BHSE.unsqueeze(2) + added_BNSD.unflatten(-1, (H, E)).permute(0, 3, 1, 2, 4)

    want_BHNTE = torch.nn.functional.scaled_dot_product_attention(
        q_BHNTE, copies(k_BHSE, added_k), copies(v_BHSE, added_v)
    )
    k_BHES = k_BHSE.transpose(-1, -2).contiguous()
    rows_B = torch.tensor([2, 0, 0, 1])
    got_BHNTE = torch.empty(len(rows_B), N, length, H, E).permute(0, 3, 1, 2, 4)
    attend(q_BHNTE[rows_B], k_BHES, v_BHSE, low_k, low_v, rows_B, got_BHNTE)
    torch.testing.assert_close(got_BHNTE, want_BHNTE[rows_B], atol=1e-5, rtol=1e-4)


def test_an_adapter_costs_at_most_1_2_mb_and_0_35_gflop_an_utterance(tmp_path, monkeypatch):
    """The paper's adapters (rank 32 from a PiSSA start, q and v) on whisper-base, 30 s."""
    # Counted where torch multiplies; the kernel makes the same products.
    monkeypatch.setattr(fused, "load", lambda: None)

    def prefill(count):
        folders = write_adapters(tmp_path / str(count), WHISPER_BASE, count)
        bank = AdapterBank(BaseShape(layers=6, d_model=512, d_ffn=2048))
        for name, folder in folders.items():
            bank.add(name, folder)
        branches = tuple(range(count + 1))
        deltas = bank.stack(branches, dtype=torch.float32, device=torch.device("cpu"))
        h_BSD = torch.randn(1, 1500, 512)
        with FlopCounterMode(display=False, custom_mapping={LINEAR: linear_flops}) as counter:
            parts = [
                compress(h_BSD, deltas.get(f"{i}.encoder_attn.{p}_proj"))
                for i in range(6)
                for p in "kv"
            ]
        size = sum(z.numel() * z.element_size() for z in parts if z is not None)
        return size, counter.get_total_flops()

    (small, few), (large, many) = prefill(3), prefill(8)
    assert (large - small) / 5 / 1e6 == pytest.approx(1.152)
    assert (many - few) / 5 / 1e9 == pytest.approx(0.295, abs=1e-3)
    # With the base's share of the common residual, too.
    assert small / 4 <= 1.2e6
    assert few / 4 <= 0.35e9


LINEAR = torch.ops.mkldnn._linear_pointwise


def linear_flops(x_shape, weight_shape, *_args, out_shape=None, **_kwargs):
    rows = 1
    for n in x_shape[:-1]:
        rows *= n
    return 2 * rows * x_shape[-1] * weight_shape[0]
