"""The decoder's forward pass in training, over the modules of transformers and PEFT.

Cross-attention reads 1,500 frames for the few tokens of an utterance, so its keys and values are
what a plain pass spends most on. For short token sequences they are never made: with h the frames
that a head attends to,

    q_h K_h^T = (q_h W_k,h) h^T          P V_h = (P h) W_v,h^T + b_v,h

where the products on the right have T rows in place of S (the order in which DeepSeek-V2 absorbs
its up-projections). The values are those of the plain order up to rounding, and so are the
gradients of every weight; none is lost, as the frozen encoder's output needs none.

Shape suffixes: B utterances, T tokens, N text tokens, V vocabulary, S encoder frames, D model
width, H heads, E head width.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.train.data import Batch
from das_lib.train.labels import IGNORED

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration
    from transformers.models.whisper.modeling_whisper import WhisperDecoder


def decode(
    decoder: "WhisperDecoder", encoded_BSD: torch.Tensor, inputs_BT: torch.Tensor
) -> torch.Tensor:
    """Hidden states behind the last layer norm, as `WhisperDecoder.forward` gives. [B, T, D].

    Its dropouts and its layer drop apply where the model is in training mode and has any.
    """
    config: Any = decoder.config
    training = decoder.training
    x_BTD = decoder.embed_tokens(inputs_BT) * decoder.embed_scale
    x_BTD = x_BTD + decoder.embed_positions.weight[: inputs_BT.shape[1]]
    x_BTD = _drop(x_BTD, config.dropout, training)
    for layer in decoder.layers:
        m: Any = layer
        if training and torch.rand(()) < config.decoder_layerdrop:
            continue
        o_BTD = _self_attention(m.self_attn, m.self_attn_layer_norm(x_BTD))
        x_BTD = x_BTD + _drop(o_BTD, config.dropout, training)
        o_BTD = _cross_attention(m.encoder_attn, m.encoder_attn_layer_norm(x_BTD), encoded_BSD)
        x_BTD = x_BTD + _drop(o_BTD, config.dropout, training)
        y_BTF = m.activation_fn(m.fc1(m.final_layer_norm(x_BTD)))
        y_BTF = _drop(y_BTF, config.activation_dropout, training)
        x_BTD = x_BTD + _drop(m.fc2(y_BTF), config.dropout, training)
    return decoder.layer_norm(x_BTD)


def text_logits(
    whisper: "WhisperForConditionalGeneration", batch: Batch, *, encode: bool = False
) -> torch.Tensor:
    """Logits at the positions that answer with text or end of text. [N, V].

    Args:
        whisper: The model, with or without an adapter in its modules.
        batch: Encoder output, or log-mel with ``encode``, and tokens.
        encode: Run the model's encoder first.
    """
    model: Any = whisper
    encoded_BSD = batch.encoded
    if encode:  # [B, frames, mel bins]
        encoded_BSD = model.model.encoder(encoded_BSD.mT).last_hidden_state
    hidden_BTD = decode(model.model.decoder, encoded_BSD, batch.inputs)
    return model.proj_out(hidden_BTD[batch.targets != IGNORED])


def _self_attention(attention: Any, x_BTD: torch.Tensor) -> torch.Tensor:
    q, k, v = (
        _split(projection(x_BTD), attention.num_heads)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    dropout = attention.dropout if attention.training else 0.0
    o_BHTE = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return attention.out_proj(o_BHTE.transpose(1, 2).flatten(2))


def _cross_attention(
    attention: Any, x_BTD: torch.Tensor, encoded_BSD: torch.Tensor
) -> torch.Tensor:
    heads = attention.num_heads
    q_BHTE = _split(attention.q_proj(x_BTD), heads)
    if not absorbs(x_BTD.shape[1], x_BTD.shape[2], heads):
        k, v = (_split(p(encoded_BSD), heads) for p in (attention.k_proj, attention.v_proj))
        dropout = attention.dropout if attention.training else 0.0
        o_BHTE = F.scaled_dot_product_attention(q_BHTE, k, v, dropout_p=dropout)
        return attention.out_proj(o_BHTE.transpose(1, 2).flatten(2))
    (k_DD, _), (v_DD, bias_D) = (_merged(p) for p in (attention.k_proj, attention.v_proj))
    length = x_BTD.shape[1]
    # K has no bias in Whisper; one would add the same to all frames of a query and change nothing.
    q_BHTD = (q_BHTE * attention.scaling) @ k_DD.unflatten(0, (heads, -1))
    p_BMS = (q_BHTD.flatten(1, 2) @ encoded_BSD.transpose(1, 2)).softmax(-1)
    u_BHTD = (_drop(p_BMS, attention.dropout, attention.training) @ encoded_BSD).unflatten(
        1, (heads, length)
    )
    o_BHTE = u_BHTD @ v_DD.unflatten(0, (heads, -1)).transpose(1, 2)
    return attention.out_proj(o_BHTE.transpose(1, 2).flatten(2) + bias_D)


def absorbs(length: int, width: int, heads: int) -> bool:
    """Whether T tokens are few enough: 4 products of H T rows against 2 of D rows, forth and back.

    The small products (5 T rows in the plain order) are counted too.
    """
    return 4 * heads * length < 2 * width + 5 * length


def _merged(projection: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias, an adapter's change included, through which gradients flow."""
    base = getattr(projection, "base_layer", projection)
    weight_OI = base.weight
    for name in getattr(projection, "active_adapters", ()):
        if name in projection.lora_A:
            change_OI = projection.lora_B[name].weight @ projection.lora_A[name].weight
            weight_OI = weight_OI + projection.scaling[name] * change_OI
    return weight_OI, weight_OI.new_zeros(()) if base.bias is None else base.bias


def _split(x_BTD: torch.Tensor, heads: int) -> torch.Tensor:
    return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


def _drop(x: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    # At rate 0, which is Whisper's, torch would still draw a mask.
    return F.dropout(x, rate) if training and rate else x
