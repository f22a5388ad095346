"""The methods of the paper's tables II and IV: what of the base trains, and how it is stored.

One loop (`das_lib.train.loop`) trains them all; a method only says which weights are free and what
is written at the end.

| method | trains | stored as |
| --- | --- | --- |
| ``lora`` | low-rank changes of the decoder (section IV) | a PEFT folder |
| ``ft-decoder`` | the whole decoder, the token embedding included | a Whisper folder |
| ``ft-decoder-last-n`` | its last n layers | a Whisper folder |
| ``ft-encoder-decoder`` | every weight; learns from log-mel, not from cached features | a folder |
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from das_lib.adml.checkpoint import write_checkpoint
from das_lib.config.tree import Baselines, Lora
from das_lib.errors import DasError
from das_lib.storage import whole_folder
from das_lib.train.base import load_base
from das_lib.train.lora import make_peft_model, save_adapter, save_initial
from das_lib.train.systems import LORA

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


@dataclass(frozen=True, slots=True)
class Trainee:
    """A model whose free weights are those that require a gradient."""

    whisper: "WhisperForConditionalGeneration"
    save: Callable[[Path, str, float], None]
    """Writes the result to a folder, which appears whole or not at all, with a README of this
    text; the last argument is the part of the way from the base that is kept."""


def make_trainee(
    method: str,
    base: Path,
    base_name: str,
    lora: Lora,
    baselines: Baselines,
    seed: int,
    scratch: Path,
) -> Trainee:
    """Load the base and free what the method trains.

    Args:
        method: See the table above.
        base: Folder of the base model.
        base_name: The base as the user names it.
        lora: The adapter's form.
        baselines: Settings of the other methods.
        seed: Of an adapter's start.
        scratch: An empty folder that outlives the trainee.

    Raises:
        ModelError: the base lacks a target of the adapter.
        DasError: a setting does not fit the base.
    """
    whisper = load_base(base)
    if method == LORA:
        model: Any = make_peft_model(whisper, lora, seed)
        initial = scratch / "initial"
        save_initial(model, initial)
        return Trainee(
            model.base_model.model,
            lambda folder, card, part: save_adapter(model, initial, folder, base_name, card, part),
        )
    whisper.requires_grad_(False)
    for part in _free(method, whisper, baselines):
        part.requires_grad_(True)
    # A table of sines, which the stock model never trains.
    whisper.model.encoder.embed_positions.requires_grad_(False)
    return Trainee(whisper, lambda folder, card, part: _save(whisper, base, folder, card, part))


def _free(method: str, whisper: Any, baselines: Baselines) -> list[Any]:
    decoder = whisper.model.decoder
    match method:
        case "ft-decoder":
            return [decoder]
        case "ft-decoder-last-n":
            count = baselines.last_layers
            if count > len(decoder.layers):
                raise DasError(
                    f"baselines.last_layers={count} is more than the base's {len(decoder.layers)} "
                    "decoder layers; lower it"
                )
            return list(decoder.layers[-count:])
        case "ft-encoder-decoder":
            return [whisper]
    raise DasError(f"{method!r} is no method of training; choose one of das_lib.train.methods")


def _save(whisper: Any, base: Path, out: Path, card: str, part: float) -> None:
    tensors = whisper.state_dict()
    if part < 1:
        start = load_base(base).state_dict()
        tensors = {n: torch.lerp(start[n], w.detach().cpu(), part) for n, w in tensors.items()}
    with whole_folder(out) as folder:
        write_checkpoint(base, tensors, folder)
        (folder / "README.md").write_text(card)
