"""A step's dataset on storage: blocks that are committed once, rejects beside them, a summary.

    <stage>/<name>-<hash>/
        config.json              what determines the content
        data/<block>.parquet     one file per committed block; its presence is the commit
        rejects/<block>.parquet  rows that the block could not use, written before its data file
        summary.json             written last; a dataset without it is unfinished

A block's name follows from its input alone (`Source.blocks`), so a block that is written twice,
by a retry or by a worker that outlived its driver, replaces itself: nothing lost, nothing twice.
"""

import datetime
import io
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from das_lib.errors import DasError, Reject, StorageError
from das_lib.rows import Outcome
from das_lib.storage import Folder
from schemas.rejects import REJECTS
from schemas.validate import validate

logger = logging.getLogger(__name__)

ONLY_REJECTS = ".only.parquet"  # rejects of a block without good rows; its presence is the commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a finished step did; ``rows_in == rows_out + rejected`` always."""

    stage: str
    name: str
    rows_in: int
    rows_out: int
    rejected: int
    reasons: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Block:
    """The unit of work, commit and retry: one row group of an input file."""

    name: str
    path: str
    row_group: int
    num_rows: int


class Dataset:
    """The dataset that a step writes and later steps read."""

    def __init__(self, folder: Folder, schema: pa.Schema, stage: str, name: str) -> None:
        self.folder, self.schema, self.stage, self.name = folder, schema, stage, name
        self.data, self.rejects = folder / "data", folder / "rejects"

    def begin(self, config: dict[str, Any]) -> None:
        """Record what determines the content."""
        self.folder.write_json("config.json", config)

    def commit(self, block: str, outcome: Outcome, rows_per_group: int = 64) -> None:
        """Write a block; it counts from the moment its data file has its name.

        What an earlier try of it left goes first, for its rows may have fared otherwise: a block
        that is killed in between is uncommitted, and made again.

        Raises:
            DasError: the rows break the schema.
            StorageError: the storage refuses.
        """
        rows = outcome.rows.select(self.schema.names).cast(self.schema)
        validate(rows, self.schema)
        rejects = _parquet(rejects_table(outcome.rejects))
        whole, only = f"{block}.parquet", f"{block}{ONLY_REJECTS}"
        self.data.remove(whole)
        self.rejects.remove(only)
        if not rows.num_rows:  # a data file without rows would break readers such as `datasets`
            self.rejects.remove(whole)
            self.rejects.write(only, rejects)
            return
        if outcome.rejects:
            self.rejects.write(whole, rejects)
        else:
            self.rejects.remove(whole)
        self.data.write(whole, _parquet(rows, rows_per_group))

    def committed(self) -> set[str]:
        """Names of the committed blocks."""
        whole = {n.removesuffix(ONLY_REJECTS) for n in self.rejects.names(ONLY_REJECTS)}
        return whole | {name.removesuffix(".parquet") for name in self.data.names(".parquet")}

    def committed_ids(self) -> set[str]:
        """Ids of all committed rows, rejected ones included."""
        return set(self._ids(self.data)) | set(self._ids(self.rejects))

    def rejected(self, reasons: Collection[str]) -> dict[str, set[str]]:
        """Ids of the rows that were rejected for one of these reasons, by block."""
        found: dict[str, set[str]] = {}
        for name in self.rejects.names(".parquet"):
            table = self._open(self.rejects, name).read(["id", "reason"])
            ids = {row["id"] for row in table.to_pylist() if row["reason"] in reasons}
            if ids:
                found[name.removesuffix(ONLY_REJECTS).removesuffix(".parquet")] = ids
        return found

    def without(self, block: str, ids: Collection[str]) -> Outcome:
        """What a committed block holds, but for these rejected rows."""
        rows, rejects = self.schema.empty_table(), []
        if self.data.exists(f"{block}.parquet"):
            rows = self._open(self.data, f"{block}.parquet").read().cast(self.schema)
        for name in (f"{block}.parquet", f"{block}{ONLY_REJECTS}"):
            if self.rejects.exists(name):
                rejects += self._open(self.rejects, name).read().to_pylist()
        return Outcome(rows, [Reject(**reject) for reject in rejects if reject["id"] not in ids])

    def blocks(self) -> list[Block]:
        """The row groups of the data files, in a stable order, for the next step."""
        found = []
        for name in self.data.names(".parquet"):
            metadata = self._open(self.data, name).metadata
            stem = name.removesuffix(".parquet")
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                label = stem if metadata.num_row_groups == 1 else f"{stem}-{group:05d}"
                if rows:
                    found.append(Block(label, self.data.path(name), group, rows))
        return found

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """The whole table; for datasets that are known to be small."""
        empty = self.schema.empty_table().select(columns or self.schema.names)
        return pa.concat_tables([empty, *self.tables(columns)])

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows, a data file at a time."""
        for name in self.data.names(".parquet"):
            yield self._open(self.data, name).read(columns)

    def reasons(self) -> Counter[str]:
        """Rejected rows by reason."""
        return Counter(self._column(self.rejects, "reason"))

    def files(self) -> list[str]:
        """Addresses of the data files."""
        return [self.data.path(name) for name in self.data.names(".parquet")]

    @property
    def finished(self) -> bool:
        """Whether the dataset is whole."""
        return self.folder.exists("summary.json")

    def summary(self) -> Summary:
        """What the finished step did."""
        value = self.folder.read_json("summary.json")
        return Summary(**{key: value[key] for key in Summary.__dataclass_fields__})

    def finish(
        self,
        rows_in: int,
        seconds: float,
        versions: dict[str, str],
        reasons: Mapping[str, int] | None = None,
    ) -> Summary:
        """Check that every input row is accounted for, once, and mark the dataset whole.

        ``reasons`` counts the rejected rows of an adapter, whose folder holds no rows.

        Raises:
            StorageError: rows are missing or twice; the dataset stays unfinished.
        """
        if not self.schema.names:  # an adapter's folder: weights, no rows
            return self.mark(rows_in, reasons or {}, seconds, versions)
        self.data.clean()
        self.rejects.clean()
        if not self.data.names(".parquet"):  # a dataset of no rows must open too
            self.data.write("empty.parquet", _parquet(self.schema.empty_table()))
        ids = [*self._ids(self.data), *self._ids(self.rejects)]
        twice = [i for i, count in Counter(ids).items() if count > 1]
        if twice or len(ids) != rows_in:
            raise StorageError(
                f"{self.folder}: {rows_in} rows went in, {len(ids)} came out or were rejected, "
                f"{len(twice)} of them twice (for example {twice[:1]}); move the folder away and "
                "run again"
            )
        return self.mark(rows_in, self.reasons(), seconds, versions)

    def mark(
        self, rows_in: int, reasons: Mapping[str, int], seconds: float, versions: dict[str, str]
    ) -> Summary:
        """Write the summary, which makes the step's folder whole."""
        rejected = sum(reasons.values())
        summary = Summary(
            stage=self.stage,
            name=self.name,
            rows_in=rows_in,
            rows_out=rows_in - rejected,
            rejected=rejected,
            reasons=dict(sorted(reasons.items())),
            seconds=round(seconds, 3),
        )
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.folder.write_json(
            "summary.json", {**asdict(summary), "finished": finished, "versions": versions}
        )
        return summary

    def require_rows(self) -> None:
        """Refuse to go on from a dataset without rows.

        Raises:
            DasError: nothing was accepted; names the reasons.
        """
        summary = self.summary()
        if summary.rows_out == 0:
            reasons = ", ".join(f"{n} {reason}" for reason, n in summary.reasons.items())
            raise DasError(
                f"{self.stage}/{self.name}: none of {summary.rows_in} rows was accepted "
                f"({reasons or 'no input'}); see {self.rejects}"
            )

    def _ids(self, folder: Folder) -> list[str]:
        return self._column(folder, "id")

    def _column(self, folder: Folder, column: str) -> list[Any]:
        found: list[Any] = []
        for name in folder.names(".parquet"):
            found += self._open(folder, name).read([column])[column].to_pylist()
        return found

    def _open(self, folder: Folder, name: str) -> pq.ParquetFile:
        return open_parquet(folder.path(name))


