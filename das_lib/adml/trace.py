"""What a decode collects for one utterance, step by step."""

import numpy as np

from das_lib.adml.select import Rule


class Trace:
    """Tokens in the making, and who chose them."""

    __slots__ = ("branch", "columns", "confidence", "language", "logprob", "rule", "tokens")

    def __init__(self, columns: tuple[int, ...], language: str) -> None:
        self.columns, self.language = columns, language
        self.tokens: list[int] = []
        self.branch: list[int] = []
        self.rule: list[Rule] = []
        self.logprob: list[float] = []
        self.confidence: list[np.ndarray] = []

    def append(
        self, token: int, column: int, rule: int, logprob: float, confidence_N: np.ndarray
    ) -> None:
        """Add a step; ``column`` counts among the branches that run."""
        self.tokens.append(token)
        self.branch.append(self.columns[column])
        self.rule.append(Rule(rule))
        self.logprob.append(logprob)
        self.confidence.append(confidence_N)
