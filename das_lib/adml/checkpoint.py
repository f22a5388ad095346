"""A Whisper model's files, read without its modelling code: weights, sizes, generation settings.

transformers' modelling module takes some ten seconds of CPU to import, which every worker of a
pool would pay; the engine has layers of its own and needs the numbers alone.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from das_lib.errors import ModelError
from das_lib.models.cache import RECORD

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SIZES = (
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "decoder_layers",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "num_mel_bins",
    "vocab_size",
    "max_source_positions",
    "max_target_positions",
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A Whisper model in the Hugging Face form."""

    folder: Path
    config: dict[str, Any]
    """``config.json``, checked to hold every size that the layers need."""
    generation: dict[str, Any]
    """``generation_config.json``: prompt tokens, suppressed tokens, alignment heads."""
    tensors: dict[str, torch.Tensor]
    """Weights by name, without the prefix ``model.``."""

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The float32 weights whose names start with ``prefix.``, by the rest of their names."""
        start = f"{prefix}."
        found = {n.removeprefix(start): t for n, t in self.tensors.items() if n.startswith(start)}
        return {name: tensor.float() for name, tensor in found.items()}

    def norm(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of a layer norm, float32."""
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def linear(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of a projection, float32; Whisper's k_proj has none, which is 0."""
        weight = self[f"{name}.weight"]
        bias = self.tensors.get(f"{name}.bias")
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.float()

    def __getitem__(self, name: str) -> torch.Tensor:
        """A weight in float32.

        Raises:
            ModelError: There is none of that name.
        """
        if name not in self.tensors:
            raise ModelError(
                f"base model: {self.folder} holds no weight {name!r}; name a Whisper model in the "
                "Hugging Face form"
            )
        return self.tensors[name].float()


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder with ``config.json``, ``generation_config.json`` and safetensors.

    Raises:
        ModelError: A file is missing or damaged, or it is no Whisper model.
    """
    folder = Path(folder)
    config = _read_json(folder / "config.json")
    missing = [name for name in _SIZES if name not in config]
    if missing:
        raise ModelError(
            f"base model: {folder}/config.json has no {missing[0]!r} (model_type "
            f"{config.get('model_type')!r}); name a Whisper model"
        )
    return Checkpoint(
        folder, config, _read_json(folder / "generation_config.json"), _read_weights(folder)
    )


def write_checkpoint(base: Path, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write weights in float32, and what else stands in the base's folder.

    Args:
        base: Folder of the model that was changed; its configuration and tokenizer are copied.
        tensors: All weights, with or without the leading ``model.``.
        folder: An existing folder.
    """
    for file in base.iterdir():
        weights = file.name == INDEX or file.suffix == ".safetensors"
        if file.is_file() and not weights and file.name != RECORD:
            shutil.copyfile(file, folder / file.name)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2))
    # proj_out is tied to the embedding and stands in no file; every other weight is a model.*
    named = {
        f"model.{name.removeprefix('model.')}": tensor.detach().float().cpu().contiguous()
        for name, tensor in tensors.items()
        if not name.startswith("proj_out")
    }
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"base model: {path} cannot be loaded ({error}); name a Whisper model in the Hugging "
            "Face form"
        ) from error


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    files = [WEIGHTS]
    if (folder / INDEX).is_file():
        files = sorted(set(_read_json(folder / INDEX)["weight_map"].values()))
    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in files:
            tensors |= load_file(folder / file)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"base model: {folder} cannot be loaded ({error}); only safetensors are read, so save "
            "the model with safe_serialization=True"
        ) from error
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
