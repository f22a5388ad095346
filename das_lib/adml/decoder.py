"""Whisper's decoder over B utterances x N branches, the base's share computed once for all.

The layers are those of Whisper: pre-layer-norm, causal self-attention, cross-attention, GELU
network, learned positions, output tied to the token embedding. The branches of an utterance share
its cross-attention keys and values K_0 and V_0; what the adapters add stays in rank space (see
`bank.compress`), which is exact. Everything runs in the model's dtype except the last layer norm
and the vocabulary, which stay in float32: confidences are compared to within tau.

Shape suffixes: B utterances, N branches, K adapters, T positions of this pass, U positions so far,
D model width, H heads, E head width, S encoder frames, R rank, O output width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from das_lib.adml.bank import Delta, Deltas, add_delta, add_scores, add_values, compress


@dataclass(frozen=True, slots=True)
class Memory:
    """What the encoder says about B utterances: features, and K_0 and V_0 of each layer.

    No branch or strategy changes it, so all decodes of an utterance share it.
    """

    h_BSD: torch.Tensor
    k0_BHSE: list[torch.Tensor]
    v0_BHSE: list[torch.Tensor]

    def rows(self, keep_B: torch.Tensor) -> "Memory":
        """The utterances with these indices."""
        k0, v0 = ([x[keep_B] for x in xs] for xs in (self.k0_BHSE, self.v0_BHSE))
        return Memory(self.h_BSD[keep_B], k0, v0)


@dataclass(slots=True)
class State:
    """One decode under way: static self-attention caches, filled up to ``length`` positions."""

    memory: Memory
    deltas: Deltas
    zk_BKSR: list[torch.Tensor | None]
    zv_BKSR: list[torch.Tensor | None]
    k_BNHUE: list[torch.Tensor]
    v_BNHUE: list[torch.Tensor]
    length: int = 0

    def keep(self, keep_B: torch.Tensor) -> None:
        """Drop all utterances but those with these indices."""
        self.memory = self.memory.rows(keep_B)
        for zs in (self.zk_BKSR, self.zv_BKSR):
            zs[:] = [None if z is None else z[keep_B] for z in zs]
        for caches in (self.k_BNHUE, self.v_BNHUE):
            for i, old in enumerate(caches):
                caches[i] = old.new_empty((len(keep_B), *old.shape[1:]))
                caches[i][..., : self.length, :] = old[..., : self.length, :][keep_B]


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of one decoder layer; self-attention's q, k and v stand in one matrix."""

    index: int
    norms: tuple[nn.LayerNorm, nn.LayerNorm, nn.LayerNorm]
    qkv: tuple[torch.Tensor, torch.Tensor]
    self_out: nn.Linear
    cross: Any
    fc1: nn.Linear
    fc2: nn.Linear

    @classmethod
    def of(cls, index: int, layer: Any) -> "_Layer":
        attention = layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        bias = [torch.zeros(p.out_features) if p.bias is None else p.bias for p in parts]
        weight = torch.cat([p.weight for p in parts])
        return cls(
            index,
            (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm),
            (weight, torch.cat([b.to(weight) for b in bias])),
            attention.out_proj,
            layer.encoder_attn,
            layer.fc1,
            layer.fc2,
        )


