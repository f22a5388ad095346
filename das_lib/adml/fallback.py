"""A second look at doubtful transcripts, as Whisper takes it: sample at a higher temperature.

Off by default, for it changes Algorithm 1's tokens. A transcript is doubtful when it compresses
too well (it repeats itself) or when its tokens are too unlikely.
"""

from dataclasses import dataclass

import torch

from das_lib.adml.result import Result
from das_lib.adml.scores import Scores
from das_lib.adml.select import Choice, Strategy
from das_lib.doubt import MAX_COMPRESSION_RATIO, MIN_AVG_LOGPROB, compression_ratio
from das_lib.errors import DasError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """When to look again, and how; the values are openai/whisper's."""

    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """Tried in this order until a transcript is no longer doubtful; the last one stands."""
    max_compression_ratio: float = MAX_COMPRESSION_RATIO
    """Bytes of text per byte that zlib makes of it; a higher one is doubtful."""
    min_avg_logprob: float = MIN_AVG_LOGPROB
    """Mean log-probability of the tokens; a lower one is doubtful."""
    seed: int = 0
    """Of the samples."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.temperatures or min(self.temperatures) <= 0:
            raise DasError(
                f"temperatures is {self.temperatures}, it must hold values above 0 alone; "
                "the first, greedy decode needs no entry"
            )

    def doubts(self, result: Result) -> bool:
        """Whether a transcript deserves another look."""
        return (
            compression_ratio(result.text) > self.max_compression_ratio
            or result.avg_logprob < self.min_avg_logprob
        )


class Sampled:
    """Draws the token from the distribution of the branch that another strategy chooses."""

    static = False

    def __init__(self, inner: Strategy, temperature: float, generator: torch.Generator) -> None:
        self.inner, self.temperature, self.generator = inner, temperature, generator

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """What the other needs."""
        return self.inner.needs(available)

    def choose(self, scores: Scores) -> Choice:
        """p(token) ~ exp(logit / temperature) under the chosen branch."""
        choice = self.inner.choose(scores)
        logits_BV = scores.logits_of(choice.branch_B)
        p_BV = (logits_BV / self.temperature).softmax(-1)
        token_B1 = torch.multinomial(p_BV, 1, generator=self.generator)
        logprob_B1 = logits_BV.log_softmax(-1).gather(1, token_B1)
        return Choice(token_B1[:, 0], choice.branch_B, choice.rule_B, logprob_B1[:, 0])
