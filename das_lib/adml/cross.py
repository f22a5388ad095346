"""Cross-attention of all branches over one K_0 and V_0, adapters kept in rank space.

For branch i and head h, with P = softmax(q_i,h K_i,h^T / sqrt(E)):

    q_i,h K_i,h^T = q_i,h K_0,h^T + (q_i,h B_i,h) Z_i^T        (adapters of k_proj)
    P V_i,h       = P V_0,h       + (P Z_i) B_i,h^T            (adapters of v_proj)

so an adapter costs R numbers a frame (Z_i, common to its heads) in place of two copies of the
model's width. Exact: only the order of the sums differs.

Shape suffixes: U utterances, B rows that attend to them, N branches, K of them with a change, T
positions, H heads, E head width, S encoder frames, R rank, M = N T queries of one row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from das_lib.adml.bank import Delta
from das_lib.adml.cpu.fused import kernels
from das_lib.adml.gathered import gathered_matmul

SCORES = 2**19
"""Of attention that are computed at once on a CPU: 2 MB, which its caches hold."""


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


def project_keys(
    weights_DD: Sequence[torch.Tensor], h_BSD: torch.Tensor, heads: int
) -> list[torch.Tensor]:
    """K_0 of each layer, transposed: W H^T in place of H W^T saves a copy. [B, H, E, S].

    Args:
        weights_DD: Of each layer's projection, which has no bias.
        h_BSD: The encoder's features.
        heads: Of the decoder.
    """
    batch, frames, _ = h_BSD.shape
    h_BDS = h_BSD.transpose(1, 2)
    if kernels(h_BSD) is None:
        return [(w_DD @ h_BDS).unflatten(1, (heads, -1)) for w_DD in weights_DD]
    # For the kernel the lines of a head's W are the vectors, and H^T is their matrix.
    h_U1DS, rows_B = h_BDS.contiguous().unsqueeze(1), torch.arange(batch).repeat_interleave(heads)
    found = []
    for w_DD in weights_DD:
        w_B1ED = w_DD.unflatten(0, (heads, 1, -1)).repeat(batch, 1, 1, 1)
        found.append(gathered_matmul(w_B1ED, h_U1DS, rows_B).view(batch, heads, -1, frames))
    return found


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
    o_BHNTE: torch.Tensor,
    look: Callable[[torch.Tensor], None] | None = None,
) -> None:
    """Attend with all branches of each row over the memory of its utterance.

    Args:
        q_BHNTE: Queries, not yet scaled.
        k_UHES: K_0, transposed.
        v_UHSE: V_0.
        keys: Changes of the keys by the last branches.
        values: Changes of the values by the last branches.
        rows_B: The utterance of each row, int64.
        o_BHNTE: Is written.
        look: Is shown branch 0's scores before the softmax. [B, H, T, S]
    """
    batch, heads, branches, positions, _ = q_BHNTE.shape
    frames = v_UHSE.shape[2]
    seen_BHTS = None if look is None else q_BHNTE.new_empty(batch, heads, positions, frames)
    group = batch
    if q_BHNTE.device.type == "cpu":
        group = max(1, SCORES // (heads * branches * positions * frames))
    native = kernels(q_BHNTE)
    if native is not None and keys is None:
        # With one position, as after the prompt, both are views.
        q_BHME, o_BHME = q_BHNTE.flatten(2, 3), o_BHNTE.flatten(2, 3)
        more = None if values is None else (values.z_UKIO, values.b_KHIO, positions, group)
        native.attend(q_BHME, k_UHES, v_UHSE, rows_B, o_BHME, values=more, seen_BHTS=seen_BHTS)
        if o_BHME.data_ptr() != o_BHNTE.data_ptr():
            o_BHNTE.copy_(o_BHME.view(q_BHNTE.shape))
    else:
        for start in range(0, batch, group):
            part = slice(start, start + group)
            seen = None if seen_BHTS is None else seen_BHTS[part]
            o_BHNTE[part] = _attend(q_BHNTE[part], k_UHES, v_UHSE, keys, values, rows_B[part], seen)
    if look is not None and seen_BHTS is not None:
        look(seen_BHTS)


def _attend(
    q_BHNTE: torch.Tensor,
    k_UHES: torch.Tensor,
    v_UHSE: torch.Tensor,
    keys: LowRank | None,
    values: LowRank | None,
    rows_B: torch.Tensor,
    seen_BHTS: torch.Tensor | None,
) -> torch.Tensor:
    """`attend` part by part: for changed keys, and where its kernel does not run."""
    _, heads, _, positions, width = shape = q_BHNTE.shape
    q_BHME = (q_BHNTE * width**-0.5).flatten(2, 3)
    s_BHMS = gathered_matmul(q_BHME, k_UHES, rows_B)
    s_BHNTS = s_BHMS.unflatten(2, shape[2:4])
    if keys is not None:
        q_BHKTE = q_BHME.view(shape)[:, :, -keys.count :]
        u_BKHTR = q_BHKTE.new_zeros(len(q_BHME), keys.count, heads, positions, keys.b_KHIO.shape[3])
        _add_by_branch(u_BKHTR, q_BHKTE.transpose(1, 2), keys.b_KHIO)
        s_BKMS = gathered_matmul(u_BKHTR.flatten(2, 3), keys.z_UKIO, rows_B)
        s_BHNTS[:, :, -keys.count :].transpose(1, 2).add_(s_BKMS.unflatten(2, (heads, positions)))
    if seen_BHTS is not None:
        seen_BHTS.copy_(s_BHMS[:, :, :positions])
    p_BHMS = torch.softmax(s_BHMS, -1, out=s_BHMS)
    o_BHNTE = gathered_matmul(p_BHMS, v_UHSE, rows_B).view(shape)
    if values is not None:
        p_BKHTS = p_BHMS.unflatten(2, shape[2:4])[:, :, -values.count :].transpose(1, 2)
        u_BKMR = gathered_matmul(p_BKHTS.flatten(2, 3), values.z_UKIO, rows_B)
        o_BKHTE = o_BHNTE[:, :, -values.count :].transpose(1, 2)
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