class Decoder:
    """The decoder of a Hugging Face ``WhisperForConditionalGeneration``."""

    def __init__(self, model: Any):
        decoder = model.model.decoder
        self.max_length: int = model.config.max_target_positions
        self._heads: int = model.config.decoder_attention_heads
        self._layers = [_Layer.of(i, layer) for i, layer in enumerate(decoder.layers)]
        self._tokens_VD = decoder.embed_tokens.weight
        self._positions_UD = decoder.embed_positions.weight
        self._embed_scale: float = decoder.embed_scale
        self._head_VD = model.proj_out.weight.float()
        norm = decoder.layer_norm
        self._norm = ((norm.weight.numel(),), norm.weight.float(), norm.bias.float(), norm.eps)
        self._activation: Callable[[torch.Tensor], torch.Tensor] = decoder.layers[0].activation_fn

    def memory(self, h_BSD: torch.Tensor) -> Memory:
        """Project the encoder's features to K_0 and V_0, once per utterance."""
        cross = [layer.cross for layer in self._layers]
        return Memory(
            h_BSD,
            [self._split(c.k_proj(h_BSD)).contiguous() for c in cross],
            [self._split(c.v_proj(h_BSD)).contiguous() for c in cross],
        )

    def start(self, memory: Memory, deltas: Deltas, *, branches: int, capacity: int) -> State:
        """Prepare a decode of at most ``capacity`` positions."""
        h_BSD = memory.h_BSD
        width = h_BSD.shape[-1] // self._heads
        shape = (len(h_BSD), branches, self._heads, capacity, width)
        count = range(len(self._layers))
        return State(
            memory,
            deltas,
            [compress(h_BSD, deltas.get(f"{i}.encoder_attn.k_proj")) for i in count],
            [compress(h_BSD, deltas.get(f"{i}.encoder_attn.v_proj")) for i in count],
            [h_BSD.new_empty(shape) for _ in count],
            [h_BSD.new_empty(shape) for _ in count],
        )

    def forward(self, state: State, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Feed the same T tokens to all branches of an utterance and advance the state.

        Returns:
            The hidden states before the last layer norm. [B, N, T, D]
        """
        end = state.length + tokens_BT.shape[1]
        x_BTD = F.embedding(tokens_BT, self._tokens_VD) * self._embed_scale
        x_BTD = x_BTD + self._positions_UD[state.length : end]
        x_BNTD = x_BTD.unsqueeze(1).repeat(1, state.k_BNHUE[0].shape[1], 1, 1)
        for layer in self._layers:
            norm_self, norm_cross, norm_ffn = layer.norms
            x_BNTD += self._self_attention(layer, norm_self(x_BNTD), state)
            x_BNTD += self._cross_attention(layer, norm_cross(x_BNTD), state)
            x_BNTD += self._feed_forward(layer, norm_ffn(x_BNTD), state.deltas)
        state.length = end
        return x_BNTD

    def logits(self, x_BND: torch.Tensor) -> torch.Tensor:
        """Float32 logits of one position. [B, N, V]."""
        return F.linear(F.layer_norm(x_BND.float(), *self._norm), self._head_VD)

    def _self_attention(self, layer: _Layer, x_BNTD: torch.Tensor, state: State) -> torch.Tensor:
        deltas, site = state.deltas, f"{layer.index}.self_attn."
        parts = F.linear(x_BNTD, *layer.qkv).chunk(3, -1)
        for part_BNTD, name in zip(parts, ("q_proj", "k_proj", "v_proj"), strict=True):
            add_delta(part_BNTD, x_BNTD, deltas.get(site + name))
        q_BNHTE, k_BNHTE, v_BNHTE = (self._split(part) for part in parts)
        start, end = state.length, state.length + x_BNTD.shape[2]
        keys, values = state.k_BNHUE[layer.index], state.v_BNHUE[layer.index]
        keys[..., start:end, :] = k_BNHTE
        values[..., start:end, :] = v_BNHTE
        mask_TU = None
        if end - start > 1:
            mask_TU = torch.ones(end - start, end, dtype=torch.bool, device=x_BNTD.device)
            mask_TU = mask_TU.tril(start)
        o_MHTE = F.scaled_dot_product_attention(
            q_BNHTE.flatten(0, 1),
            keys[..., :end, :].flatten(0, 1),
            values[..., :end, :].flatten(0, 1),
            attn_mask=mask_TU,
        )
        o_BNTD = o_MHTE.transpose(1, 2).reshape(x_BNTD.shape)
        return _linear(layer.self_out, o_BNTD, deltas.get(site + "out_proj"))

    def _cross_attention(self, layer: _Layer, x_BNTD: torch.Tensor, state: State) -> torch.Tensor:
        """Attend with all branches of an utterance over the same K_0 and V_0."""
        deltas, site, i = state.deltas, f"{layer.index}.encoder_attn.", layer.index
        q_BNTD = _linear(layer.cross.q_proj, x_BNTD, deltas.get(site + "q_proj"))
        q_BHNTE = self._split(q_BNTD).transpose(1, 2)
        o_BHNTE = self._attend_memory(q_BHNTE, state, i, site)
        o_BNTD = o_BHNTE.permute(0, 2, 3, 1, 4).reshape(x_BNTD.shape)
        return _linear(layer.cross.out_proj, o_BNTD, deltas.get(site + "out_proj"))

    def _attend_memory(
        self, q_BHNTE: torch.Tensor, state: State, i: int, site: str
    ) -> torch.Tensor:
        k0_BHSE, v0_BHSE = state.memory.k0_BHSE[i], state.memory.v0_BHSE[i]
        dk, zk = state.deltas.get(site + "k_proj"), state.zk_BKSR[i]
        dv, zv = state.deltas.get(site + "v_proj"), state.zv_BKSR[i]
        shape = q_BHNTE.shape
        q_BHME = q_BHNTE.flatten(2, 3)  # M = N T: to K_0 a branch is one more query
        if zk is None and zv is None:
            return F.scaled_dot_product_attention(q_BHME, k0_BHSE, v0_BHSE).view(shape)
        q_BHME = q_BHME * shape[-1] ** -0.5
        s_BHNTS = (q_BHME @ k0_BHSE.transpose(-1, -2)).unflatten(2, shape[2:4])
        if zk is not None and dk is not None:
            add_scores(s_BHNTS, q_BHME.view(shape), zk, dk)
        p_BHNTS = s_BHNTS.softmax(-1)
        o_BHNTE = (p_BHNTS.flatten(2, 3) @ v0_BHSE).view(shape)
        if zv is not None and dv is not None:
            add_values(o_BHNTE, p_BHNTS, zv, dv)
        return o_BHNTE

    def _feed_forward(self, layer: _Layer, x_BNTD: torch.Tensor, deltas: Deltas) -> torch.Tensor:
        y_BNTO = self._activation(_linear(layer.fc1, x_BNTD, deltas.get(f"{layer.index}.fc1")))
        return _linear(layer.fc2, y_BNTO, deltas.get(f"{layer.index}.fc2"))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """[..., T, D] -> [..., H, T, E]."""
        return x.unflatten(-1, (self._heads, -1)).transpose(-2, -3)


def _linear(base: nn.Linear, x_BNTI: torch.Tensor, delta: Delta | None) -> torch.Tensor:
    """(W + B_i A_i) x + bias for every branch."""
    return add_delta(F.linear(x_BNTI, base.weight, base.bias), x_BNTI, delta)
