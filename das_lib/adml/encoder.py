"""Whisper's encoder: two convolutions, then pre-layer-norm self-attention and GELU layers.

One pass per utterance serves the base and all adapters, which change the decoder alone. The
residual stream and the layer norms are float32 at every precision.

Shape suffixes: B utterances, F mel bins, T mel frames (100 a second), S encoder frames (T / 2),
D model width, H heads, E head width.
"""

import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.checkpoint import Checkpoint
from das_lib.adml.cpu.fused import kernels
from das_lib.adml.linear import Linear, Precision, activations, has_amx, pack
from das_lib.adml.norm import Norm, add_norm

QUERIES = 750


class Encoder:
    """The encoder of a checkpoint on one device."""

    def __init__(self, model: Checkpoint, *, precision: Precision, device: torch.device) -> None:
        def linear(*names: str) -> Linear:
            pairs = [model.linear(f"encoder.{name}") for name in names]
            weight_OI, bias_O = (torch.cat(part) for part in zip(*pairs, strict=True))
            return pack(weight_OI, bias_O, precision=precision, device=device, rows=frames)

        def norm(name: str) -> Norm:
            weight_D, bias_D = model.norm(f"encoder.{name}")
            return weight_D.to(device), bias_D.to(device)

        frames = model.config["max_source_positions"]
        self.dtype, self.device = activations(precision, device), device
        self.window = 2 * frames
        self._heads: int = model.config["encoder_attention_heads"]
        self._convolutions = [
            tuple(t.to(device, self.dtype) for t in model.linear(f"encoder.conv{i}"))
            for i in (1, 2)
        ]
        self._positions_SD = model["encoder.embed_positions.weight"].to(device)
        self._layers = [
            (
                norm(f"layers.{i}.self_attn_layer_norm"),
                linear(*(f"layers.{i}.self_attn.{p}_proj" for p in "qkv")),
                linear(f"layers.{i}.self_attn.out_proj"),
                norm(f"layers.{i}.final_layer_norm"),
                linear(f"layers.{i}.fc1"),
                linear(f"layers.{i}.fc2"),
            )
            for i in range(model.config["encoder_layers"])
        ]
        self._norm = norm("layer_norm")

    def __call__(self, mel_BFT: torch.Tensor) -> torch.Tensor:
        """Features of log-mel spectrograms of up to 30 s. [B, S, D]."""
        mel_BFT = mel_BFT.to(self.device, self.dtype)
        if self.device.type != "cpu":
            return self._encode(mel_BFT)
        # One by one, an utterance's activations stay in the cache between two layers.
        return torch.cat([self._encode(mel_BFT[i : i + 1]) for i in range(len(mel_BFT))])

    def _encode(self, x_BFT: torch.Tensor) -> torch.Tensor:
        for (weight, bias), stride in zip(self._convolutions, (1, 2), strict=True):
            x_BFT = F.gelu(F.conv1d(x_BFT, weight, bias, stride=stride, padding=1))
        # Contiguous: a sum takes over the layout of its first term, and all layers would stride.
        x_BSD = x_BFT.transpose(1, 2).contiguous().float()
        x_BSD = x_BSD + self._positions_SD[: x_BSD.shape[1]]
        more_BSD = None
        for norm_self, qkv, out, norm_ffn, fc1, fc2 in self._layers:
            q, k, v = qkv(add_norm(x_BSD, more_BSD, norm_self, self.dtype)).chunk(3, -1)
            more_BSD = out(self._attend(q, k, v))
            more_BSD = fc2(fc1(add_norm(x_BSD, more_BSD, norm_ffn, self.dtype), gelu=True))
        return add_norm(x_BSD, more_BSD, self._norm, self.dtype)

    def _attend(self, *qkv_BSD: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.unflatten(-1, (self._heads, -1)).transpose(1, 2) for x in qkv_BSD)
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not has_amx():
            return _attend_by_head(q[0], k[0], v[0]).transpose(0, 1).flatten(1).unsqueeze(0)
        native = kernels(q)
        if native is not None:
            o_BSHE = q.new_empty(len(q), q.shape[2], self._heads, q.shape[3])
            keys, values = k.transpose(2, 3).contiguous(), v.contiguous()
            native.attend(q, keys, values, None, o_BSHE.transpose(1, 2))
            return o_BSHE.flatten(2)
        o_BHSE = F.scaled_dot_product_attention(q, k, v)
        return o_BHSE.transpose(1, 2).flatten(2)


def _attend_by_head(q_HSE: torch.Tensor, k_HSE: torch.Tensor, v_HSE: torch.Tensor) -> torch.Tensor:
    """Attention in bfloat16 products, which the fused kernel uses on CPUs with AMX alone.

    Slices of the queries, so that the probabilities stay in the cache.
    """
    o_HSE = torch.empty_like(q_HSE, memory_format=torch.contiguous_format)
    for o_SE, q_SE, k_SE, v_SE in zip(o_HSE, q_HSE, k_HSE, v_HSE, strict=True):
        k_ES = (k_SE * q_SE.shape[-1] ** -0.5).t()
        for start in range(0, len(q_SE), QUERIES):
            p_QS = torch.mm(q_SE[start : start + QUERIES], k_ES).softmax(-1)
            torch.mm(p_QS, v_SE, out=o_SE[start : start + QUERIES])
    return o_HSE
