"""Loads Whisper by name, the same way everywhere."""

from typing import TYPE_CHECKING

from das_lib.errors import ModelError
from das_lib.models.resolve import resolve_model

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor


def load_whisper(
    name_or_path: str,
) -> "tuple[WhisperForConditionalGeneration, WhisperProcessor]":
    """The model (float32, evaluation mode, on the CPU) and its processor.

    Raises:
        ModelError: the name cannot be resolved, or the folder holds no Whisper.
    """
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    folder = resolve_model(str(name_or_path))
    try:
        model = WhisperForConditionalGeneration.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
        processor = WhisperProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {str(name_or_path)!r}: {folder} does not load as Whisper: {error}"
        ) from error
    return model.eval(), processor
