"""From a text to the tokens that the decoder learns to emit.

    <|startoftranscript|><|en|><|transcribe|><|notimestamps|> Turn it up.<|endoftext|>
    |------------------- prompt, given ---------------------||---- predicted ------|

English-only models have no language and no task in the prompt. Text starts with a space, as the
decoder's own transcripts do (openai/whisper, ``decoding.py``: " Text").
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from das_lib.errors import DasError, ModelError, Reject

START, TASK, NO_TIMESTAMPS = "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"
END = "<|endoftext|>"
IGNORED = -100  # the target that cross-entropy skips


@dataclass(frozen=True, slots=True)
class Labels:
    """``tokens``: prompt, text and end of text; the first ``prompt_length`` are the prompt."""

    tokens: list[int]
    prompt_length: int


class LabelEncoder:
    """Writes texts as training tokens of one base model."""

    def __init__(self, model_folder: Path, *, multilingual: bool, max_tokens: int) -> None:
        """Load the tokenizer.

        Raises:
            ModelError: the folder has no tokenizer, or it lacks Whisper's special tokens.
        """
        from transformers import WhisperTokenizer

        try:
            self._tokenizer: Any = WhisperTokenizer.from_pretrained(
                model_folder, local_files_only=True
            )
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"asr.model: {model_folder} has no tokenizer: {error}") from error
        self._ids: dict[str, int] = self._tokenizer.get_vocab()
        special = [START, NO_TIMESTAMPS, END, *([TASK] if multilingual else [])]
        missing = [token for token in special if token not in self._ids]
        if missing:
            raise ModelError(
                f"asr.model: the tokenizer in {model_folder} lacks {', '.join(missing)}; "
                "give a Whisper model"
            )
        self.multilingual, self.max_tokens = multilingual, max_tokens

    def language_id(self, language: str) -> int:
        """Token of a language code.

        Raises:
            DasError: the model does not know it.
        """
        token = self._ids.get(f"<|{language}|>")
        if token is None:
            raise DasError(
                f"asr.language={language!r} is no language of the base model; "
                "give a code such as en or de, or null to let the base detect it"
            )
        return token

    def prompt(self, language: int | None) -> list[int]:
        """Tokens that are given to the decoder; ``language`` is a token, None for English-only."""
        spoken = [] if language is None else [language, self._ids[TASK]]
        return [self._ids[START], *spoken, self._ids[NO_TIMESTAMPS]]

    def text(self, tokens: list[int]) -> str:
        """What a transcript's tokens say, without the special ones."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def encode(self, row_id: str, text: str, language: int | None) -> Labels | Reject:
        """Tokens of one text, or why it cannot be learned."""
        text = text.strip()
        if not text:
            return Reject(row_id, "empty-text", "nothing but white space")
        prompt = self.prompt(language)
        # A text that spells a special token means the characters, not the token.
        spoken = self._tokenizer(
            f" {text}", add_special_tokens=False, split_special_tokens=True
        ).input_ids
        tokens = [*prompt, *spoken, self._ids[END]]
        if len(tokens) > self.max_tokens:
            return Reject(row_id, "too-long-text", f"{len(tokens)} tokens > {self.max_tokens}")
        return Labels(tokens, len(prompt))


def decoder_pair(tokens: np.ndarray, prompt_length: int) -> tuple[np.ndarray, np.ndarray]:
    """What the decoder reads and what it has to answer at each position.

    Args:
        tokens: [T] prompt, text and end of text.
        prompt_length: Number of leading prompt tokens, which are never predicted.

    Returns:
        Inputs [T - 1] and targets [T - 1], ``IGNORED`` where the answer is a prompt token.
    """
    inputs, targets = tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)
    targets[: prompt_length - 1] = IGNORED
    return inputs, targets
