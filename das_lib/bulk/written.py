"""How the words of a text are written: blanks between them, ends of sentences, on one line."""

from collections.abc import Sequence
from itertools import pairwise

BLANKLESS = frozenset(("zh", "ja", "th", "yue", "lo", "my"))
"""Codes of the languages that are written without blanks, openai/whisper's list."""


_CLOSING = "\"'”’»)]}」』）》"
_SENTENCE_ENDS = tuple(".?!…。？！｡．؟۔।။។።։")
_CLAUSE_ENDS = tuple(",;:，；：、､،؛၊፣")


def ends_sentence(word: str) -> bool:
    """Whether a sentence ends with the word."""
    return word.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)


def ends_clause(word: str) -> bool:
    """Whether a part of a sentence ends with the word, and not the whole."""
    return word.rstrip(_CLOSING).endswith(_CLAUSE_ENDS)


def cut(text: str, words: Sequence[str], language: str) -> list[str]:
    """The text cut behind each word, so that blanks stand in front of the word that they precede.

    Joined, the result is the text again. Where the words do not make up the text, they are joined
    instead: by a blank, but in languages without blanks only beside ASCII.

    Args:
        text: What was written.
        words: Its words in order, without blanks at their ends.
        language: Code of the language.
    """
    ends = _ends(text, words)
    if ends is not None:
        return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    parts = list(words[:1])
    for before, word in pairwise(words):
        blank = language not in BLANKLESS or before[-1:].isascii() or word[:1].isascii()
        parts.append(" " + word if blank else word)
    return parts


def one_line(text: str) -> str:
    """The text with each run of blanks, line ends and control characters made one blank."""
    return " ".join("".join(c if ord(c) >= 32 and c != "\x7f" else " " for c in text).split())


def _ends(text: str, words: Sequence[str]) -> list[int] | None:
    """Where each word ends in the text; None if anything else than blanks is between them."""
    ends, at = [], 0
    for word in words:
        at += len(text[at:]) - len(text[at:].lstrip())
        if not text.startswith(word, at):
            return None
        at += len(word)
        ends.append(at)
    if text[at:].strip():
        return None
    return [*ends[:-1], len(text)] if ends else ends
