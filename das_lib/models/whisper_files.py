"""What stands beside Whisper's weights in Hugging Face form: generation config and processor."""

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from das_lib.errors import ModelError

if TYPE_CHECKING:
    from transformers import GenerationConfig

MAX_LENGTH = 448
"""Tokens of one decoder pass, prompt included (Whisper's text context)."""


def generation_config(ids: dict[str, int], hints: dict[str, Any]) -> "GenerationConfig":
    """The generation settings that the hub's Whisper folders carry.

    Args:
        ids: content -> id of the tokenizer's added tokens.
        hints: CTranslate2's config.json (alignment_heads, suppress_ids, suppress_ids_begin).

    Raises:
        ModelError: a special token or a setting of Whisper is missing.
    """
    from transformers import GenerationConfig

    # Languages are the added tokens between <|startoftranscript|> and <|translate|>.
    try:
        end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
        languages = {t: i for t, i in ids.items() if start < i < ids["<|translate|>"]}
        multilingual = {
            "is_multilingual": True,
            "lang_to_id": languages,
            "task_to_id": {t: ids[f"<|{t}|>"] for t in ("transcribe", "translate")},
        }
        return GenerationConfig(
            alignment_heads=hints["alignment_heads"],
            suppress_tokens=hints["suppress_ids"],
            begin_suppress_tokens=hints["suppress_ids_begin"],
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=start,
            no_timestamps_token_id=ids["<|notimestamps|>"],
            prev_sot_token_id=ids["<|startofprev|>"],
            max_initial_timestamp_index=50,
            max_length=MAX_LENGTH,
            return_timestamps=False,
            # English-only models know no language tokens; generate() tells them apart by this.
            **(multilingual if len(languages) > 1 else {"is_multilingual": False}),
        )
    except KeyError as error:
        raise ModelError(f"the model's tokenizer or config lacks {error}; is it Whisper?") from None


def save_processor(tokenizer_json: Path, folder: Path, *, mel_bins: int) -> None:
    """Writes the tokenizer's and the feature extractor's files into ``folder``."""
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    shutil.copyfile(tokenizer_json, folder / "tokenizer.json")
    added = json.loads(tokenizer_json.read_text(encoding="utf-8"))["added_tokens"]
    end = "<|endoftext|>"
    settings = {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "model_max_length": 1024,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "return_attention_mask": False,
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "unk_token": end,
        "additional_special_tokens": [t["content"] for t in added if t["special"]],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    if (spelling := _spelling()) is not None:
        shutil.copyfile(spelling, folder / "normalizer.json")
    WhisperTokenizer.from_pretrained(folder).save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=mel_bins, processor_class="WhisperProcessor")
    extractor.save_pretrained(folder)


def _spelling() -> Path | None:
    """The British -> American spelling table that OpenAI's normaliser uses, if it is installed."""
    try:
        files = importlib.metadata.files("whisper-normalizer") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = next((f for f in files if f.name == "english.json"), None)
    return None if found is None else Path(str(found.locate()))
