"""The decoder in the form for a GPU: weights of its own for every branch, as few kernels as one.

At batch 1 a pass on a GPU takes the time of starting its kernels, and `bank.add_delta`'s would be
a third more of them. So the changes are added to the weights here (W_i = W + B_i A_i), and a
projection is one batched product of all branches, whatever k is. The branches of an utterance share
the encoder's features H in place of keys and values of their own:

    q_i,h K_h^T   = q_i,h (W_k,h H^T)              (K once, unless an adapter changes it)
    P_i,h V_i,h   = (P_i,h H) W_v,i,h^T + b_v,h    (no V at all; b_v joins the next bias)

Exact as the form of `decoder` and `cross` is: only the order of the sums differs. All shapes are
fixed, so that `replay` can record a pass: self-attention reads a cache of a given room, masked.

Shape suffixes: B utterances, N branches, T positions of this pass, U positions of the cache's room,
D model width, H heads, E head width, S encoder frames, I input width, O output width, M = B T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.bank import AdapterBank
from das_lib.adml.checkpoint import Checkpoint
from das_lib.adml.decoder import Decoder
from das_lib.adml.gpu.fused import kernels
from das_lib.adml.norm import EPS, Norm, add_norm

ONES = 8
"""Columns for the bias behind a normed input; rows stay aligned to 16 bytes."""
ALIGNED = 64
"""Frames are filled up to a multiple of it: matrix units read rows of 1,500 slowly."""


@dataclass(frozen=True, slots=True)
class _Projection:
    """y_i = W_i x_i + b_i; one W for all branches [O, I], or one for each [N, O, I]."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    """[O] or [N, O]; None: the weights hold it, in the column of ones."""
    common: range = range(0)
    """Outputs that no adapter changes, though others of the same input."""

    @property
    def bias_column(self) -> torch.Tensor:
        """The bias, wherever it is. [O] or [N, O]."""
        return self.weight[..., -ONES] if self.bias is None else self.bias

    def __call__(self, x_NMI: torch.Tensor) -> torch.Tensor:
        if self.weight.ndim == 2:
            return F.linear(x_NMI, self.weight, self.bias)
        if self.bias is None:
            return torch.bmm(x_NMI, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(-2), x_NMI, self.weight.mT)


@dataclass(frozen=True, slots=True)
class _Layer:
    norms: tuple[Norm, Norm, Norm]
    qkv: _Projection
    self_out: _Projection
    q: _Projection
    """Divided by the root of the head's width."""
    k: torch.Tensor
    """[N or 1, D, D]"""
    v_GED: torch.Tensor
    """G: heads x branches, the branches of a head side by side."""
    cross_out: _Projection
    fc1: _Projection
    fc2: _Projection


@dataclass(frozen=True, slots=True)
class Cache:
    """What a decode reads and writes, of one size from its first pass to its last."""

    frames: int
    h_BSD: torch.Tensor
    """The encoder's features; behind the frames that it has, for alignment, 0."""
    keys: list[torch.Tensor]
    """K of cross-attention, transposed, of each layer. [N or 1, B, H, E, S]"""
    kv: list[torch.Tensor]
    """Keys and values of self-attention, of each layer. [2, N B, H, U, E]"""


