"""What a decode collects for one utterance, step by step."""

import numpy as np
import torch

from das_lib.adml.select import Choice, Rule


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

    @property
    def score(self) -> float:
        """Log-probability of the tokens under the branches that chose them."""
        return sum(self.logprob)

    def fork(self) -> "Trace":
        """A copy that goes its own way."""
        other = Trace(self.columns, self.language)
        other.tokens, other.branch = [*self.tokens], [*self.branch]
        other.rule, other.logprob = [*self.rule], [*self.logprob]
        other.confidence = [*self.confidence]
        return other

    def append(
        self, token: int, column: int, rule: int, logprob: float, confidence_N: np.ndarray
    ) -> None:
        """Add a step; ``column`` counts among the branches that run."""
        self.tokens.append(token)
        self.branch.append(self.columns[column])
        self.rule.append(Rule(rule))
        self.logprob.append(logprob)
        self.confidence.append(confidence_N)

    def extend(self, choice: Choice, c_PN: torch.Tensor, count: int) -> None:
        """Add the first ``count`` of P steps that were chosen together."""
        columns = (choice.token_B, choice.branch_B, choice.rule_B, choice.logprob_B)
        confidence_PN = c_PN[:count].cpu().numpy()
        for step in zip(*(x[:count].tolist() for x in columns), confidence_PN, strict=True):
            self.append(*step)
