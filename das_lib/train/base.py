"""The base model that is adapted, loaded the same way wherever training needs it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from das_lib.errors import ModelError

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

ENCODER_FRAMES_PER_SECOND = 50
FIRST_MULTILINGUAL_VOCABULARY = 51865  # openai/whisper: smaller vocabularies know English only


def load_base(model_folder: Path) -> "WhisperForConditionalGeneration":
    """Load a Whisper model in float32 from safetensors, without a look at the network.

    Raises:
        ModelError: the folder holds no Whisper model in the Hugging Face form.
    """
    from transformers import WhisperForConditionalGeneration
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        return WhisperForConditionalGeneration.from_pretrained(
            model_folder, dtype="float32", local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"asr.model: {model_folder} holds no Whisper model in the Hugging Face form "
            f"(config.json, model.safetensors): {error}"
        ) from error


def is_multilingual(generation: Mapping[str, Any], vocabulary: int) -> bool:
    """Whether a model's prompt carries a language and a task, by its generation configuration."""
    said = generation.get("is_multilingual")
    return vocabulary >= FIRST_MULTILINGUAL_VOCABULARY if said is None else bool(said)


def bytes_per_utterance(model_folder: Path, *, log_mel: bool) -> int:
    """Size of what is kept of an utterance: float16 of the whole window."""
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    frames, width = config["max_source_positions"], config["d_model"]
    if log_mel:  # the encoder halves the frames
        frames, width = 2 * frames, config["num_mel_bins"]
    return 2 * frames * width
