"""Cross-attention of all branches over one K_0 and V_0, adapters kept in rank space.

For branch i and head h, with P = softmax(q_i,h K_i,h^T / sqrt(E)):

    q_i,h K_i,h^T = q_i,h K_0,h^T + (q_i,h B_i,h) Z_i^T        (adapters of k_proj)
    P V_i,h       = P V_0,h       + (P Z_i) B_i,h^T            (adapters of v_proj)

so an adapter costs R numbers a frame (Z_i, common to its heads) in place of two copies of the
model's width. Exact: only the order of the sums differs.

Shape suffixes: B utterances, N branches, K of them with a change, T positions, H heads, E head
width, S encoder frames, R rank, M = N T queries of one utterance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from das_lib.adml.bank import Delta


class Memory:
    """What the encoder says about utterances: features, and K_0 (transposed) and V_0 of each layer.

    No strategy changes it, so all decodes of an utterance share it. Keys and values are projected
    when they are first read: decodes that a GPU replays do without.
    """

    def __init__(
        self,
        h_BSD: torch.Tensor,
        keys: Callable[[torch.Tensor], list[torch.Tensor]],
        values: Callable[[torch.Tensor], list[torch.Tensor]],
    ) -> None:
        self.h_BSD, self._keys, self._values = h_BSD, keys, values

    def project(self) -> "Memory":
        """Read both now."""
        _ = self.k_BHES, self.v_BHSE
        return self

    @cached_property
    def k_BHES(self) -> list[torch.Tensor]:  # noqa: N802
        """K_0 of each layer, transposed."""
        return self._keys(self.h_BSD)

    @cached_property
    def v_BHSE(self) -> list[torch.Tensor]:  # noqa: N802
        """V_0 of each layer."""
        return self._values(self.h_BSD)


@dataclass(frozen=True, slots=True)
class LowRank:
    """What K branches add to keys or values: Z_i B_i^T."""

    z_BKSR: torch.Tensor
    b_KHRE: torch.Tensor

    @classmethod
    def of(cls, z_BKSR: torch.Tensor | None, delta: Delta | None, heads: int) -> "LowRank | None":
        """Split B_i^T by head."""
        if z_BKSR is None or delta is None:
            return None
        [part] = delta.parts
        b_KHRE = part.b_KRO.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
        return cls(z_BKSR, b_KHRE)


def attend_utterance(
    q_HNTE: torch.Tensor,
    k_HES: torch.Tensor,
    v_HSE: torch.Tensor,
    keys: LowRank | None,
    values: LowRank | None,
    row: int,
    look: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """One utterance's queries over its own memory, in batched products of heads or branches.

    The form for a CPU: an utterance's K_0, V_0 and P stay in the cache, and one that has ended is
    left out without moving what the others attend to.

    Args:
        q_HNTE: Queries, not yet scaled.
        k_HES: K_0, transposed.
        v_HSE: V_0.
        keys: Changes of the keys.
        values: Changes of the values.
        row: The utterance's row in ``keys`` and ``values``.
        look: Is shown the scores before the softmax. [H, M, S]

    Returns:
        [H, N, T, E]
    """
    heads, branches, length, width = q_HNTE.shape
    s_HMS = _scores(q_HNTE, k_HES, keys, row)
    if look is not None:
        look(s_HMS)
    p_HMS = s_HMS.softmax(-1)
    o_HNTE = torch.bmm(p_HMS, v_HSE).view(heads, branches, length, width)
    if values is not None:
        z_KSR = values.z_BKSR[row]
        count = len(z_KSR)
        p_KHTS = p_HMS.view(heads, branches, length, -1)[:, -count:].transpose(0, 1)
        # With one position a step this is a view: the heads are the rows of a branch's product.
        p_KMS = p_KHTS.squeeze(2) if length == 1 else p_KHTS.flatten(1, 2)
        u_KHTR = torch.bmm(p_KMS, z_KSR).view(count, heads, length, -1)
        o_HNTE[:, -count:] += torch.matmul(u_KHTR, values.b_KHRE).transpose(0, 1)
    return o_HNTE


def _scores(
    q_HNTE: torch.Tensor, k_HES: torch.Tensor, keys: LowRank | None, row: int
) -> torch.Tensor:
    heads, branches, length, width = q_HNTE.shape
    q_HNTE = q_HNTE * width**-0.5
    s_HMS = torch.bmm(q_HNTE.reshape(heads, -1, width), k_HES)
    if keys is not None:
        z_KSR = keys.z_BKSR[row]
        count = len(z_KSR)
        q_KHTE = q_HNTE[:, -count:].transpose(0, 1)
        q_KMR = torch.matmul(q_KHTE, keys.b_KHRE.transpose(-1, -2)).flatten(1, 2)
        s_KHTS = torch.bmm(q_KMR, z_KSR.transpose(1, 2)).unflatten(1, (heads, length))
        s_HMS.view(heads, branches, length, -1)[:, -count:] += s_KHTS.transpose(0, 1)
    return s_HMS


def attend_batch(
    q_BHNTE: torch.Tensor,
    k_BHES: torch.Tensor,
    v_BHSE: torch.Tensor,
    keys: LowRank | None,
    values: LowRank | None,
    look: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """`attend_utterance` for all utterances at once, without a loop: the form for a GPU.

    ``look`` is shown [B, H, M, S].

    Returns:
        [B, H, N, T, E]
    """
    shape = q_BHNTE.shape
    q_BHME = (q_BHNTE * shape[-1] ** -0.5).flatten(2, 3)
    s_BHNTS = (q_BHME @ k_BHES).unflatten(2, shape[2:4])
    if keys is not None:
        count = keys.z_BKSR.shape[1]
        q_BKHTE = q_BHME.view(shape)[:, :, -count:].transpose(1, 2)
        q_BKMR = (q_BKHTE @ keys.b_KHRE.transpose(-1, -2)).flatten(2, 3)
        s_BKHTS = (q_BKMR @ keys.z_BKSR.transpose(-1, -2)).unflatten(2, (shape[1], shape[3]))
        s_BHNTS[:, :, -count:] += s_BKHTS.transpose(1, 2)
    if look is not None:
        look(s_BHNTS.flatten(2, 3))
    p_BHNTS = s_BHNTS.softmax(-1)
    o_BHNTE = (p_BHNTS.flatten(2, 3) @ v_BHSE).view(shape)
    if values is not None:
        count = values.z_BKSR.shape[1]
        p_BKHTS = p_BHNTS[:, :, -count:].transpose(1, 2)
        u_BKMR = p_BKHTS.flatten(2, 3) @ values.z_BKSR
        u_BKHTR = u_BKMR.unflatten(2, (shape[1], shape[3]))
        o_BHNTE[:, :, -count:] += (u_BKHTR @ values.b_KHRE).transpose(1, 2)
    return o_BHNTE
