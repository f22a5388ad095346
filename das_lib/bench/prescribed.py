"""A strategy that is asked but not obeyed: the tokens are prescribed.

So decodes of unlike engines can be compared pass by pass: the same number of them (time), or the
same prefix before each choice (agreement).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from das_lib.adml import Strategy
from das_lib.adml.select import Choice, Scores


class Prescribed:
    """Chooses as another strategy does, then takes the next of ``tokens`` for every utterance.

    Made anew for each decode; behind the last of ``tokens`` it takes ``end``. What the other
    strategy would have taken is in ``chosen``, a tensor [B] a step.
    """

    def __init__(self, inner: Strategy, tokens: Sequence[int], end: int) -> None:
        self.inner, self.end = inner, end
        self._tokens = iter(tokens)
        self.chosen: list[torch.Tensor] = []

    def needs(self, available: tuple[int, ...]) -> tuple[int, ...]:
        """What the other needs."""
        return self.inner.needs(available)

    def choose(self, scores: Scores) -> Choice:
        """Choose, then prescribe."""
        choice = self.inner.choose(scores)
        token = next(self._tokens, self.end)
        self.chosen.append(choice.token_B)
        return replace(choice, token_B=torch.full_like(choice.token_B, token))
