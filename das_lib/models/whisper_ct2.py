"""CTranslate2's Whisper file -> a folder in Hugging Face form.

The file is little-endian: version u32, then length-prefixed names (u16, with a closing zero),
revision u32, tensor count u32; per tensor a name, rank u8, dimensions u32, type id u8, byte count
u32, data; then aliases. Names follow CTranslate2's ``WhisperSpec`` (python/ctranslate2/specs).
"""

import json
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from das_lib.errors import ModelError

_TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_WEIGHT_BIAS = {"weight": "weight", "bias": "bias"}
_NORM = {"gamma": "weight", "beta": "bias"}


class _Reader:
    """A cursor over the mapped file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(kind)
        return value

    def name(self) -> str:
        return self.bytes(self.number("H")).rstrip(b"\0").decode()

    def bytes(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError(f"ends at byte {len(self.data)} inside a field of {count} bytes")
        self.at += count
        return self.data[self.at - count : self.at]


def read_ct2(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a CTranslate2 Whisper file by their CTranslate2 names; aliases left out.

    Raises:
        ModelError: the file is cut, of another kind, or quantised.
    """
    tensors: dict[str, np.ndarray] = {}
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            reader = _Reader(data)
            version, spec = reader.number("I"), reader.name()
            if version != 6 or spec != "WhisperSpec":
                raise ValueError(f"holds {spec!r} version {version}, expected 'WhisperSpec' 6")
            reader.number("I")  # revision of the spec
            for _ in range(reader.number("I")):
                name = reader.name()
                shape = [reader.number("I") for _ in range(reader.number("B"))]
                kind = _TYPES[reader.number("B")]
                raw = reader.bytes(reader.number("I"))
                tensors[name] = np.frombuffer(raw, dtype=kind).reshape(shape)
    except (KeyError, ValueError, struct.error) as error:
        raise ModelError(
            f"{path} is no whole CTranslate2 Whisper file in float: {error!r}. Fetch it again."
        ) from error
    return tensors


def state_dict(tensors: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """CTranslate2 tensors -> the float32 state dict of WhisperForConditionalGeneration.

    ``self_attention/linear_0`` is q, k and v in one, ``attention/linear_0`` cross-attention's q and
    ``attention/linear_1`` its k and v; k has no bias in Whisper, so its share must be zero.
    """
    state: dict[str, torch.Tensor] = {}
    left = {name for name, value in tensors.items() if value.ndim > 0 and "/" in name}
    left.discard("decoder/alignment_heads")

    def take(name: str) -> torch.Tensor:
        left.discard(name)
        return torch.from_numpy(tensors[name].astype(np.float32))

    def copy(source: str, target: str, parts: dict[str, str]) -> None:
        for theirs, ours in parts.items():
            state[f"{target}.{ours}"] = take(f"{source}/{theirs}").clone()

    def split(source: str, target: str, projections: str) -> None:
        weights = take(f"{source}/weight").chunk(len(projections))
        biases = take(f"{source}/bias").chunk(len(projections))
        for letter, weight, bias in zip(projections, weights, biases, strict=True):
            state[f"{target}.{letter}_proj.weight"] = weight.clone()
            if letter != "k":
                state[f"{target}.{letter}_proj.bias"] = bias.clone()
            elif bias.any():
                raise ModelError(f"{source}/bias: the share of k is not zero; this is no Whisper")

    for conv in ("conv1", "conv2"):
        copy(f"encoder/{conv}", f"model.encoder.{conv}", _WEIGHT_BIAS)
    for side in ("encoder", "decoder"):
        ours = f"model.{side}"
        copy(f"{side}/position_encodings", f"{ours}.embed_positions", {"encodings": "weight"})
        copy(f"{side}/layer_norm", f"{ours}.layer_norm", _NORM)
        for i in range(_layers(tensors, side)):
            ct2, hf = f"{side}/layer_{i}", f"{ours}.layers.{i}"
            split(f"{ct2}/self_attention/linear_0", f"{hf}.self_attn", "qkv")
            copy(f"{ct2}/self_attention/linear_1", f"{hf}.self_attn.out_proj", _WEIGHT_BIAS)
            copy(f"{ct2}/self_attention/layer_norm", f"{hf}.self_attn_layer_norm", _NORM)
            if side == "decoder":
                split(f"{ct2}/attention/linear_0", f"{hf}.encoder_attn", "q")
                split(f"{ct2}/attention/linear_1", f"{hf}.encoder_attn", "kv")
                copy(f"{ct2}/attention/linear_2", f"{hf}.encoder_attn.out_proj", _WEIGHT_BIAS)
                copy(f"{ct2}/attention/layer_norm", f"{hf}.encoder_attn_layer_norm", _NORM)
            copy(f"{ct2}/ffn/linear_0", f"{hf}.fc1", _WEIGHT_BIAS)
            copy(f"{ct2}/ffn/linear_1", f"{hf}.fc2", _WEIGHT_BIAS)
            copy(f"{ct2}/ffn/layer_norm", f"{hf}.final_layer_norm", _NORM)
    copy("decoder/embeddings", "model.decoder.embed_tokens", {"weight": "weight"})
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]  # tied
    if left:
        raise ModelError(f"tensors that Whisper does not have: {sorted(left)[:5]}")
    return state


