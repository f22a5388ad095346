"""The adapters that decode together, and their algebra.

Branch 0 is the base, branch i the i-th adapter. An adapter changes a projection W to W + B_i A_i;
the base's part W x is computed once for all branches, and the adapters' parts as two batched
products (paper, equation 2). Adapters always stand last among the branches of a batch.

Shape suffixes: B utterances, N branches, K adapters among them, T positions, I input width,
O output width, R rank (padded with zeros to the largest), H heads, E head width, S encoder frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from das_lib.adml.adapter import Adapter, BaseShape, read_adapter
from das_lib.errors import ModelError

BASE = "base"


@dataclass(frozen=True, slots=True)
class Delta:
    """The changes of K adapters to one projection, stacked.

    An adapter that leaves the projection alone has zeros here; the base has no row at all, for
    its product would be zero.
    """

    a_KIR: torch.Tensor
    b_KRO: torch.Tensor


Deltas = Mapping[str, Delta]


class AdapterBank:
    """Any number of adapters over one base; adapters come and go while it is in use."""

    def __init__(self, base: BaseShape):
        self._base = base
        self._adapters: dict[str, Adapter] = {}
        self._stacks: dict[tuple[object, ...], Deltas] = {}

    @classmethod
    def load(cls, base: Any, adapters: Mapping[str, Path]) -> "AdapterBank":
        """Read PEFT LoRA folders for a base, given as a model, a configuration or a folder.

        Raises:
            ModelError: See `read_adapter`.
        """
        bank = cls(BaseShape.of(base))
        for name, folder in adapters.items():
            bank.add(name, folder)
        return bank

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each branch; branch 0 is ``base``."""
        return (BASE, *self._adapters)

    def add(self, name: str, folder: Path) -> int:
        """Read an adapter and append it; the branches before it keep their numbers.

        Returns:
            The branch's number.
        """
        if name in self.names:
            raise ModelError(
                f"adapter {name!r}: the name is taken by one of {list(self.names)}; choose another"
            )
        self._adapters[name] = read_adapter(name, Path(folder), self._base)
        return len(self._adapters)

    def remove(self, name: str) -> None:
        """Drop an adapter; the branches after it move down by one."""
        if name not in self._adapters:
            raise ModelError(
                f"adapter {name!r}: not in the bank, which has {list(self._adapters)}; name one"
            )
        del self._adapters[name]
        self._stacks.clear()

    def stack(self, branches: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Deltas:
        """Stack the adapters of these branches, site by site; branch 0 may only come first.

        Returns:
            Sites that no adapter here changes are absent: they cost nothing.
        """
        key = (tuple(branches), dtype, str(device))
        if key not in self._stacks:
            names = [self.names[i] for i in branches]
            assert BASE not in names[1:], "the base stands first"
            adapters = [self._adapters[name] for name in names if name != BASE]
            sites = dict.fromkeys(site for adapter in adapters for site in adapter.deltas)
            self._stacks[key] = {
                site: _stack(site, adapters, dtype=dtype, device=device) for site in sites
            }
        return self._stacks[key]


def _stack(
    site: str, adapters: Sequence[Adapter], *, dtype: torch.dtype, device: torch.device
) -> Delta:
    pairs = [adapter.deltas.get(site) for adapter in adapters]
    some = [pair for pair in pairs if pair is not None]
    rank = max(a_RI.shape[0] for a_RI, _ in some)
    a_KIR = torch.zeros(len(pairs), some[0][0].shape[1], rank)
    b_KRO = torch.zeros(len(pairs), rank, some[0][1].shape[0])
    for i, pair in enumerate(pairs):
        if pair is not None:
            a_RI, b_OR = pair
            a_KIR[i, :, : a_RI.shape[0]] = a_RI.T
            b_KRO[i, : a_RI.shape[0]] = b_OR.T
    return Delta(a_KIR.to(device, dtype), b_KRO.to(device, dtype))


def add_delta(y_BNTO: torch.Tensor, x_BNTI: torch.Tensor, delta: Delta | None) -> torch.Tensor:
    """y_i += B_i A_i x_i for every adapter i, in place (paper, equation 2)."""
    if delta is None:
        return y_BNTO
    batch, branches, length, _ = x_BNTI.shape
    base = branches - len(delta.a_KIR)
    x_KMI = x_BNTI[:, base:].transpose(0, 1).flatten(1, 2)
    y_KMO = torch.bmm(torch.bmm(x_KMI, delta.a_KIR), delta.b_KRO)
    y_BNTO[:, base:] += y_KMO.unflatten(1, (batch, length)).transpose(0, 1)
    return y_BNTO


def compress(h_BSI: torch.Tensor, delta: Delta | None) -> torch.Tensor | None:
    """Z_i = H A_i^T: all that adapter i adds to the cross-attention's keys or values. [B, K, S, R].

    K_i = K_0 + Z_i B_i^T stays in this form, R numbers a frame in place of the model's width.
    """
    if delta is None:
        return None
    adapters, width, rank = delta.a_KIR.shape
    a_IM = delta.a_KIR.transpose(0, 1).reshape(width, adapters * rank)
    return (h_BSI @ a_IM).unflatten(-1, (adapters, rank)).transpose(1, 2).contiguous()


def add_scores(
    s_BHNTS: torch.Tensor, q_BHNTE: torch.Tensor, z_BKSR: torch.Tensor, delta: Delta
) -> None:
    """s_i,h += (q_i,h B_i,h) Z_i^T, in place: q_i,h K_i,h^T without K_i."""
    base = q_BHNTE.shape[2] - len(delta.b_KRO)
    b_KHER = _per_head(delta, q_BHNTE.shape[1]).transpose(-1, -2)
    q_BKHTR = q_BHNTE[:, :, base:].transpose(1, 2) @ b_KHER
    s_BKMS = q_BKHTR.flatten(2, 3) @ z_BKSR.transpose(-1, -2)
    s_BHNTS[:, :, base:] += s_BKMS.unflatten(2, q_BKHTR.shape[2:4]).transpose(1, 2)


def add_values(
    o_BHNTE: torch.Tensor, p_BHNTS: torch.Tensor, z_BKSR: torch.Tensor, delta: Delta
) -> None:
    """o_i,h += (p_i,h Z_i) B_i,h^T, in place: p_i,h V_i,h without V_i."""
    base = p_BHNTS.shape[2] - len(delta.b_KRO)
    p_BKHTS = p_BHNTS[:, :, base:].transpose(1, 2)
    o_BKMR = p_BKHTS.flatten(2, 3) @ z_BKSR
    o_BKHTE = o_BKMR.unflatten(2, p_BKHTS.shape[2:4]) @ _per_head(delta, p_BHNTS.shape[1])
    o_BHNTE[:, :, base:] += o_BKHTE.transpose(1, 2)


def _per_head(delta: Delta, heads: int) -> torch.Tensor:
    """B_i,h^T: the columns of head h. [K, H, R, E]."""
    return delta.b_KRO.unflatten(-1, (heads, -1)).transpose(1, 2)
