"""Which branch decides the next token: the paper's rule and others behind one interface.

Shape suffixes: B utterances, N branches (column 0 is the base where it takes part), V vocabulary.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch

from das_lib.adml.gpu.fused import kernels
from das_lib.adml.scores import Scores
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
    MEAN = 4
    """The branches' mean."""
    SURE = 5
    """The branch of the lowest entropy."""
    MAJORITY = 6
    """The token that most branches would choose."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The next token, who chose it and why.

    branch_B is the column of the branch that chose it (of those that a mean is taken over, the one
    that finds it most likely), logprob_B its log-probability under that branch.
    """

    token_B: torch.Tensor
    branch_B: torch.Tensor
    rule_B: torch.Tensor
    logprob_B: torch.Tensor


class Strategy(Protocol):
    """A way to choose the next token."""

    @property
    def static(self) -> bool:
        """Whether ``choose`` is tensor operations of fixed shapes alone, which a GPU can record."""
        ...

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

    static = True
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
        fused = kernels(scores.c_BN.device)
        if fused is not None and scores.top_BN is not None:
            return Choice(*fused.adml(scores.c_BN, scores.top_BN, self.tau))
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

    static = True

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

    static = True
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
        branch_B = torch.zeros_like(scores.c_BN[:, 0], dtype=torch.int64)
        return _of_branch(scores, branch_B, torch.full_like(branch_B, Rule.FIXED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The token of the highest mean probability over the branches, or mean log-probability."""

    static = True
    log: bool = False

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """All of them."""
        return available

    def choose(self, scores: Scores) -> Choice:
        """Average; the lowest token of equals."""
        logprobs_BNV = scores.logprobs()
        mean_BV = logprobs_BNV.mean(1) if self.log else logprobs_BNV.exp().mean(1)
        token_B = mean_BV.argmax(-1)
        index_BN1 = token_B[:, None, None].expand(-1, logprobs_BNV.shape[1], 1)
        logprob_B, branch_B = logprobs_BNV.gather(-1, index_BN1).squeeze(-1).max(1)
        return Choice(token_B, branch_B, torch.full_like(branch_B, Rule.MEAN), logprob_B)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowestEntropy:
    """The token of the branch whose distribution has the lowest entropy; ties: the lower branch."""

    static = True

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """All of them."""
        return available

    def choose(self, scores: Scores) -> Choice:
        """Take the minimum of -sum p log p, a suppressed token counting 0."""
        branch_B = torch.special.entr(scores.logprobs().exp()).sum(-1).argmin(1)
        return _of_branch(scores, branch_B, torch.full_like(branch_B, Rule.SURE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """The token that most branches would choose; of equals, the one of the lowest branch."""

    static = True

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """All of them."""
        return available

    def choose(self, scores: Scores) -> Choice:
        """Count, for each branch, the branches that agree with it."""
        n_BN = scores.logits().argmax(-1)
        votes_BN = (n_BN.unsqueeze(2) == n_BN.unsqueeze(1)).sum(2)
        branch_B = votes_BN.argmax(1)
        return _of_branch(scores, branch_B, torch.full_like(branch_B, Rule.MAJORITY))


def named_strategy(name: str, *, tau: float) -> Strategy:
    """A strategy over all branches by its name in a configuration (``adml.strategy``)."""
    return {
        "adml": Adml(tau=tau),
        "max": MaxConfidence(),
        "mean_probability": Mean(),
        "mean_logprob": Mean(log=True),
        "lowest_entropy": LowestEntropy(),
        "majority": Majority(),
    }[name]


def _with_base(available: tuple[int, ...]) -> tuple[int, ...]:
    if 0 not in available:
        raise DasError(
            f"branches is {list(available)}, it must contain 0, the base, for this strategy "
            "compares with it; add 0 or use Fixed or MaxConfidence"
        )
    return available


def _of_branch(scores: Scores, branch_B: torch.Tensor, rule_B: torch.Tensor) -> Choice:
    c_B = scores.c_BN.gather(1, branch_B.unsqueeze(1)).squeeze(1)
    return Choice(scores.tokens(branch_B), branch_B, rule_B, c_B.log())
