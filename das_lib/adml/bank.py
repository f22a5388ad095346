"""The adapters that decode together, and their algebra.

Branch 0 is the base, branch i the i-th adapter. An adapter changes a projection W to W + B_i A_i;
the base's part W x is computed once for all branches, and the adapters' parts as two batched
products (paper, equation 2).

PiSSA adapters, converted to plain LoRA, have twice their rank: W + B_i A_i - B_c A_c, where A_c and
B_c are the start that all of them share. Where all adapters of a bank end in the same A_c and B_c,
the branches run over the common residual W - B_c A_c instead: each adapter keeps its own rank, and
the base is one more branch, with B_c A_c for its change. This is exact up to rounding in float32.

Shape suffixes: B utterances, N branches, K the last of them, from the first that has a change here,
T positions, I input width, O output width, R rank (padded with zeros to the largest), S encoder
frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from das_lib.adml.adapter import Adapter, BaseShape, read_adapter
from das_lib.adml.cpu.fused import kernels
from das_lib.adml.gathered import gathered_matmul
from das_lib.adml.linear import project
from das_lib.errors import ModelError

BASE = "base"

Pair = tuple[torch.Tensor, torch.Tensor]
"""A_RI and B_OR of one change B @ A."""

# Projections of one input are changed together, their outputs side by side.
FUSED = {"self_attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")}


@dataclass(frozen=True, slots=True)
class Delta:
    """The changes of K branches to one projection, or to some that have one input, stacked."""

    a_KIR: torch.Tensor
    """Of all parts, their ranks side by side."""
    parts: tuple["Part", ...]

    def to(self, device: torch.device, dtype: torch.dtype) -> "Delta":
        """The same on a device."""
        parts = tuple(replace(part, b_KRO=part.b_KRO.to(device, dtype)) for part in self.parts)
        return Delta(self.a_KIR.to(device, dtype), parts)


@dataclass(frozen=True, slots=True)
class Part:
    """The second half of a change to one projection."""

    b_KRO: torch.Tensor
    ranks: slice
    """Of the ranks in ``a_KIR``."""
    outputs: slice
    """Of the projections' outputs, which stand side by side."""


Deltas = Mapping[str, Delta]
"""Changes by layer and projection, such as ``3.encoder_attn.q_proj`` or ``0.self_attn.qkv``."""


