"""From hidden states to scores of the next token: last layer norm, vocabulary, max, log-sum-exp.

Float32 at every precision, for confidences are compared to within tau. Suppressed tokens get minus
infinity through the product's bias, so masking costs nothing. On a CPU the vocabulary is read in
slices whose logits stay in the cache until they are reduced.

Shape suffixes: B utterances, N branches, D model width, V vocabulary.
"""

from collections.abc import Sequence
from copy import copy

import torch

from das_lib.adml.checkpoint import Checkpoint
from das_lib.adml.gpu.fused import kernels
from das_lib.adml.linear import Linear, Plain, pack
from das_lib.adml.norm import Norm, layer_norm
from das_lib.adml.scores import Scores

SLICE = 8192
"""Tokens a slice: at 400 rows their logits are 13 MB."""


class Vocabulary:
    """The output projection, tied to the token embedding, under a mask that may change."""

    def __init__(self, model: Checkpoint, *, device: torch.device) -> None:
        weight_VD = model["decoder.embed_tokens.weight"]
        self._slice = SLICE if device.type == "cpu" else len(weight_VD)
        weight_D, bias_D = model.norm("decoder.layer_norm")
        self._norm: Norm = (weight_D.to(device), bias_D.to(device))
        self._slices: Sequence[Linear] = [
            pack(part, torch.zeros(len(part)), precision="float32", device=device)
            for part in weight_VD.split(self._slice)
        ]

    def masked(self, mask_V: torch.Tensor) -> "Vocabulary":
        """The same projection, weights shared, with ``mask_V`` added to the logits."""
        other = copy(self)
        other._slices = [
            linear.with_bias(mask)
            for linear, mask in zip(self._slices, mask_V.split(self._slice), strict=True)
        ]
        return other

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits of hidden states. [..., D] -> [..., V]."""
        x = layer_norm(x, self._norm, torch.float32)
        return torch.cat([linear(x) for linear in self._slices], -1)

    def scores(self, x_NBD: torch.Tensor) -> Scores:
        """Logits of every branch, reduced to confidences."""
        x_BND = layer_norm(x_NBD.transpose(0, 1).contiguous(), self._norm, torch.float32)
        fused = kernels(x_BND.device)
        whole = self._slices[0]
        if fused is not None and isinstance(whole, Plain) and fused.fits(x_BND, whole.weight_OI):
            return Scores.of([fused.linear(x_BND, whole.weight_OI, whole.bias_O)[0]])
        return Scores.of([linear(x_BND) for linear in self._slices])
