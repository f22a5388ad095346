"""Tokens to text by a table of their bytes: what the tokenizer's ``decode`` gives, sooner.

Words are found by spelling every token of a transcript (`result.split_words`); a batch on a GPU is
decoded in the time that the tokenizer takes for that.
"""

from collections.abc import Sequence
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode


class Spelling:
    """The bytes of every token; special ones and timestamps have none."""

    def __init__(self, tokenizer: Any) -> None:
        """Read a ``WhisperTokenizer``, whose tokens are bytes in the guise of printable letters."""
        bytes_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
        added = set(tokenizer.get_added_vocab().values())
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._bytes = [
            b"" if i in added else bytes(bytes_of[letter] for letter in token)
            for i, token in enumerate(tokens)
        ]

    def __call__(self, tokens: Sequence[int]) -> str:
        """Their text; an incomplete character becomes U+FFFD."""
        known = len(self._bytes)
        spelt = b"".join(self._bytes[token] for token in tokens if token < known)
        return spelt.decode("utf-8", errors="replace")
