"""Corpus-level word error rate with Whisper's English normaliser on both sides."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Wer:
    """Counts over a whole test set; the rate is a view of them."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    utterances: int

    @property
    def edits(self) -> int:
        """All word errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Edits per reference word: sums over the set, never a mean over utterances."""
        return self.edits / self.words


def normaliser_name() -> str:
    """What the report must say of the normaliser: rates differ by up to a fifth between two."""
    return f"whisper-normalizer {version('whisper-normalizer')} EnglishTextNormalizer"


@lru_cache(maxsize=2**17)  # references come again with every system
def normalise(text: str) -> str:
    """Lower case, digits, American spelling, no fillers and punctuation (Whisper's rules)."""
    return _normaliser()(text).strip()


def corpus_wer(pairs: Iterable[tuple[str, str]]) -> Wer | None:
    """Word error rate of (reference, hypothesis) pairs.

    References without a word once normalised cannot be measured and are left out; None when no
    pair is left.
    """
    kept = [pair for pair in _normalised(pairs) if _measurable(pair)]
    if not kept:
        return None
    counts = jiwer.process_words([r for r, _ in kept], [t for _, t in kept])
    return Wer(
        substitutions=counts.substitutions,
        deletions=counts.deletions,
        insertions=counts.insertions,
        words=counts.hits + counts.substitutions + counts.deletions,
        utterances=len(kept),
    )


def utterance_errors(pairs: Iterable[tuple[str, str]]) -> list[int | None]:
    """Word errors of each pair; None where `corpus_wer` leaves it out."""
    return [
        _errors(jiwer.process_words(*pair)) if _measurable(pair) else None
        for pair in _normalised(pairs)
    ]


def _errors(counts: jiwer.WordOutput) -> int:
    return counts.substitutions + counts.deletions + counts.insertions


def _normalised(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(normalise(reference), normalise(text)) for reference, text in pairs]


def _measurable(pair: tuple[str, str]) -> bool:
    return any(c.isalnum() for c in pair[0])


@cache
def _normaliser() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()
