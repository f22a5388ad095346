"""The recordings of a corpus as a dataset of blocks; a corpus that grew adds blocks."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from das_lib.bulk.recording import Recording
from das_lib.bulk.seen import SeenIds
from das_lib.dataset import Dataset, open_parquet
from das_lib.errors import Reject
from das_lib.rows import Outcome
from schemas.bulk import RECORDINGS

MAX_BLOCK_BYTES = 64 << 20
"""Of recordings: an hour of FLAC, so a worker that dies repeats no more than that."""
GENERATION = 4  # digits, or more, of a block's name before its number


def add_recordings(
    listing: Iterable[Recording | Reject], recordings: Dataset, per_block: int
) -> int:
    """Commit the recordings of a listing that the dataset does not have; how many there are.

    What was listed before stays as it is, rejected or not, though it may have left the corpus. A
    listing that was killed goes on: its blocks count.
    """
    known = known_ids(recordings)
    generation, added = 1 + _last_generation(recordings), 0
    for number, (rows, rejects) in enumerate(_blocks(_unknown(listing, known), per_block)):
        table = pa.Table.from_pylist([row.to_row() for row in rows], schema=RECORDINGS)
        block = f"{generation:0{GENERATION}d}-{number:06d}"
        recordings.commit(block, Outcome(table, rejects), max(1, len(rows)))
        added += len(rows) + len(rejects)
    return added


def _last_generation(recordings: Dataset) -> int:
    # Rejects of a block that was killed before it was committed are known, so they must stay too.
    names = [*recordings.data.names(".parquet"), *recordings.rejects.names(".parquet")]
    return max((int(name.partition("-")[0]) for name in names), default=-1)


def known_ids(dataset: Dataset) -> SeenIds:
    """Ids of a dataset's rows and rejects, a file at a time."""
    known = SeenIds()
    for folder in (dataset.data, dataset.rejects):
        for name in folder.names(".parquet"):
            for id in open_parquet(folder.path(name)).read(["id"])["id"].to_pylist():
                known.add(id)
    return known


def _unknown(listing: Iterable[Recording | Reject], known: SeenIds) -> Iterator[Recording | Reject]:
    return (found for found in listing if known.add(found.id))


def _blocks(
    found: Iterator[Recording | Reject], per_block: int
) -> Iterator[tuple[list[Recording], list[Reject]]]:
    rows: list[Recording] = []
    rejects: list[Reject] = []
    size = 0
    for one in found:
        if isinstance(one, Reject):
            rejects.append(one)
        else:
            if rows and size + (one.size or 0) > MAX_BLOCK_BYTES:
                yield rows, rejects
                rows, rejects, size = [], [], 0
            rows.append(one)
            size += one.size or 0
        if len(rows) + len(rejects) >= per_block:
            yield rows, rejects
            rows, rejects, size = [], [], 0
    if rows or rejects:
        yield rows, rejects


def count_rows(dataset: Dataset) -> tuple[int, int]:
    """Rows and rejects, from the files' footers."""
    counts = []
    for folder in (dataset.data, dataset.rejects):
        files = (open_parquet(folder.path(name)) for name in folder.names(".parquet"))
        counts.append(sum(file.metadata.num_rows for file in files))
    return counts[0], counts[1]
