"""Whisper's decoder over B utterances x N branches, the base's share computed once for all.

The layers are those of Whisper: pre-layer-norm, causal self-attention, cross-attention, GELU
network, learned positions, output tied to the token embedding. The branches of an utterance share
its cross-attention keys and values K_0 and V_0 (see `cross`); what the adapters add to any
projection is `bank.add_delta`. The residual stream and the layer norms are float32 at every
precision.

Shape suffixes: B rows (utterances, or beams of them), N branches, K branches with a change,
T positions of this pass, U positions so far, D model width, H heads, E head width, S encoder
frames, R rank, O output width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.alignment import Seen
from das_lib.adml.bank import Deltas, Pair, add_delta, compress, merge
from das_lib.adml.checkpoint import Checkpoint
from das_lib.adml.cpu import fused
from das_lib.adml.cpu.fused import kernels
from das_lib.adml.cross import LowRank, Memory, attend, project_keys
from das_lib.adml.linear import Linear, Precision, activations, pack
from das_lib.adml.norm import Norm, layer_norm

SPAN = 32  # positions by which the self-attention caches grow


@dataclass(slots=True)
class State:
    """One decode under way."""

    memory: Memory
    deltas: Deltas
    rows: list[int]
    """The utterance in ``memory`` that each row decodes; beams of one share it."""
    rows_B: torch.Tensor
    """The same, on the device."""
    keys: list[LowRank | None]
    values: list[LowRank | None]
    k_NBHUE: list[torch.Tensor]
    v_NBHUE: list[torch.Tensor]
    length: int = 0
    seen: Seen | None = None
    """Keeps what branch 0 attends to, where wanted; each row is an utterance of its own then."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order; a row may be kept more than once."""
        self.rows = [self.rows[row] for row in rows]
        index_B = torch.tensor(rows, device=self.rows_B.device)
        self.rows_B = self.rows_B[index_B]
        for caches in (self.k_NBHUE, self.v_NBHUE):
            caches[:] = [cache.index_select(1, index_B) for cache in caches]

    def reserve(self, end: int) -> None:
        """Make room for positions up to ``end``."""
        room = self.k_NBHUE[0].shape[3]
        if end <= room:
            return
        more = -(-(end - room) // SPAN) * SPAN
        for caches in (self.k_NBHUE, self.v_NBHUE):
            caches[:] = [F.pad(cache, (0, 0, 0, more)) for cache in caches]


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of one decoder layer; self-attention's q, k and v are one projection."""

    norms: tuple[Norm, Norm, Norm]
    qkv: Linear
    self_out: Linear
    q: Linear
    k_DD: torch.Tensor
    """The one projection of Whisper without a bias."""
    v: Linear
    cross_out: Linear
    fc1: Linear
    fc2: Linear


class Decoder:
    """The decoder of a checkpoint on one device."""

    def __init__(self, model: Checkpoint, *, precision: Precision, device: torch.device) -> None:
        config = model.config
        self.max_length: int = config["max_target_positions"]
        self.dtype, self.device = activations(precision, device), device
        self._model = model
        self._precision: Precision = precision
        self._heads: int = config["decoder_attention_heads"]
        scale = config["d_model"] ** 0.5 if config.get("scale_embedding") else 1.0
        self.tokens_VD = (model["decoder.embed_tokens.weight"] * scale).to(device)
        self.positions_UD = model["decoder.embed_positions.weight"].to(device)
        self._common: Mapping[str, Pair] | None = None
        self.rebase({})
        if device.type == "cpu" and self.dtype == torch.float32:
            fused.load()  # now, and not in the first decode

    def rebase(self, common: Mapping[str, Pair]) -> None:
        """Run over the base plus the given changes, the residual of `AdapterBank.common`."""
        if common is not self._common:
            count = self._model.config["decoder_layers"]
            self._layers = [self._layer(i, common) for i in range(count)]
            self._common = common

    @property
    def norms(self) -> list[tuple[Norm, Norm, Norm]]:
        """Of each layer, before self-attention, cross-attention and the network."""
        return [layer.norms for layer in self._layers]

    def _layer(self, i: int, common: Mapping[str, Pair]) -> _Layer:
        model, device = self._model, self.device

        def weight(name: str) -> torch.Tensor:
            weight_OI, _ = model.linear(f"decoder.layers.{i}.{name}")
            return merge(weight_OI, common.get(f"{i}.{name}"))

        def linear(*names: str, rows: int | None = None) -> Linear:
            biases = [model.linear(f"decoder.layers.{i}.{name}")[1] for name in names]
            return pack(
                torch.cat([weight(name) for name in names]),
                torch.cat(biases),
                precision=self._precision,
                device=device,
                rows=rows,
            )

        def norm(name: str) -> Norm:
            weight_D, bias_D = model.norm(f"decoder.layers.{i}.{name}")
            return weight_D.to(device), bias_D.to(device)

        frames = model.config["max_source_positions"]
        return _Layer(
            norms=(
                norm("self_attn_layer_norm"),
                norm("encoder_attn_layer_norm"),
                norm("final_layer_norm"),
            ),
            qkv=linear(*(f"self_attn.{p}_proj" for p in "qkv")),
            self_out=linear("self_attn.out_proj"),
            q=linear("encoder_attn.q_proj"),
            k_DD=weight("encoder_attn.k_proj").to(device, self.dtype),
            v=linear("encoder_attn.v_proj", rows=frames),
            cross_out=linear("encoder_attn.out_proj"),
            fc1=linear("fc1"),
            fc2=linear("fc2"),
        )

    def memory(self, h_BSD: torch.Tensor) -> Memory:
        """The encoder's features, to be projected to K_0 and V_0 once per utterance."""
        return Memory(h_BSD, self._keys, self._values)

    def _keys(self, h_BSD: torch.Tensor) -> list[torch.Tensor]:
        return project_keys([layer.k_DD for layer in self._layers], h_BSD, self._heads)

    def _values(self, h_BSD: torch.Tensor) -> list[torch.Tensor]:
        v_BSHE = (layer.v(h_BSD).unflatten(-1, (self._heads, -1)) for layer in self._layers)
        return [v.transpose(1, 2).contiguous() for v in v_BSHE]

    def start(
        self, memory: Memory, deltas: Deltas, *, branches: int, rows: Sequence[int] | None = None
    ) -> State:
        """Prepare a decode of all utterances of ``memory``, or of these."""
        h_BSD = memory.h_BSD
        rows = list(range(len(h_BSD)) if rows is None else rows)
        shape = (branches, len(rows), self._heads, SPAN, h_BSD.shape[-1] // self._heads)

        def low_rank(of: Callable[..., LowRank | None], site: str) -> LowRank | None:
            delta = deltas.get(site)
            return of(compress(h_BSD, delta), delta, self._heads)

        count = range(len(self._layers))
        return State(
            memory,
            deltas,
            rows,
            torch.tensor(rows, device=h_BSD.device),
            [low_rank(LowRank.keys, f"{i}.encoder_attn.k_proj") for i in count],
            [low_rank(LowRank.values, f"{i}.encoder_attn.v_proj") for i in count],
            [h_BSD.new_empty(shape) for _ in count],
            [h_BSD.new_empty(shape) for _ in count],
        )

    def forward(
        self, state: State, tokens_BT: torch.Tensor, *, last_only: bool = False
    ) -> torch.Tensor:
        """Feed the same T tokens to all branches of a row and advance the state.

        Args:
            state: Advances by T positions.
            tokens_BT: The tokens.
            last_only: Only the last position is wanted, so T is 1 in what is returned: the last
                layer needs no more of the others than their keys and values.

        Returns:
            The hidden states before the last layer norm, float32. [N, B, T, D]
        """
        end = state.length + tokens_BT.shape[1]
        state.reserve(end)
        x_BTD = F.embedding(tokens_BT, self.tokens_VD)
        x_BTD = x_BTD + self.positions_UD[state.length : end]
        # Up to the first change, all branches are one.
        x_NBTD = x_BTD.unsqueeze(0)
        for i, layer in enumerate(self._layers):
            norm_self, norm_cross, norm_ffn = layer.norms
            last = last_only and i == len(self._layers) - 1
            o_NBTD = self._self_attention(
                i, layer_norm(x_NBTD, norm_self, self.dtype), state, last_only=last
            )
            x_NBTD = (x_NBTD[:, :, -1:] if last else x_NBTD) + o_NBTD
            x_NBTD += self._cross_attention(i, layer_norm(x_NBTD, norm_cross, self.dtype), state)
            x_NBTD += self._feed_forward(i, layer_norm(x_NBTD, norm_ffn, self.dtype), state)
        state.length = end
        return x_NBTD

    def _self_attention(
        self, i: int, x_NBTD: torch.Tensor, state: State, *, last_only: bool
    ) -> torch.Tensor:
        layer, deltas = self._layers[i], state.deltas
        qkv_NBTO = layer.qkv(x_NBTD)
        if i == 0:
            branches = state.k_NBHUE[0].shape[0]
            x_NBTD = x_NBTD.expand(branches, -1, -1, -1)
            qkv_NBTO = qkv_NBTO.repeat(branches, 1, 1, 1)
        add_delta(qkv_NBTO, x_NBTD, deltas.get(f"{i}.self_attn.qkv"))
        native, keys, values = kernels(qkv_NBTO), state.k_NBHUE[i], state.v_NBHUE[i]
        if native is not None and qkv_NBTO.shape[2] == 1:
            o_NBTD = native.self_attend(qkv_NBTO, keys, values, state.length)
        else:
            o_NBTD = self._attend_to_past(qkv_NBTO, keys, values, state.length, last_only)
        return add_delta(layer.self_out(o_NBTD), o_NBTD, deltas.get(f"{i}.self_attn.out_proj"))

    def _attend_to_past(
        self,
        qkv_NBTO: torch.Tensor,
        k_NBHUE: torch.Tensor,
        v_NBHUE: torch.Tensor,
        start: int,
        last_only: bool,
    ) -> torch.Tensor:
        """Keep the keys and values of T positions and attend to those and all before."""
        # [N, B, T, 3, H, E] -> 3 x [N, B, H, T, E]
        q, k, v = qkv_NBTO.unflatten(-1, (3, self._heads, -1)).permute(3, 0, 1, 4, 2, 5)
        end = start + qkv_NBTO.shape[2]
        k_NBHUE[..., start:end, :] = k
        v_NBHUE[..., start:end, :] = v
        mask_TU = None
        if last_only:
            q = q[..., -1:, :]
        elif end - start > 1:
            mask_TU = torch.ones(end - start, end, dtype=torch.bool, device=q.device).tril(start)
        o_MHTE = F.scaled_dot_product_attention(
            q.flatten(0, 1),
            k_NBHUE[..., :end, :].flatten(0, 1),
            v_NBHUE[..., :end, :].flatten(0, 1),
            attn_mask=mask_TU,
        )
        return o_MHTE.transpose(1, 2).flatten(2).unflatten(0, qkv_NBTO.shape[:2])

    def _cross_attention(self, i: int, x_NBTD: torch.Tensor, state: State) -> torch.Tensor:
        """Attend with all branches of an utterance over the same K_0 and V_0."""
        layer, deltas, site = self._layers[i], state.deltas, f"{i}.encoder_attn"
        q_NBTD = add_delta(layer.q(x_NBTD), x_NBTD, deltas.get(f"{site}.q_proj"))
        k_UHES, v_UHSE = state.memory.k_BHES[i], state.memory.v_BHSE[i]
        look = None if state.seen is None else partial(state.seen.look, i, x_NBTD.shape[2])
        o_NBTD = torch.empty_like(q_NBTD)
        q_BHNTE, o_BHNTE = (
            x.unflatten(-1, (self._heads, -1)).permute(1, 3, 0, 2, 4) for x in (q_NBTD, o_NBTD)
        )
        attend(
            q_BHNTE,
            k_UHES,
            v_UHSE,
            state.keys[i],
            state.values[i],
            state.rows_B,
            o_BHNTE,
            look and partial(look, state.rows),
        )
        return add_delta(layer.cross_out(o_NBTD), o_NBTD, deltas.get(f"{site}.out_proj"))

    def _feed_forward(self, i: int, x_NBTD: torch.Tensor, state: State) -> torch.Tensor:
        layer, delta1 = self._layers[i], state.deltas.get(f"{i}.fc1")
        if delta1 is None:
            y_NBTO = layer.fc1(x_NBTD, gelu=True)
        else:
            y_NBTO = F.gelu(add_delta(layer.fc1(x_NBTD), x_NBTD, delta1))
        return add_delta(layer.fc2(y_NBTO), y_NBTO, state.deltas.get(f"{i}.fc2"))
