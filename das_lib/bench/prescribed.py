"""A strategy that is asked but not obeyed: the tokens are prescribed.

So decodes of unlike engines can be compared pass by pass: the same number of them (time), or the
same prefix before each choice (agreement).

Shape suffixes: B utterances, T prescribed tokens.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from das_lib.adml import Strategy
from das_lib.adml.scores import Scores
from das_lib.adml.select import Choice


class Prescribed:
    """Chooses as another strategy does, then takes the next of ``tokens`` for every utterance.

    Each decode begins with the first; behind the last of ``tokens`` it takes ``end``. They count as
    certain, or an engine would look again at transcripts that nobody said.
    """

    def __init__(self, inner: Strategy, tokens: Sequence[int], end: int) -> None:
        self.inner, self.static, self.end = inner, inner.static, end
        self._tokens_T = torch.tensor([*tokens, end])
        self._step_1 = torch.zeros(1, dtype=torch.int64)
        self._chosen_TB = torch.zeros(len(self._tokens_T), 0, dtype=torch.int64)

    def prescribe(self, tokens: Sequence[int]) -> None:
        """Other tokens for the decodes to come, no more than at first."""
        padded = [*tokens, *[self.end] * (len(self._tokens_T) - len(tokens))]
        self._tokens_T.copy_(torch.tensor(padded))

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """What the other needs; a decode begins."""
        self._step_1.zero_()
        return self.inner.needs(available)

    def choose(self, scores: Scores) -> Choice:
        """Choose, then prescribe."""
        choice = self.inner.choose(scores)
        chosen_B = choice.token_B
        if self._chosen_TB.shape[1:] != chosen_B.shape or self._step_1.device != chosen_B.device:
            self._tokens_T, self._step_1 = (
                x.to(chosen_B.device) for x in (self._tokens_T, self._step_1)
            )
            self._chosen_TB = chosen_B.new_zeros(len(self._tokens_T), len(chosen_B))
        step_1 = self._step_1.clamp(max=len(self._tokens_T) - 1)
        self._chosen_TB.index_copy_(0, step_1, chosen_B.unsqueeze(0))
        token_1 = self._tokens_T[step_1]
        self._step_1 += 1
        logprob_B = torch.zeros_like(choice.logprob_B)
        return replace(choice, token_B=token_1.expand_as(chosen_B), logprob_B=logprob_B)

    def chosen(self, row: int) -> list[int]:
        """What the other strategy would have taken for an utterance in the last decode. [T]."""
        return self._chosen_TB[:, row].tolist()
