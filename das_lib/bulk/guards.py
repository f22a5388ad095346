"""Whisper's guards against what it makes up: loops, guesses, and words where nobody speaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from das_lib.doubt import (
    MAX_COMPRESSION_RATIO,
    MIN_AVG_LOGPROB,
    NO_SPEECH_PROB,
    compression_ratio,
)
from das_lib.errors import DasError

Verdict = Literal["no-speech", "repetitive", "unlikely"]

DROPPED: frozenset[Verdict] = frozenset(("no-speech",))
"""Verdicts whose text is left out, as in openai/whisper. With the others the text stays and the
caller counts it: the replica has already sampled at higher temperatures if it was told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Bounds of the guards; the values are openai/whisper's."""

    max_compression_ratio: float = MAX_COMPRESSION_RATIO
    """Bytes of text per byte that zlib makes of it; a higher one is ``repetitive``."""
    min_avg_logprob: float = MIN_AVG_LOGPROB
    """Mean log-probability of the tokens; a lower one is ``unlikely``."""
    no_speech_threshold: float = NO_SPEECH_PROB
    """Probability of no speech; if it is higher and the text unlikely, that is ``no-speech``."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, kept, range_ in (
            ("max_compression_ratio", self.max_compression_ratio > 0, "above 0"),
            ("min_avg_logprob", self.min_avg_logprob <= 0, "at most 0"),
            ("no_speech_threshold", 0 <= self.no_speech_threshold <= 1, "from 0 to 1"),
        ):
            if not kept:
                raise DasError(f"{name} is {getattr(self, name)}, it must be {range_}")


def judge(answer: Mapping[str, Any], settings: GuardSettings) -> Verdict | None:
    """What is wrong with a window's answer; None where nothing is, or nothing was heard.

    Args:
        answer: With ``text``, ``avg_logprob`` and ``no_speech_prob`` (None: it was not asked).
        settings: The bounds.
    """
    if not answer["text"].strip():
        return None
    unlikely = answer["avg_logprob"] < settings.min_avg_logprob
    if unlikely and (answer["no_speech_prob"] or 0.0) > settings.no_speech_threshold:
        return "no-speech"
    if compression_ratio(answer["text"]) > settings.max_compression_ratio:
        return "repetitive"
    return "unlikely" if unlikely else None
