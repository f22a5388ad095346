"""Cached features as training batches: a seeded order, streamed, shared out over workers.

The order is a function of (files, seed, epoch) alone. A global batch is a run of ``batch_size``
rows in that order and its rows are dealt to the workers in turn, so the workers together see the
batches that one worker would see.

Shape legend: B rows, S encoder frames, D width, T tokens.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from das_lib.dataset import open_parquet
from das_lib.errors import DasError, StorageError
from das_lib.ids import row_id, utterance_id
from das_lib.train.labels import IGNORED, decoder_pair

logger = logging.getLogger(__name__)

COLUMNS = ["id", "labels", "prompt_length", "encoded", "frames", "width"]
BUFFER_BYTES = 256 * 2**20
LAPS = 1_000_003  # above any number of epochs: a lap's order is no later epoch's


@dataclass(frozen=True, slots=True)
class Batch:
    """One worker's part of a global batch; it may have no rows.

    ``encoded``: [B, S, D] float32; ``inputs``: [B, T] int64; ``targets``: [B, T] int64 with
    ``IGNORED`` on the prompt and the padding.
    """

    encoded: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor

    @property
    def num_rows(self) -> int:
        """Rows of this worker."""
        return self.inputs.shape[0]

    def to(self, device: str | torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.encoded.to(device), self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, slots=True)
class _Group:
    path: str
    row_group: int
    num_rows: int
    num_bytes: int


class TrainingData(ABC):
    """Rows in a seeded order, and the batches that they make."""

    num_rows: int
    """Rows of an epoch."""

    @abstractmethod
    def rows(self, seed: int, epoch: int) -> Iterator[dict[str, Any]]:
        """The rows of an epoch, in the order of this seed and epoch."""

    def endless(self, seed: int, epoch: int) -> Iterator[dict[str, Any]]:
        """The rows of an epoch, again and again, each lap in an order of its own."""
        for lap in count():
            yield from self.rows(seed, epoch + LAPS * lap)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Global batches an epoch, the smaller last one included.

        Raises:
            DasError: there are fewer rows than one batch.
        """
        if self.num_rows < batch_size:
            raise DasError(
                f"train.batch_size={batch_size} is more than the {self.num_rows} utterances to "
                "train on; lower train.batch_size or raise the domain's utterances"
            )
        return -(-self.num_rows // batch_size)

    def batches(
        self, seed: int, epoch: int, batch_size: int, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """This worker's part of each global batch of an epoch."""
        return deal(self.rows(seed, epoch), batch_size, rank, world)


class EqualShares(TrainingData):
    """Several domains' rows in turn, so every batch has as many of each (the paper's FT-Multi).

    An epoch is as long as the largest domain needs; smaller ones begin again, in another order.
    """

    def __init__(self, parts: Sequence[TrainingData]) -> None:
        self.parts = parts
        self.num_rows = len(parts) * max(part.num_rows for part in parts)

    def rows(self, seed: int, epoch: int) -> Iterator[dict[str, Any]]:
        """A row of each domain, then the next of each."""
        endless = [part.endless(seed, epoch) for part in self.parts]
        for _ in range(self.num_rows // len(self.parts)):
            for rows in endless:
                yield next(rows)


class InTurn(TrainingData):
    """Several domains' rows, one domain after the other: to judge by, not to learn from."""

    def __init__(self, parts: Sequence[TrainingData]) -> None:
        self.parts = parts
        self.num_rows = sum(part.num_rows for part in parts)

    def rows(self, seed: int, epoch: int) -> Iterator[dict[str, Any]]:
        """All rows of the first, then of the next."""
        for part in self.parts:
            yield from part.rows(seed, epoch)


class FeatureData(TrainingData):
    """The rows of FEATURES files; only a buffer of row groups is in memory at a time."""

    def __init__(
        self,
        files: list[str],
        *,
        ids: Collection[str] | None = None,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """Read the files' footers.

        Args:
            files: Parquet addresses, local or on any storage that fsspec knows.
            ids: The rows to take; all by default.
            buffer_bytes: Rows are shuffled within row groups of about this size together.

        Raises:
            StorageError: a file cannot be read.
        """
        self._wanted = None if ids is None else pc.field("id").isin(list(ids))
        self._groups: list[_Group] = []
        for path in sorted(files):
            metadata = _open(path).metadata
            for index in range(metadata.num_row_groups):
                group = metadata.row_group(index)
                place = _Group(path, index, group.num_rows, group.total_byte_size)
                rows = group.num_rows if ids is None else len(self._read(place, ["id"]))
                if rows:
                    self._groups.append(replace(place, num_rows=rows))
        self.num_rows = sum(group.num_rows for group in self._groups)
        self._buffer_bytes = buffer_bytes

    def rows(self, seed: int, epoch: int) -> Iterator[dict[str, Any]]:
        """Every row once, in the order of this seed and epoch."""
        rng = np.random.default_rng([seed, epoch])
        shuffled = [self._groups[i] for i in rng.permutation(len(self._groups))]
        for window in self._windows(shuffled):
            table = pa.concat_tables(self._read(group, COLUMNS) for group in window)
            for row in rng.permutation(table.num_rows):
                yield table.slice(int(row), 1).to_pylist()[0]

    def _read(self, group: _Group, columns: list[str]) -> pa.Table:
        table = _read(group, columns)
        return table if self._wanted is None else table.filter(self._wanted)

    def _windows(self, groups: list[_Group]) -> Iterator[list[_Group]]:
        window: list[_Group] = []
        for group in groups:
            window.append(group)
            if sum(g.num_bytes for g in window) >= self._buffer_bytes:
                yield window
                window = []
        if window:
            yield window


def deal(rows: Iterator[dict[str, Any]], batch_size: int, rank: int, world: int) -> Iterator[Batch]:
    """One worker's part of each global batch; the last global batch may be smaller."""
    while whole := list(islice(rows, batch_size)):
        yield collate(whole[rank::world])


def split_off(
    files: list[str],
    part: float,
    excluded: Collection[str] = (),
    buffer_bytes: int = BUFFER_BYTES,
) -> tuple[FeatureData, FeatureData | None]:
    """Rows to train on, and rows to judge an epoch by.

    Which rows these are depends on their utterances' ids alone: the same for every method and
    seed, and the versions of one utterance stay together.

    Args:
        files: See `FeatureData`.
        part: Of the utterances, to judge by; at least one where it is above 0.
        excluded: Ids of utterances for neither use.
        buffer_bytes: See `FeatureData`.

    Raises:
        StorageError: a file cannot be read.
    """
    if not part and not excluded:
        return FeatureData(files, buffer_bytes=buffer_bytes), None
    versions: dict[str, list[str]] = {}
    for path in files:
        for name in _open(path).read(["id"])["id"].to_pylist():
            versions.setdefault(utterance_id(name), []).append(name)
    kept = sorted(versions.keys() - {*excluded}, key=lambda i: row_id("validation", i))
    judging = math.ceil(part * len(kept))
    judges, learnt = (
        [name for i in some for name in versions[i]] for some in (kept[:judging], kept[judging:])
    )
    options = {"buffer_bytes": buffer_bytes}
    judge = FeatureData(files, ids=judges, **options) if part else None
    return FeatureData(files, ids=learnt, **options), judge


def collate(rows: list[dict[str, Any]]) -> Batch:
    """Rows as tensors, padded at the end of the tokens; the decoder never looks at later ones.

    Raises:
        StorageError: a row's encoder output has not the length that its columns say.
    """
    if not rows:
        empty = torch.empty(0, 0, dtype=torch.int64)
        return Batch(torch.empty(0, 0, 0), empty, empty)
    pairs = [decoder_pair(np.asarray(r["labels"]), r["prompt_length"]) for r in rows]
    longest = max(len(inputs) for inputs, _ in pairs)
    inputs_BT = np.zeros((len(rows), longest), np.int64)
    targets_BT = np.full((len(rows), longest), IGNORED, np.int64)
    for i, (inputs, targets) in enumerate(pairs):
        inputs_BT[i, : len(inputs)] = inputs
        targets_BT[i, : len(targets)] = targets
    encoded_BSD = torch.from_numpy(np.stack([_encoded(row) for row in rows])).float()
    return Batch(encoded_BSD, torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT))


def _encoded(row: dict[str, Any]) -> np.ndarray:
    frames, width, data = row["frames"], row["width"], row["encoded"]
    if len(data) != 2 * frames * width:
        raise StorageError(
            f"features row {row['id']}: encoded has {len(data)} bytes, frames={frames} x "
            f"width={width} float16 need {2 * frames * width}; move the features folder away and "
            "run again"
        )
    return np.frombuffer(data, np.float16).reshape(frames, width)


def _open(path: str) -> pq.ParquetFile:
    try:
        return open_parquet(path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read features {path}: {error}; {_REMEDY}") from error


def _read(group: _Group, columns: list[str]) -> pa.Table:
    try:
        return _open(group.path).read_row_group(group.row_group, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read features {group.path}: {error}; {_REMEDY}") from error


_REMEDY = "check the storage, or move the file's features folder away and run again"