def total_by_stage(summaries: Sequence[Summary]) -> list[Summary]:
    """One summary a stage, in the order of the work, summed over its steps."""
    totals: dict[str, Summary] = {}
    for step in summaries:
        before = totals.get(step.stage)
        totals[step.stage] = Summary(
            stage=step.stage,
            name=step.stage,
            rows_in=step.rows_in + (before.rows_in if before else 0),
            rows_out=step.rows_out + (before.rows_out if before else 0),
            rejected=step.rejected + (before.rejected if before else 0),
            reasons=dict(Counter(step.reasons) + Counter(before.reasons if before else {})),
            seconds=round(step.seconds + (before.seconds if before else 0), 3),
        )
    return list(totals.values())


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a Parquet file on any storage; only the parts that are read are fetched."""
    folder, _, name = path.rpartition("/")
    if "://" not in folder:
        return pq.ParquetFile(path)
    return pq.ParquetFile(Folder(folder).open(name))


def read_block(path: str, row_group: int) -> pa.Table:
    """The rows of a `Block`."""
    return open_parquet(path).read_row_group(row_group)


def rejects_table(rejects: Iterable[Reject]) -> pa.Table:
    """Rejections in their schema."""
    return pa.Table.from_pylist(
        [{"id": r.id, "reason": r.reason, "detail": r.detail} for r in rejects], schema=REJECTS
    )


def _parquet(table: pa.Table, rows_per_group: int = 64) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=rows_per_group, compression="zstd")
    return buffer.getvalue()