class BranchDecoder:
    """The base and some adapters of a bank as they are now."""

    def __init__(
        self, decoder: Decoder, model: Checkpoint, bank: AdapterBank, columns: Sequence[int]
    ) -> None:
        """Merge the adapters.

        Args:
            decoder: The model's, whose embeddings and norms are read.
            model: The base.
            bank: Its adapters.
            columns: The branches.
        """
        config = model.config
        self.dtype, self.device, self.branches = decoder.dtype, decoder.device, len(columns)
        self._decoder = decoder
        self._model, self._bank, self._columns = model, bank, columns
        self._heads: int = config["decoder_attention_heads"]
        self._width: int = config["d_model"] // self._heads
        self._fused = kernels(self.device)
        self._layers = [self._layer(i, norms) for i, norms in enumerate(decoder.norms)]

    def _layer(self, i: int, norms: tuple[Norm, Norm, Norm]) -> _Layer:
        def weight(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            weight_OI, bias_O = self._model.linear(f"decoder.layers.{i}.{name}")
            return self._bank.weights(f"{i}.{name}", weight_OI, self._columns), bias_O

        def normed(*names: str, scale: float = 1.0) -> _Projection:
            weights, biases = zip(*(weight(name) for name in names), strict=True)
            lead = max((w.shape[:-2] for w in weights), key=len)
            w = torch.cat([w.expand(*lead, *w.shape[-2:]) for w in weights], -2)
            tail = w.new_zeros(*w.shape[:-1], ONES)
            tail[..., 0] = torch.cat(biases)
            whole = self._put(torch.cat([w, tail], -1) * scale)
            same = [i for i, part in enumerate(weights) if part.ndim < w.ndim]
            outputs = len(biases[0])
            common = range(same[0] * outputs, (same[0] + 1) * outputs) if same else range(0)
            return _Projection(whole, common=common)

        def plain(name: str, before_O: torch.Tensor | None = None) -> _Projection:
            w, bias = weight(name)
            if before_O is not None:
                bias = (bias.double() + w.double() @ before_O.double()).float()
            return _Projection(self._put(w), self._put(bias))

        k, _ = weight("encoder_attn.k_proj")
        v, v_bias_D = weight("encoder_attn.v_proj")
        v_NHED = v.expand(self.branches, -1, -1).unflatten(1, (self._heads, -1))
        return _Layer(
            norms=norms,
            qkv=normed(*(f"self_attn.{p}_proj" for p in "qkv")),
            self_out=plain("self_attn.out_proj"),
            q=normed("encoder_attn.q_proj", scale=self._width**-0.5),
            k=self._put(k if k.ndim == 3 else k.unsqueeze(0)),
            v_GED=self._put(v_NHED.transpose(0, 1).flatten(0, 1)),
            cross_out=plain("encoder_attn.out_proj", v_bias_D),
            fc1=normed("fc1"),
            fc2=plain("fc2"),
        )

    @property
    def any_room(self) -> bool:
        """Whether a step reads what there is of a cache, however large its room."""
        return self._fused is not None

    @property
    def own_keys(self) -> bool:
        """Whether an adapter changes the keys of cross-attention."""
        return any(len(layer.k) > 1 for layer in self._layers)

    def _put(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.device, self.dtype).contiguous()

    def cache(self, batch: int, frames: int, room: int) -> Cache:
        """Tensors for decodes of ``batch`` utterances of up to ``room`` positions."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=self.dtype, device=self.device)

        heads, width = self._heads, self._width
        padded = -(-frames // ALIGNED) * ALIGNED
        return Cache(
            frames,
            zeros(batch, padded, heads * width),
            [zeros(len(layer.k), batch, heads, width, padded) for layer in self._layers],
            [zeros(2, self.branches * batch, heads, room, width) for _ in self._layers],
        )

    def read(self, cache: Cache) -> None:
        """Project ``cache.h_BSD`` to the keys of cross-attention."""
        h_BDS = cache.h_BSD.transpose(1, 2)
        for layer, keys in zip(self._layers, cache.keys, strict=True):
            for k_DD, out in zip(layer.k, keys, strict=True):
                torch.bmm(k_DD.expand(len(h_BDS), -1, -1), h_BDS, out=out.flatten(1, 2))

    def forward(
        self, cache: Cache, tokens_BT: torch.Tensor, positions_T: torch.Tensor, room: int
    ) -> torch.Tensor:
        """Feed the same T tokens to all branches.

        Args:
            cache: Keeps the keys and values of these positions.
            tokens_BT: The tokens.
            positions_T: Where they stand, below ``room``.
            room: Positions of the cache that are read.

        Returns:
            The hidden states of the last position, before the last layer norm. [N, B, D]
        """
        batch, length = tokens_BT.shape
        x_BTD = F.embedding(tokens_BT, self._decoder.tokens_VD)
        x_BTD = x_BTD + F.embedding(positions_T, self._decoder.positions_UD)
        x_NMD = x_BTD.flatten(0, 1).repeat(self.branches, 1, 1)
        more_NMD = None
        for layer, keys, kv in zip(self._layers, cache.keys, cache.kv, strict=True):
            norm_self, norm_cross, norm_ffn = layer.norms
            qkv_NMO, x_NMD = self._normed(layer.qkv, x_NMD, more_NMD, norm_self)
            o_NMD = self._self_attention(qkv_NMO, kv, positions_T, room)
            more_NMD = self._plain(layer.self_out, o_NMD)
            q_NMD, x_NMD = self._normed(layer.q, x_NMD, more_NMD, norm_cross)
            o_NMD = self._cross_attention(q_NMD, keys, cache, layer.v_GED, length)
            more_NMD = self._plain(layer.cross_out, o_NMD)
            y_NMO, x_NMD = self._normed(layer.fc1, x_NMD, more_NMD, norm_ffn, gelu=True)
            more_NMD = self._plain(layer.fc2, y_NMO)
        assert more_NMD is not None
        return (x_NMD + more_NMD).unflatten(1, (batch, length))[:, :, -1]

    def _normed(
        self,
        projection: _Projection,
        x_NMD: torch.Tensor,
        more_NMD: torch.Tensor | None,
        norm: Norm,
        *,
        gelu: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A projection of norm(x + more), and x + more."""
        fused = self._fused
        if fused is not None and fused.fits(x_NMD, projection.weight, normed=True):
            options = {"more": more_NMD, "norm": norm, "eps": EPS, "gelu": gelu}
            options["common"] = projection.common
            return fused.linear(x_NMD, projection.weight, projection.bias_column, **options)
        y_NMO = projection(add_norm(x_NMD, more_NMD, norm, self.dtype, ONES))
        return F.gelu(y_NMO) if gelu else y_NMO, x_NMD

    def _plain(self, projection: _Projection, x_NMI: torch.Tensor) -> torch.Tensor:
        if self._fused is not None and self._fused.fits(x_NMI, projection.weight):
            return self._fused.linear(x_NMI, projection.weight, projection.bias_column)[0]
        return projection(x_NMI)

    def _self_attention(
        self, qkv_NMO: torch.Tensor, kv: torch.Tensor, positions_T: torch.Tensor, room: int
    ) -> torch.Tensor:
        length = len(positions_T)
        qkv = qkv_NMO.view(-1, length, 3, self._heads, self._width)
        if length == 1 and self._fused is not None:
            return self._fused.self_attend(qkv, kv, positions_T).view(*qkv_NMO.shape[:2], -1)
        # [N B, T, 3, H, E] -> 3 x [N B, H, T, E]
        q, *new = qkv.permute(2, 0, 3, 1, 4)
        kv.index_copy_(3, positions_T, torch.stack(new))
        k, v = kv[..., :room, :]
        seen_TU = torch.arange(room, device=kv.device) <= positions_T.unsqueeze(1)
        o_PHTE = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_TU)
        return o_PHTE.transpose(1, 2).reshape(*qkv_NMO.shape[:2], -1)

    def _cross_attention(
        self,
        q_NMD: torch.Tensor,
        keys: torch.Tensor,
        cache: Cache,
        v_GED: torch.Tensor,
        length: int,
    ) -> torch.Tensor:
        branches, heads = self.branches, self._heads
        batch, padded, _ = cache.h_BSD.shape
        q_NBTHE = q_NMD.view(branches, batch, length, heads, self._width)
        if len(keys) == 1:  # one K for all branches: their queries stand below one another
            q = q_NBTHE.permute(1, 3, 0, 2, 4).reshape(batch * heads, -1, self._width)
            s = torch.bmm(q, keys[0].flatten(0, 1))
        else:
            s = torch.matmul(q_NBTHE.transpose(2, 3), keys).permute(1, 2, 0, 3, 4)
        s_BQS = s.reshape(batch, heads * branches * length, padded)
        if self._fused is not None:
            p_BQS = self._fused.softmax_frames(s_BQS, cache.frames)
        else:
            s_BQS[..., cache.frames :] = -torch.inf
            p_BQS = s_BQS.softmax(-1)
        # [B, H N T, D] -> [H N, B T, D] -> [H N, B T, E] -> [N, B T, H E]
        o_BGTD = torch.bmm(p_BQS, cache.h_BSD).view(batch, heads * branches, length, -1)
        o_GMD = o_BGTD.transpose(0, 1).reshape(heads * branches, batch * length, -1)
        if self._fused is not None and self._fused.fits(o_GMD, v_GED):
            return self._fused.linear(o_GMD, v_GED, None, heads=heads)[0]
        o_HNME = torch.bmm(o_GMD, v_GED.mT).view(heads, branches, batch * length, -1)
        return o_HNME.permute(1, 2, 0, 3).reshape(branches, batch * length, -1)