def _layers(tensors: dict[str, np.ndarray], side: str) -> int:
    return sum(n.startswith(f"{side}/layer_") and n.endswith("ffn/linear_0/bias") for n in tensors)


def model_sizes(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The sizes in WhisperConfig's names, read off the tensors."""
    sizes: dict[str, Any] = {
        "vocab_size": tensors["decoder/embeddings/weight"].shape[0],
        "d_model": tensors["decoder/embeddings/weight"].shape[1],
        "num_mel_bins": tensors["encoder/conv1/weight"].shape[1],
        "max_source_positions": tensors["encoder/position_encodings/encodings"].shape[0],
        "max_target_positions": tensors["decoder/position_encodings/encodings"].shape[0],
    }
    for side in ("encoder", "decoder"):
        sizes[f"{side}_layers"] = _layers(tensors, side)
        sizes[f"{side}_attention_heads"] = int(tensors[f"{side}/num_heads"])
        sizes[f"{side}_ffn_dim"] = tensors[f"{side}/layer_0/ffn/linear_0/weight"].shape[0]
    return sizes


def token_ids(tokenizer_json: Path) -> dict[str, int]:
    """Content -> id of the added tokens (special tokens, languages, timestamps)."""
    added = json.loads(tokenizer_json.read_text(encoding="utf-8"))["added_tokens"]
    return {token["content"]: token["id"] for token in added}


def convert_whisper(source: Path, folder: Path) -> None:
    """Writes the Hugging Face form of ``source`` (model.bin, tokenizer.json, config.json).

    Weights become float32 safetensors; the float16 values of the source are kept exactly.

    Raises:
        ModelError: the source is damaged or is no Whisper.
    """
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from das_lib.models.whisper_files import generation_config, save_processor

    tensors = read_ct2(source / "model.bin")
    ids = token_ids(source / "tokenizer.json")
    hints = json.loads((source / "config.json").read_text())
    try:
        sizes, state = model_sizes(tensors), state_dict(tensors)
    except KeyError as error:
        raise ModelError(f"{source / 'model.bin'} has no tensor {error}; is it Whisper?") from error
    generation = generation_config(ids, hints)
    config = WhisperConfig(
        **sizes,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        begin_suppress_tokens=generation.begin_suppress_tokens,
        suppress_tokens=generation.suppress_tokens,
    )
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = generation
    model.save_pretrained(folder)
    save_processor(source / "tokenizer.json", folder, mel_bins=sizes["num_mel_bins"])
