"""Which branch decides the next token: the paper's rule and others behind one interface.

Shape suffixes: B utterances, N branches (column 0 is the base where it takes part), V vocabulary.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch

from das_lib.errors import DasError


class Rule(IntEnum):
    """Why a branch was chosen."""

    BASE = 0
    """No branch differs enough in confidence: the base's token."""
    MAX = 1
    """The most confident branch."""
    MIN = 2
    """The least confident branch."""
    FIXED = 3
    """The only branch that ran."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the branches say about the next token, float32, suppressed tokens at minus infinity.

    c_BN is the confidence, max softmax(logits); n_BN the token that has it, the lowest of equals;
    logz_BN the log-sum-exp, so that logits_BNV - logz_BN are log-probabilities.
    """

    c_BN: torch.Tensor
    n_BN: torch.Tensor
    logits_BNV: torch.Tensor
    logz_BN: torch.Tensor

    @classmethod
    def of(cls, logits_BNV: torch.Tensor) -> "Scores":
        """Reduce masked logits; no softmax over the vocabulary is kept."""
        top_BN, n_BN = logits_BNV.max(-1)
        z_BN = (logits_BNV - top_BN.unsqueeze(-1)).exp_().sum(-1)
        return cls(1 / z_BN, n_BN, logits_BNV, top_BN + z_BN.log())


@dataclass(frozen=True, slots=True)
class Choice:
    """The next token, the column of the branch that chose it, and the `Rule` that fired."""

    token_B: torch.Tensor
    branch_B: torch.Tensor
    rule_B: torch.Tensor


class Strategy(Protocol):
    """A way to choose the next token."""

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """The branches that have to run, out of those available; they become the columns.

        Raises:
            DasError: A branch that the strategy needs is not available.
        """
        ...

    def choose(self, scores: Scores) -> Choice:
        """Choose for every utterance."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Adml:
    """The paper's rule (equation 3).

    If max c_i - c_0 >= tau, the token of the most confident branch; else if
    min c_i - c_0 <= -tau, the token of the least confident one; else the base's. Ties go to the
    lower branch.
    """

    tau: float = 0.025

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.tau <= 1:
            raise DasError(
                f"tau is {self.tau}, it must lie in [0, 1], as it is compared with a difference "
                "of probabilities; the paper uses 0.025"
            )

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """All of them."""
        return _with_base(available)

    def choose(self, scores: Scores) -> Choice:
        """Apply the rule; `torch.max` and `torch.min` return the first of equals."""
        high_B, most_B = scores.c_BN.max(1)
        low_B, least_B = scores.c_BN.min(1)
        c0_B = scores.c_BN[:, 0]
        is_max_B = high_B - c0_B >= self.tau
        is_min_B = low_B - c0_B <= -self.tau
        zero_B = torch.zeros_like(most_B)
        branch_B = torch.where(is_max_B, most_B, torch.where(is_min_B, least_B, zero_B))
        rule_B = torch.where(is_max_B, Rule.MAX, torch.where(is_min_B, Rule.MIN, Rule.BASE))
        return _of_branch(scores, branch_B, rule_B)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxConfidence:
    """The token of the most confident branch; ties go to the lower branch."""

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """All of them."""
        return available

    def choose(self, scores: Scores) -> Choice:
        """Take the maximum."""
        branch_B = scores.c_BN.argmax(1)
        return _of_branch(scores, branch_B, torch.full_like(branch_B, Rule.MAX))


@dataclass(frozen=True, slots=True)
class Fixed:
    """One branch alone: 0 is the plain base, i the i-th adapter. No other branch runs."""

    branch: int

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """That branch."""
        if self.branch not in available:
            raise DasError(
                f"branch is {self.branch}, the branches are {list(available)}; "
                "choose one of them or load its adapter"
            )
        return (self.branch,)

    def choose(self, scores: Scores) -> Choice:
        """Take the only column."""
        branch_B = torch.zeros_like(scores.n_BN[:, 0])
        return _of_branch(scores, branch_B, torch.full_like(branch_B, Rule.FIXED))


def _with_base(available: tuple[int, ...]) -> tuple[int, ...]:
    if 0 not in available:
        raise DasError(
            f"branches is {list(available)}, it must contain 0, the base, for this strategy "
            "compares with it; add 0 or use Fixed or MaxConfidence"
        )
    return available


def _of_branch(scores: Scores, branch_B: torch.Tensor, rule_B: torch.Tensor) -> Choice:
    token_B = scores.n_BN.gather(1, branch_B.unsqueeze(1)).squeeze(1)
    return Choice(token_B, branch_B, rule_B)
