"""Beam search with the ADML score: several transcripts of an utterance grow side by side.

Every hypothesis is a row of its own with all branches. At each step the strategy chooses a branch
for it, and that branch's distribution extends it; the hypotheses of an utterance compete by the
sum of their tokens' log-probabilities, and those that have ended by its mean. A mode beyond the
paper, off by default; with one beam it is Algorithm 1.

Shape suffixes: B rows (hypotheses), T positions, C candidates of a row, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from das_lib.adml.cross import Memory
from das_lib.adml.select import Mean, Strategy
from das_lib.adml.trace import Trace
from das_lib.errors import DasError

if TYPE_CHECKING:
    from das_lib.adml.engine import Engine


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A live hypothesis and one more token; becomes a trace of its own if it is kept."""

    row: int
    parent: Trace
    score: float
    """Log-probability of all tokens, the new one included."""
    step: tuple[int, int, int, float, np.ndarray]
    """What `Trace.append` takes."""

    def grown(self) -> Trace:
        trace = self.parent.fork()
        trace.append(*self.step)
        return trace


class _Search:
    """The hypotheses of one utterance, best first."""

    def __init__(self, start: Trace, beams: int) -> None:
        self.beams = beams
        self.live = [start]
        self.ended: list[Trace] = []

    def step(self, candidates: Sequence[_Candidate], end: frozenset[int]) -> list[int]:
        """Keep the best: the rows that the new live hypotheses come from.

        A hypothesis that ends counts where it ranks above the last live one. The search is over
        with as many ended ones as beams.
        """
        self.live, rows = [], []
        for candidate in sorted(candidates, key=lambda candidate: -candidate.score):
            if candidate.step[0] in end:
                self.ended.append(candidate.grown())
            else:
                self.live.append(candidate.grown())
                rows.append(candidate.row)
            if len(self.live) == self.beams:
                break
        if len(self.ended) >= self.beams:
            self.live, rows = [], []
        return rows

    def best(self) -> Trace:
        """The ended hypothesis of the highest mean log-probability; the live ones if none has."""
        return max(self.ended or self.live, key=lambda trace: trace.score / len(trace.tokens))


def decode_with_beams(
    engine: "Engine",
    memory: Memory,
    languages: Sequence[str],
    strategy: Strategy,
    columns: Sequence[int],
    *,
    rows: Sequence[int] | None,
    beams: int,
) -> list[Trace]:
    """Decode utterances together, ``beams`` hypotheses each.

    Args:
        engine: The model.
        memory: What the encoder says.
        languages: Of each utterance that is decoded.
        strategy: Chooses the branch that extends a hypothesis.
        columns: The branches that run.
        rows: The utterances in ``memory``, all by default.
        beams: Hypotheses of an utterance.

    Raises:
        DasError: The strategy chooses no branch.
    """
    if isinstance(strategy, Mean):
        raise DasError(
            f"beams is {beams}, with a mean of branches it must be 1: a beam is extended by the "
            "one branch that its strategy chooses; use another strategy"
        )
    decoder, end = engine.decoder, engine.prompts.end
    state = decoder.start(memory, engine.deltas(columns), branches=len(columns), rows=rows)
    searches = [_Search(Trace(tuple(columns), language), beams) for language in languages]
    alive = searches
    tokens_BT, vocabulary = engine.prompts.build(languages), engine.vocabulary(True)
    while alive and state.length < engine.capacity:
        x_NBTD = decoder.forward(state, tokens_BT, last_only=True)
        scores = vocabulary.scores(x_NBTD[:, :, -1])
        choice = strategy.choose(scores)
        logz_B = scores.logz_BN.gather(1, choice.branch_B.unsqueeze(1))
        logprob_BV = scores.logits_of(choice.branch_B) - logz_B
        # One more than the beams, for one of a row's candidates may be the end.
        logprob_BC, token_BC = logprob_BV.topk(min(beams + 1, logprob_BV.shape[1]))
        tokens, logprobs = token_BC.tolist(), logprob_BC.tolist()
        branches, rules = choice.branch_B.tolist(), choice.rule_B.tolist()
        confidence_BN = scores.c_BN.cpu().numpy()
        kept: list[int] = []
        first = 0
        for search in alive:
            candidates = [
                _Candidate(
                    row,
                    trace,
                    trace.score + logprob,
                    (token, branches[row], rules[row], logprob, confidence_BN[row]),
                )
                for row, trace in enumerate(search.live, first)
                for token, logprob in zip(tokens[row], logprobs[row], strict=True)
            ]
            first += len(search.live)
            kept += search.step(candidates, end)
        alive = [search for search in alive if search.live]
        if alive:
            state.keep(kept)
            last = [trace.tokens[-1] for search in alive for trace in search.live]
            tokens_BT = torch.tensor(last, device=engine.device).unsqueeze(1)
        vocabulary = engine.vocabulary(False)
    return [search.best() for search in searches]
