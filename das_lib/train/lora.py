"""Decoder-only LoRA (paper, section IV): where it sits, how it starts, how it is stored.

PiSSA starts from the principal singular vectors and takes them out of the base weights, so a raw
PiSSA adapter fits no other base. What is stored is plain LoRA, exactly the same function:
W_res + s B A = W + s (B A - B0 A0), of twice the rank.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from das_lib.config.tree import Lora
from das_lib.errors import DasError, ModelError
from das_lib.storage import whole_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import WhisperForConditionalGeneration

logger = logging.getLogger(__name__)

FEED_FORWARD = ("fc1", "fc2")


def target_pattern(targets: tuple[str, ...]) -> str:
    """Regular expression of the decoder projections that get an adapter."""
    attention = [t for t in targets if t not in FEED_FORWARD]
    parts = [rf"(self_attn|encoder_attn)\.({'|'.join(attention)})"] if attention else []
    parts += [t for t in targets if t in FEED_FORWARD]
    return rf"(.*\.)?decoder\.layers\.\d+\.({'|'.join(parts)})"


def make_peft_model(
    whisper: "WhisperForConditionalGeneration", lora: Lora, seed: int
) -> "PeftModel":
    """Freeze the model and put an untrained adapter on its decoder; same seed, same adapter.

    Raises:
        ModelError: the base lacks a target.
        DasError: ``lora.rank`` exceeds the model's width, or something beside the decoder trains.
    """
    from peft import LoraConfig, get_peft_model

    found = {name.rsplit(".", 1)[-1] for name, _ in whisper.named_modules() if ".decoder." in name}
    missing = [target for target in lora.targets if target not in found]
    if missing:
        raise ModelError(
            f"lora.targets: the base model's decoder has no {', '.join(missing)}; "
            "give a Whisper model or other targets"
        )
    width = whisper.config.d_model
    if lora.rank > width:
        raise DasError(f"lora.rank={lora.rank} is above the base model's width {width}; lower it")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - a float works and is kept
        use_rslora=lora.rank_stabilized,
        init_lora_weights="pissa" if lora.init == "pissa" else True,
        target_modules=target_pattern(lora.targets),
        lora_dropout=0.0,
        bias="none",
        # task_type stays unset: with it PEFT calls forward with arguments that Whisper lacks.
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = get_peft_model(whisper, config)  # pyright: ignore[reportArgumentType]
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    outside = [name for name in trained if ".decoder." not in name]
    if outside or not trained:
        raise DasError(f"lora: only the decoder may train, found {outside or 'nothing'}")
    return model


def save_initial(model: "PeftModel", init_dir: Path) -> None:
    """Keep the untrained adapter, which `save_adapter` subtracts from a PiSSA one."""
    model.save_pretrained(str(init_dir), save_embedding_layers=False)


def save_adapter(
    model: "PeftModel",
    init_dir: Path,
    out_dir: Path,
    base_name: str,
    card: str,
    part: float = 1,
) -> None:
    """Store the adapter as float32 safetensors that stock PEFT loads on the stock base.

    Args:
        model: The trained model.
        init_dir: What `save_initial` wrote before training; only read for PiSSA.
        out_dir: Appears whole or not at all; an older folder of that name is replaced.
        base_name: The base as the user names it, e.g. openai/whisper-base.
        card: README.md of the folder.
        part: Of the change of the base's weights that is kept.
    """
    config: Any = model.peft_config["default"]
    is_pissa = config.init_lora_weights == "pissa"
    with whole_folder(out_dir) as folder:
        with warnings.catch_warnings():
            # PEFT warns of two PiSSA adapters on one base when it loads the initial one.
            warnings.filterwarnings("ignore", message="PiSSA changes the base weights")
            model.save_pretrained(
                str(folder),
                save_embedding_layers=False,
                path_initial_model_for_weight_conversion=str(init_dir) if is_pissa else None,
            )
        if part != 1:  # (B A) part = (B part) A, of a PiSSA adapter that has become plain LoRA too
            weights = folder / "adapter_model.safetensors"
            tensors = {n: part * t if "lora_B" in n else t for n, t in load_file(weights).items()}
            save_file(tensors, weights, metadata={"format": "pt"})
        # Written here and not through PEFT, which would look the name up on the hub.
        file = folder / "adapter_config.json"
        values = {**json.loads(file.read_text()), "base_model_name_or_path": base_name}
        file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
        (folder / "README.md").write_text(card)  # PEFT's own is an empty form
