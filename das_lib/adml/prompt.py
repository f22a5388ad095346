"""Whisper's prompts and suppressed tokens, read from a model's generation configuration.

Shape suffixes: B utterances, T prompt tokens, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from das_lib.errors import DasError, ModelError


class Prompts:
    """What stands before a transcript, what may not stand in it, and what ends it."""

    def __init__(self, generation: Mapping[str, Any], vocabulary: int, device: torch.device):
        """Read a ``generation_config.json``.

        Raises:
            ModelError: It lacks a field that the prompt needs.
        """
        self._device = device
        self._start: int = _need(generation, "decoder_start_token_id")
        no_timestamps: int = _need(generation, "no_timestamps_token_id")
        end = _need(generation, "eos_token_id")
        self.end = frozenset([end] if isinstance(end, int) else end)
        self.no_speech = no_timestamps - 1  # so it stands in every Whisper vocabulary
        # An English-only model has neither languages nor tasks.
        self._languages: dict[str, int] = {}
        self._tail = [no_timestamps]
        if generation.get("is_multilingual") is not False:
            ids = _need(generation, "lang_to_id")
            self._languages = {token.strip("<|>"): i for token, i in ids.items()}
            self._tail = [_need(generation, "task_to_id")["transcribe"], no_timestamps]
        self.length = len(self._tail) + (2 if self._languages else 1)
        self.mask_V = self._mask(vocabulary, generation.get("suppress_tokens") or ())
        self.begin_mask_V = self.mask_V + self._mask(
            vocabulary, generation.get("begin_suppress_tokens") or ()
        )

    def resolve(self, language: str | None) -> str | None:
        """Check a language code; None means that it is to be detected.

        Raises:
            DasError: The model does not know it.
        """
        known = list(self._languages) or ["en"]
        if language is None and self._languages:
            return None
        if language is None:
            return "en"
        if language not in known:
            raise DasError(
                f"language is {language!r}, the model knows {', '.join(sorted(known))}; "
                "name one of these codes, or none to have it detected"
            )
        return language

    @property
    def any_language(self) -> str:
        """A code that the model knows."""
        return next(iter(self._languages), "en")

    def start(self, count: int) -> torch.Tensor:
        """The start of transcript alone, from which the base detects the language. [B, 1]."""
        return torch.full((count, 1), self._start, device=self._device)

    def detect(self, logits_BV: torch.Tensor) -> list[str]:
        """The most likely language code of each utterance."""
        codes = list(self._languages)
        columns = torch.tensor([self._languages[code] for code in codes], device=self._device)
        return [codes[i] for i in logits_BV[:, columns].argmax(-1).tolist()]

    def build(self, languages: Sequence[str]) -> torch.Tensor:
        """``<|startoftranscript|><|lang|><|transcribe|><|notimestamps|>``. [B, T].

        English-only models: ``<|startoftranscript|><|notimestamps|>``.
        """
        rows = [
            [self._start, *([self._languages[code]] if self._languages else []), *self._tail]
            for code in languages
        ]
        return torch.tensor(rows, device=self._device)

    def _mask(self, vocabulary: int, tokens: Sequence[int]) -> torch.Tensor:
        """Added to logits: minus infinity at these tokens. [V]."""
        mask_V = torch.zeros(vocabulary, device=self._device)
        mask_V[[token for token in tokens if 0 <= token < vocabulary]] = -torch.inf
        return mask_V


def _need(generation: Mapping[str, Any], field: str) -> Any:
    value = generation.get(field)
    if value is None:
        raise ModelError(
            f"base model: its generation_config.json lacks {field}; copy the file from the "
            "openai/whisper model that it was trained from"
        )
    return value