class AdapterBank:
    """Any number of adapters over one base; adapters come and go while it is in use."""

    def __init__(self, base: BaseShape):
        self._base = base
        self._adapters: dict[str, Adapter] = {}
        self._stacks: dict[tuple[object, ...], Deltas] = {}
        self._common: dict[str, Pair] = {}
        self.revision = 0
        """Another one whenever adapters have come or gone."""

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

    @property
    def common(self) -> Mapping[str, Pair]:
        """By site, the start A_c, B_c to add to the base's weights so as to get the residual.

        Empty where the adapters share none. A new object whenever it has changed.
        """
        return self._common

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
        self._changed()
        return len(self._adapters)

    def remove(self, name: str) -> None:
        """Drop an adapter; the branches after it move down by one."""
        if name not in self._adapters:
            raise ModelError(
                f"adapter {name!r}: not in the bank, which has {list(self._adapters)}; name one"
            )
        del self._adapters[name]
        self._changed()

    def _changed(self) -> None:
        self._stacks.clear()
        self.revision += 1
        common = _common_start(list(self._adapters.values()))
        if common.keys() != self._common.keys() or any(
            not _equal(common[site], self._common[site]) for site in common
        ):
            self._common = common

    def stack(self, branches: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Deltas:
        """Stack the changes of these branches, site by site; branch 0 may only come first.

        Returns:
            Sites that no branch here changes are absent: they cost nothing.
        """
        key = (tuple(branches), dtype, str(device))
        if key not in self._stacks:
            names = [self.names[i] for i in branches]
            assert BASE not in names[1:], "the base stands first"
            changes = [self._changes(name) for name in names]
            stacks = {}
            for layer in range(self._base.layers):
                for site, parts in _groups(layer, self._base).items():
                    delta = _stack(parts, changes)
                    if delta is not None:
                        stacks[site] = delta.to(device, dtype)
            self._stacks[key] = stacks
        return self._stacks[key]

    def weights(self, site: str, weight_OI: torch.Tensor, branches: Sequence[int]) -> torch.Tensor:
        """The projection of each branch, W + B_i A_i; of one for all if none of them changes it.

        Returns:
            [N, O, I] or [O, I]
        """
        names = [self.names[i] for i in branches]
        pairs = [None if n == BASE else self._adapters[n].deltas.get(site) for n in names]
        if not any(pairs):
            return weight_OI
        return torch.stack([merge(weight_OI, pair) for pair in pairs])

    def _changes(self, name: str) -> Mapping[str, Pair]:
        """What a branch adds to the residual, or to the base where there is no common start."""
        if name == BASE:
            return {site: (a_RI, -b_OR) for site, (a_RI, b_OR) in self._common.items()}
        deltas = dict(self._adapters[name].deltas)
        for site, (a_RI, _) in self._common.items():
            own = len(deltas[site][0]) - len(a_RI)
            deltas[site] = (deltas[site][0][:own], deltas[site][1][:, :own])
        return deltas


def _common_start(adapters: Sequence[Adapter]) -> dict[str, Pair]:
    """By site, the half of the rank in which all adapters (two or more) end, where they do."""
    if len(adapters) < 2:
        return {}
    found = {}
    for site in adapters[0].deltas:
        pairs = [adapter.deltas.get(site) for adapter in adapters]
        half = len(adapters[0].deltas[site][0]) // 2
        tails = [
            (pair[0][half:], pair[1][:, half:])
            for pair in pairs
            if pair is not None and len(pair[0]) == 2 * half > 0
        ]
        if len(tails) == len(adapters) and all(_equal(tails[0], tail) for tail in tails[1:]):
            found[site] = tails[0]
    return found


def _equal(one: Pair, other: Pair) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def _groups(layer: int, base: BaseShape) -> dict[str, tuple[str, ...]]:
    """The stacked sites of a layer, each with the sites that it fuses."""
    prefix = f"{layer}."
    sites = [s.removeprefix(prefix) for s in base.sites() if s.startswith(prefix)]
    fused = {part for parts in FUSED.values() for part in parts}
    groups = {**FUSED, **{site: (site,) for site in sites if site not in fused}}
    return {prefix + name: tuple(prefix + part for part in parts) for name, parts in groups.items()}


def _stack(sites: Sequence[str], changes: Sequence[Mapping[str, Pair]]) -> Delta | None:
    """Stack the branches' changes to projections of one input, outputs side by side."""
    first = next((i for i, c in enumerate(changes) if any(site in c for site in sites)), None)
    if first is None:
        return None
    changes = changes[first:]  # branches before it have no row: their product would be zero
    stacked_a, stacked_b, rank = [], [], 0
    for position, site in enumerate(sites):
        pairs = [change.get(site) for change in changes]
        some = [pair for pair in pairs if pair is not None]
        if not some:
            continue
        ranks = max(len(a_RI) for a_RI, _ in some)
        inputs, outputs = some[0][0].shape[1], len(some[0][1])
        a_KIR = torch.zeros(len(pairs), inputs, ranks)
        b_KRO = torch.zeros(len(pairs), ranks, outputs)
        for k, pair in enumerate(pairs):
            if pair is not None:
                a_RI, b_OR = pair
                a_KIR[k, :, : len(a_RI)] = a_RI.T
                b_KRO[k, : len(a_RI)] = b_OR.T
        stacked_a.append(a_KIR)
        span = slice(position * outputs, (position + 1) * outputs)
        stacked_b.append(Part(b_KRO, slice(rank, rank + ranks), span))
        rank += ranks
    return Delta(torch.cat(stacked_a, -1), tuple(stacked_b))


def add_delta(y_NBTO: torch.Tensor, x_NBTI: torch.Tensor, delta: Delta | None) -> torch.Tensor:
    """y_i += B_i A_i x_i for every branch i with a change, in place (paper, equation 2)."""
    if delta is None:
        return y_NBTO
    count, width, _ = delta.a_KIR.shape
    x_KMI = x_NBTI[-count:].reshape(count, -1, width)
    y_KMO = y_NBTO[-count:].view(count, -1, y_NBTO.shape[-1])
    native = kernels(x_KMI)
    if native is not None:
        parts = [(part.b_KRO, part.ranks, part.outputs) for part in delta.parts]
        native.add_low_rank(x_KMI, delta.a_KIR, parts, y_KMO)
        return y_NBTO
    u_KMR = torch.bmm(x_KMI, delta.a_KIR)
    for part in delta.parts:
        # Not baddbmm_: into a slice of the outputs it would loop over the branches.
        y_KMO[..., part.outputs] += torch.bmm(u_KMR[..., part.ranks], part.b_KRO)
    return y_NBTO


def compress(h_BSI: torch.Tensor, delta: Delta | None) -> torch.Tensor | None:
    """Z_i = H A_i^T: all that branch i adds to the cross-attention's keys or values. [B, K, S, R].

    V_i = V_0 + Z_i B_i^T stays in this form, R numbers a frame in place of the model's width.
    """
    if delta is None:
        return None
    count, width, rank = delta.a_KIR.shape
    if kernels(h_BSI) is not None:
        h_BKSI = h_BSI.unsqueeze(1).expand(-1, count, -1, -1)
        all_B = torch.zeros(len(h_BSI), dtype=torch.int64)
        return gathered_matmul(h_BKSI, delta.a_KIR.unsqueeze(0), all_B)
    # One product over the frames of all utterances, for which the A_i stand side by side.
    a_MI = delta.a_KIR.transpose(1, 2).reshape(count * rank, width)
    return project(h_BSI, a_MI).unflatten(-1, (count, rank)).transpose(1, 2)


def merge(weight_OI: torch.Tensor, pair: Pair | None) -> torch.Tensor:
    """W + B A in float32, summed in float64."""
    if pair is None:
        return weight_OI
    a_RI, b_OR = (x.double() for x in pair)
    return (weight_OI.double() + b_OR @ a_RI).float()
