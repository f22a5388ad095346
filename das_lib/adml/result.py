"""A transcript, and who decided which of its tokens and words.

Shape suffixes: T tokens, N branches.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from das_lib.adml.select import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word of a transcript, as it is written, with the punctuation that clings to it."""

    text: str
    start: int
    """The first of its tokens."""
    end: int
    """Behind the last of its tokens."""
    branch: int
    """The branch that chose most of its tokens, of equals the first to choose; 0 is the base."""
    confidence: float
    """The least probability that the choosing branch gave to one of its tokens."""
    start_s: float | None = None
    """When it begins in the clip, where times were asked for."""
    end_s: float | None = None
    """When it ends in the clip, where times were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One transcript and who decided what; T counts the end-of-text token where it was reached."""

    text: str
    tokens: list[int]
    """The chosen tokens, without the prompt. [T]"""
    branch: list[int]
    """The branch that chose each token: 0 is the base. [T]"""
    rule: list[Rule]
    """The rule that fired for each token. [T]"""
    branches: tuple[int, ...]
    """The branches that ran, the columns of ``confidence``. [N]"""
    confidence: np.ndarray
    """max softmax(logits) of each branch at each token, float32. [T, N]"""
    logprob: list[float]
    """Log-probability of each token under the branch that chose it. [T]"""
    language: str
    """Code of the language given or detected."""
    words: list[Word] = field(default_factory=list)
    temperature: float = 0.0
    """What the tokens were sampled at; 0 is greedy."""
    no_speech_prob: float | None = None
    """What the base thinks of there being no speech; None: the transcript is likely enough."""

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability of the chosen tokens under the branches that chose them."""
        return sum(self.logprob) / len(self.logprob)

    def columns(self, batch: int) -> dict[str, Any]:
        """What was heard in plain values, which a process without torch can read.

        ``batch`` is how many were decoded together.
        """
        return {
            "text": self.text,
            "language": self.language,
            "tokens": self.tokens,
            "branches": self.branch,
            "rules": [rule.name.lower() for rule in self.rule],
            "avg_logprob": min(self.avg_logprob, 0.0),
            "temperature": self.temperature,
            "no_speech_prob": self.no_speech_prob,
            "words": [
                {
                    "text": word.text,
                    "branch": word.branch,
                    "confidence": word.confidence,
                    "start_s": word.start_s,
                    "end_s": word.end_s,
                }
                for word in self.words
            ],
            "batch": batch,
        }


def split_words(
    tokens: Sequence[int],
    branch: Sequence[int],
    logprob: Sequence[float],
    decode: Callable[[list[int]], str],
) -> list[Word]:
    """Group text tokens into words: a word starts at a blank, and never inside a character.

    Scripts without blanks (Chinese, Thai) come out as one word a sentence.

    Args:
        tokens: Text tokens, without special ones. [T]
        branch: The branch that chose each. [T]
        logprob: Its log-probability under that branch. [T]
        decode: Tokens to text; an incomplete character becomes U+FFFD.
    """
    pieces: list[tuple[str, int, int]] = []
    start = 0
    for end in range(1, len(tokens) + 1):
        text = decode(list(tokens[start:end]))
        if "\ufffd" in text and end < len(tokens):
            continue
        if pieces and not text.startswith(" "):
            before, first, _ = pieces.pop()
            pieces.append((before + text, first, end))
        else:
            pieces.append((text, start, end))
        start = end
    return [
        Word(
            text=text.strip(),
            start=first,
            end=end,
            # Counter keeps the order of first sight, and most_common the order of equals.
            branch=Counter(branch[first:end]).most_common(1)[0][0],
            confidence=float(np.exp(min(logprob[first:end]))),
        )
        for text, first, end in pieces
        if text.strip()
    ]
