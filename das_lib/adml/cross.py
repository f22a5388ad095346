"""Cross-attention of all branches over one K_0 and V_0, adapters kept in rank space.

For branch i and head h, with P = softmax(q_i,h K_i,h^T / sqrt(E)):

    q_i,h K_i,h^T = q_i,h K_0,h^T + (q_i,h B_i,h) Z_i^T        (adapters of k_proj)
    P V_i,h       = P V_0,h       + (P Z_i) B_i,h^T            (adapters of v_proj)

so an adapter costs R numbers a frame (Z_i, common to its heads) in place of two copies of the
model's width. Exact: only the order of the sums differs.

Shape suffixes: U utterances, B rows that attend to them, N branches, K of them with a change, T
positions, H heads, E head width, S encoder frames, R rank, M = N T queries of one row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from das_lib.adml.bank import Delta
from das_lib.adml.cpu.fused import kernels
from das_lib.adml.gathered import gathered_matmul


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
    """What K branches add to keys or values of U utterances: Z_i B_i^T."""

    z_UKIO: torch.Tensor
    """Z_i, contiguous, as its product reads it: [U, K, R, S] for keys, [U, K, S, R] for values."""
    b_KHIO: torch.Tensor
    """B_i of each head, contiguous: [K, H, E, R] for keys, [K, H, R, E] for values."""

    @classmethod
    def keys(cls, z_UKSR: torch.Tensor | None, delta: Delta | None, heads: int) -> "LowRank | None":
        """Of what `compress` returns for k_proj."""
        if z_UKSR is None or delta is None:
            return None
        b_KHRE = _by_head(delta, heads)
        return cls(z_UKSR.transpose(2, 3).contiguous(), b_KHRE.transpose(2, 3).contiguous())

    @classmethod
    def values(
        cls, z_UKSR: torch.Tensor | None, delta: Delta | None, heads: int
    ) -> "LowRank | None":
        """Of what `compress` returns for v_proj."""
        if z_UKSR is None or delta is None:
            return None
        return cls(z_UKSR.contiguous(), _by_head(delta, heads).contiguous())

    @property
    def count(self) -> int:
        """Branches with a change: the last ones."""
        return self.z_UKIO.shape[1]


def _by_head(delta: Delta, heads: int) -> torch.Tensor:
    [part] = delta.parts
    return part.b_KRO.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    q_BHNTE: torch.Tensor,
    k_UHES: torch.Tensor,
    v_UHSE: torch.Tensor,
    keys: LowRank | None,
    values: LowRank | None,
    rows_B: torch.Tensor,
    look: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Attend with all branches of each row over the memory of its utterance.

    Args:
        q_BHNTE: Queries, not yet scaled.
        k_UHES: K_0, transposed.
        v_UHSE: V_0.
        keys: Changes of the keys by the last branches.
        values: Changes of the values by the last branches.
        rows_B: The utterance of each row, int64.
        look: Is shown the scores before the softmax, which takes their place. [B, H, M, S]

    Returns:
        [B, H, N, T, E]
    """
    _, heads, _, positions, width = shape = q_BHNTE.shape
    q_BHME = (q_BHNTE * width**-0.5).flatten(2, 3)
    s_BHMS = gathered_matmul(q_BHME, k_UHES, rows_B)
    s_BHNTS = s_BHMS.unflatten(2, shape[2:4])
    if keys is not None:
        q_BHKTE = q_BHME.view(shape)[:, :, -keys.count :]
        u_BKHTR = q_BHKTE.new_zeros(len(q_BHME), keys.count, heads, positions, keys.b_KHIO.shape[3])
        _add_by_branch(u_BKHTR, q_BHKTE.transpose(1, 2), keys.b_KHIO)
        s_BKHTS = s_BHNTS[:, :, -keys.count :].transpose(1, 2)
        if positions == 1:  # the heads are the rows of a branch's product
            gathered_matmul(u_BKHTR.squeeze(3), keys.z_UKIO, rows_B, s_BKHTS.squeeze(3))
        else:
            s_BKMS = gathered_matmul(u_BKHTR.flatten(2, 3), keys.z_UKIO, rows_B)
            s_BKHTS += s_BKMS.unflatten(2, (heads, positions))
    if look is not None:
        look(s_BHMS)
    p_BHMS = torch.softmax(s_BHMS, -1, out=s_BHMS)
    o_BHNTE = gathered_matmul(p_BHMS, v_UHSE, rows_B).view(shape)
    if values is not None:
        p_BKHTS = p_BHMS.unflatten(2, shape[2:4])[:, :, -values.count :].transpose(1, 2)
        # With one position a step this is a view.
        p_BKMS = p_BKHTS.squeeze(3) if positions == 1 else p_BKHTS.flatten(2, 3)
        o_BKHTE = o_BHNTE[:, :, -values.count :].transpose(1, 2)
        native = kernels(p_BKMS)
        if native is not None:
            native.add_values(p_BKMS, values.z_UKIO, rows_B, values.b_KHIO, o_BKHTE)
        else:
            u_BKMR = gathered_matmul(p_BKMS, values.z_UKIO, rows_B)
            _add_by_branch(o_BKHTE, u_BKMR.unflatten(2, (heads, positions)), values.b_KHIO)
    return o_BHNTE


def _add_by_branch(y_BKHTO: torch.Tensor, x_BKHTI: torch.Tensor, w_KHIO: torch.Tensor) -> None:
    """Y += X W, with a matrix for each branch and head."""
    if x_BKHTI.shape[3] == 1:
        rows = [(y_BKHTO.squeeze(3).permute(1, 2, 0, 3), x_BKHTI.squeeze(3).permute(1, 2, 0, 3))]
    else:
        rows = zip(y_BKHTO, x_BKHTI, strict=True)
    for y_KHMO, x_KHMI in rows:
        gathered_matmul(x_KHMI, w_KHIO, sum_BGMO=y_KHMO)
