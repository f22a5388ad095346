"""What the branches say about the next token: confidences, and the logits behind them.

Shape suffixes: B utterances, N branches, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from das_lib.adml.cpu.fused import kernels as cpu_kernels
from das_lib.adml.gpu.fused import kernels


@dataclass(frozen=True, slots=True)
class Scores:
    """What the branches say about the next token, float32, suppressed tokens at minus infinity.

    c_BN is the confidence, max softmax(logits), and logz_BN the log-sum-exp. The logits come in
    slices of the vocabulary; most strategies look at those of the chosen branch alone.
    top_BN is the most likely token of each branch where it is known already.
    """

    c_BN: torch.Tensor
    logz_BN: torch.Tensor
    slices_BNV: tuple[torch.Tensor, ...]
    top_BN: torch.Tensor | None = None

    @classmethod
    def of(cls, slices_BNV: Sequence[torch.Tensor]) -> "Scores":
        """Reduce masked logits, slice by slice."""
        if len(slices_BNV) == 1:
            [logits_BNV] = slices_BNV
            fused = kernels(logits_BNV.device)
            if fused is not None:
                c_BN, logz_BN, top_BN = fused.peaks(logits_BNV)
                return cls(c_BN, logz_BN, (logits_BNV,), top_BN)
            c_BN = logits_BNV.softmax(-1).amax(-1)
            return cls(c_BN, logits_BNV.amax(-1) - c_BN.log(), (logits_BNV,))
        native = cpu_kernels(slices_BNV[0])
        peaks = _peaks if native is None else native.peaks
        found = (peaks(part_BNV) for part_BNV in slices_BNV)
        top_BNC, logz_BNC = (torch.stack(values, -1) for values in zip(*found, strict=True))
        logz_BN = logz_BNC.logsumexp(-1)
        return cls((top_BNC.amax(-1) - logz_BN).exp(), logz_BN, tuple(slices_BNV))

    @classmethod
    def below(cls, parts: Sequence["Scores"]) -> "Scores":
        """Join the utterances (or positions) of several."""
        slices = zip(*(part.slices_BNV for part in parts), strict=True)
        return cls(
            torch.cat([part.c_BN for part in parts]),
            torch.cat([part.logz_BN for part in parts]),
            tuple(torch.cat(same) for same in slices),
        )

    @classmethod
    def beside(cls, base: "Scores", others: "Scores") -> "Scores":
        """Join the branches of two for the same utterances (or positions)."""
        slices = zip(base.slices_BNV, others.slices_BNV, strict=True)
        return cls(
            torch.cat([base.c_BN, others.c_BN], 1),
            torch.cat([base.logz_BN, others.logz_BN], 1),
            tuple(torch.cat(same, 1) for same in slices),
        )

    def top_tokens(self, branch: int) -> torch.Tensor:
        """The most likely token of one branch, the lowest of equals. [B]."""
        return self.tokens(torch.full_like(self.c_BN[:, 0], branch, dtype=torch.int64))

    def tokens(self, branch_B: torch.Tensor) -> torch.Tensor:
        """The most likely token of a branch of each utterance, the lowest of equals. [B]."""
        if self.top_BN is not None:
            return self.top_BN.gather(1, branch_B.unsqueeze(1)).squeeze(1)
        return self.logits_of(branch_B).argmax(-1)

    def logits_of(self, branch_B: torch.Tensor) -> torch.Tensor:
        """The whole vocabulary under a branch of each utterance. [B, V]."""
        row_B = torch.arange(len(branch_B), device=branch_B.device)
        return torch.cat([part[row_B, branch_B] for part in self.slices_BNV], -1)

    def logits(self) -> torch.Tensor:
        """Those of the whole vocabulary. [B, N, V]."""
        return torch.cat(self.slices_BNV, -1)

    def logprobs(self) -> torch.Tensor:
        """Log-probabilities of the whole vocabulary. [B, N, V]."""
        return self.logits() - self.logz_BN.unsqueeze(-1)


def _peaks(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Max and log-sum-exp over the last axis."""
    top = logits.amax(-1)
    # max softmax is 1 / sum exp(x - max), in the one pass that torch has a fast kernel for. Where
    # all is suppressed it gives nan, and counts nothing.
    return top, (top - logits.softmax(-1).amax(-1).log()).nan_to_num(nan=-torch.inf)
