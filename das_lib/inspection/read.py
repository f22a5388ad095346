"""What the page shows of a dataset's folder, read a row group at a time."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from das_lib.dataset import Summary, open_parquet
from das_lib.errors import DasError
from das_lib.ids import row_id
from das_lib.speech.audio import SAMPLE_RATE
from das_lib.storage import Folder

REJECTS_SHOWN = 5  # of each reason
MEASURES: dict[str, tuple[str, Callable[[Any], float]]] = {
    "text": ("words a text", lambda text: len(text.split())),
    "num_samples": ("seconds a recording", lambda samples: samples / SAMPLE_RATE),
    "loudness": ("loudness, LUFS", float),
    "cer": ("character error rate of the base's transcript", float),
}
"""Columns that have a histogram: its title, and the value of a cell."""


@dataclass
class Shown:
    """All that the page tells."""

    summary: Summary
    """Of an unfinished dataset, what is committed so far."""
    finished: bool
    config: dict[str, Any]
    measures: dict[str, list[float]] = field(default_factory=dict)
    """Values by title."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """A fair sample: the rows whose ids' hashes are lowest, in that order."""
    rejects: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """A few of each reason, the commonest reason first."""


def read_dataset(url: str, sample: int) -> Shown:
    """Read ``<stage>/<name>-<hash>`` with a sample of its rows.

    Raises:
        DasError: the folder is no dataset's.
    """
    folder = Folder(url)
    if not folder.exists("config.json"):
        raise DasError(
            f"{url} is no dataset: it has no config.json; give the folder of a step, such as "
            "runs/demo/speech/music-1a2b3c4d"
        )
    config = folder.read_json("config.json")
    counts, rejects = _rejects(folder / "rejects")
    measures: dict[str, list[float]] = {}
    ids: list[str] = []
    for group in _groups(folder / "data", ["id", *MEASURES]):
        ids += group["id"].to_pylist()
        for column, (title, value) in MEASURES.items():
            if column in group.column_names:
                cells = group[column].drop_null().to_pylist()
                measures.setdefault(title, []).extend(map(value, cells))
    chosen = heapq.nsmallest(sample, ids, key=_rank)
    found: dict[str, dict[str, Any]] = {}
    wanted = set(chosen)
    for group in _groups(folder / "data", None, wanted):
        for row in group.to_pylist():
            if row["id"] in wanted:
                found[row["id"]] = row
    rejected = sum(counts.values())
    summary = Summary(
        stage=str(config["stage"]),
        name=str(config["name"]),
        rows_in=len(ids) + rejected,
        rows_out=len(ids),
        rejected=rejected,
        reasons=dict(counts.most_common()),
        seconds=float(folder.read_json("summary.json")["seconds"])
        if folder.exists("summary.json")
        else 0.0,
    )
    return Shown(
        summary,
        folder.exists("summary.json"),
        config,
        {title: values for title, values in measures.items() if values},
        [found[i] for i in chosen if i in found],
        {reason: rejects[reason] for reason, _ in counts.most_common()},
    )


def _rejects(folder: Folder) -> tuple[Counter[str], dict[str, list[dict[str, str]]]]:
    counts: Counter[str] = Counter()
    shown: dict[str, list[dict[str, str]]] = {}
    for group in _groups(folder, None):
        for row in group.to_pylist():
            counts[row["reason"]] += 1
            some = shown.setdefault(row["reason"], [])
            if len(some) < REJECTS_SHOWN:
                some.append(row)
    return counts, shown


def _groups(
    folder: Folder, columns: list[str] | None, wanted: set[str] | None = None
) -> Iterator[pa.Table]:
    """Row groups, with the columns that are there; only those with a wanted id, if any is."""
    for name in folder.names(".parquet"):
        file = open_parquet(folder.path(name))
        there = set(file.schema_arrow.names)
        some = None if columns is None else [c for c in columns if c in there]
        for group in range(file.metadata.num_row_groups):
            if wanted is not None:
                ids = file.read_row_group(group, columns=["id"])["id"].to_pylist()
                if wanted.isdisjoint(ids):
                    continue
            yield file.read_row_group(group, columns=some)


def _rank(identity: str) -> str:
    return row_id("inspect", identity)
