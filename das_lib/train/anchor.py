"""Learning a domain without forgetting the rest: a pull towards the base on other utterances.

To the loss of a step comes the divergence KL(base || trained) of the text tokens of utterances that
are not learnt, those of the other domains (as in "Learning without Forgetting", Li and Hoiem 2016).

Shape suffixes: N text tokens, V vocabulary.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import kl_div

from das_lib.train.data import Batch, TrainingData, deal
from das_lib.train.forward import text_logits

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


class Anchor:
    """The base, the utterances on which it is kept to, and how firmly."""

    def __init__(
        self,
        base: "WhisperForConditionalGeneration",
        data: TrainingData,
        weight: float,
        batch_size: int,
        *,
        encode: bool = False,
    ) -> None:
        """Freeze the base.

        Args:
            base: A model of its own, not the one that trains.
            data: Utterances that are not learnt.
            weight: Of a token's divergence beside a learnt token's cross-entropy.
            batch_size: Utterances a step, over all workers.
            encode: See `text_logits`.
        """
        self._base = base.eval().requires_grad_(False)
        self._data, self._weight, self._batch_size = data, weight, batch_size
        self._encode = encode

    def to(self, device: str | torch.device) -> "Anchor":
        """Move the base to a device."""
        self._base.to(device)  # pyright: ignore[reportArgumentType] - transformers' own decorator
        return self

    def batches(self, seed: int, epoch: int, rank: int, world: int) -> Iterator[Batch]:
        """This worker's part of one global batch after the other, without end."""
        return deal(self._data.endless(seed, epoch), self._batch_size, rank, world)

    def loss_sum(self, trained: "WhisperForConditionalGeneration", batch: Batch) -> torch.Tensor:
        """The weighted divergence, summed over the batch's text and end-of-text tokens."""
        logits_NV = text_logits(trained, batch, encode=self._encode)
        with torch.no_grad():
            wanted_NV = text_logits(self._base, batch, encode=self._encode).log_softmax(-1)
        divergence = kl_div(logits_NV.log_softmax(-1), wanted_NV, log_target=True, reduction="sum")
        return self._weight * divergence
