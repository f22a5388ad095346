"""The selection rule against a slow transcript of equation 3."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.adml.select import (
    Adml,
    Fixed,
    LowestEntropy,
    Majority,
    MaxConfidence,
    Mean,
    Rule,
    Scores,
)
from das_lib.errors import DasError

GRID = 64  # confidences are whole 64ths, exact in float32, so that ties and bounds do occur


def scores(c_BN: list[list[float]]) -> Scores:
    """Scores in which branch i of each utterance proposes token 100 + i."""
    c = torch.tensor(c_BN, dtype=torch.float32)
    logits = torch.zeros(*c.shape, 100 + c.shape[1])
    logits[:, :, 100:] = torch.eye(c.shape[1])
    return Scores(c, torch.zeros_like(c), (logits,))


def slow_rule(c: list[float], tau: float) -> tuple[int, Rule]:
    best = worst = 0
    for i in range(len(c)):
        if c[i] > c[best]:
            best = i
        if c[i] < c[worst]:
            worst = i
    if c[best] - c[0] >= tau:
        return best, Rule.MAX
    if c[worst] - c[0] <= -tau:
        return worst, Rule.MIN
    return 0, Rule.BASE


def choose(strategy, c_BN):
    choice = strategy.choose(scores(c_BN))
    return [
        (t - 100, b, Rule(r))
        for t, b, r in zip(
            choice.token_B.tolist(), choice.branch_B.tolist(), choice.rule_B.tolist(), strict=True
        )
    ]


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(1, GRID), min_size=n, max_size=n), min_size=1, max_size=5
        )
    ),
    st.integers(0, GRID),
)
def test_adml_agrees_with_a_slow_transcript_of_the_rule(grid_BN, tau_grid):
    c_BN = [[c / GRID for c in row] for row in grid_BN]
    got = choose(Adml(tau=tau_grid / GRID), c_BN)
    for row, (token, branch, rule) in zip(c_BN, got, strict=True):
        assert (branch, rule) == slow_rule(row, tau_grid / GRID)
        assert token == branch


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        ([0.5, 0.5, 0.5], (0, Rule.BASE)),
        ([0.5, 0.75, 0.75], (1, Rule.MAX)),
        ([0.5, 0.25, 0.25], (1, Rule.MIN)),
        ([0.5, 0.25, 0.75], (2, Rule.MAX)),  # both conditions hold: the maximum wins
        ([0.5, 0.5 + 0.125, 0.5], (1, Rule.MAX)),  # exactly tau
        ([0.5, 0.5 - 0.125, 0.5], (1, Rule.MIN)),  # exactly -tau
        ([0.5, 0.5 + 0.0625, 0.5 - 0.0625], (0, Rule.BASE)),
    ],
)
def test_adml_gives_the_branch_worked_out_by_hand(c, expected):
    [(_, branch, rule)] = choose(Adml(tau=0.125), [c])
    assert (branch, rule) == expected


def test_max_confidence_takes_the_lower_of_equal_branches():
    assert choose(MaxConfidence(), [[0.25, 0.5, 0.5], [0.5, 0.25, 0.5]]) == [
        (1, 1, Rule.MAX),
        (0, 0, Rule.MAX),
    ]


def test_a_fixed_branch_needs_that_branch_alone():
    assert Fixed(2).needs((0, 1, 2, 3)) == (2,)
    with pytest.raises(DasError, match=r"branch is 4, the branches are \[0, 1\]"):
        Fixed(4).needs((0, 1))


@pytest.mark.parametrize("tau", [-0.001, 1.001, float("nan")])
def test_a_tau_outside_0_to_1_is_refused(tau):
    with pytest.raises(DasError, match=r"tau is .*\[0, 1\]"):
        Adml(tau=tau)


def test_adml_without_the_base_is_refused():
    with pytest.raises(DasError, match="must contain 0, the base"):
        Adml().needs((1, 2))


def test_confidence_is_the_largest_softmax_and_equal_logits_give_the_lower_token():
    logits = torch.randn(3, 4, 50) * 20
    logits[..., ::7] = -torch.inf
    logits[0, 0, [5, 30]] = 99.0
    logits[..., 40:] = -torch.inf  # a slice without a token that is allowed
    s = Scores.of(logits.split(20, -1))
    torch.testing.assert_close(s.c_BN, logits.softmax(-1).amax(-1))
    torch.testing.assert_close(s.logz_BN, logits.logsumexp(-1))
    torch.testing.assert_close(s.logprobs(), logits.log_softmax(-1))
    branch = torch.tensor([0, 3, 1])
    assert torch.equal(s.tokens(branch), logits[torch.arange(3), branch].argmax(-1))
    assert s.tokens(branch)[0] == 5


def test_the_other_strategies_agree_with_a_loop_over_utterances_and_branches():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, 9, generator=generator) * 2
    logits[..., 3] = -torch.inf  # a suppressed token
    scores = Scores.of(logits.split(4, -1))
    strategies = {
        "mean": Mean(),
        "log": Mean(log=True),
        "entropy": LowestEntropy(),
        "majority": Majority(),
    }
    got = {name: strategy.choose(scores) for name, strategy in strategies.items()}
    for b in range(40):
        p = logits[b].double().softmax(-1)
        best = p.argmax(-1).tolist()
        entropy = [sum(-x * math.log(x) for x in row.tolist() if x) for row in p]
        sure = entropy.index(min(entropy))
        voted = max(range(4), key=lambda i: (best.count(best[i]), -i))
        for name, token, branch in (
            ("mean", p.mean(0).argmax().item(), None),
            ("log", p.log().mean(0).argmax().item(), None),
            ("entropy", best[sure], sure),
            ("majority", best[voted], voted),
        ):
            choice = got[name]
            assert choice.token_B[b] == token, name
            chosen = choice.branch_B[b].item()
            # A mean has no branch of its own: the one that finds the token most likely stands in.
            assert chosen == (p[:, token].argmax().item() if branch is None else branch), name
            assert choice.logprob_B[b].exp().item() == pytest.approx(p[chosen, token].item())


def test_a_majority_is_worth_more_than_confidence_and_ties_go_to_the_lower_branch():
    logits = torch.full((2, 4, 8), -5.0)
    for branch, token in enumerate((1, 2, 2, 3)):
        logits[0, branch, token] = 9.0 if branch == 3 else 1.0
    for branch, token in enumerate((1, 2, 2, 1)):
        logits[1, branch, token] = float(branch)
    choice = Majority().choose(Scores.of([logits]))
    assert choice.token_B.tolist() == [2, 1]
    assert choice.branch_B.tolist() == [1, 0]
    assert set(choice.rule_B.tolist()) == {Rule.MAJORITY}
