"""Manifests: files that list recordings, an entry a line or row (see `das_lib.bulk.entries`).

JSONL, JSON (an array, or lines), CSV and TSV with a header, each also as ``.gz``, and Parquet. All
but a JSON array are read as a stream. TSV has no quotes: a quote is a character of its cell.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, TextIO

import pyarrow as pa

from das_lib.bulk.entries import AUDIO_COLUMNS, to_json, to_recording
from das_lib.bulk.folders import open_file
from das_lib.bulk.kinds import PARQUET_SUFFIX, manifest_suffix
from das_lib.bulk.parquets import open_parquet, plain_columns, plain_rows
from das_lib.bulk.recording import Recording
from das_lib.errors import DasError, Reject
from das_lib.speech.audio import AudioError

Entries = Iterator[tuple[int, object]]
"""Number of the line or row, from 1, and what it holds; an `AudioError`: why it holds nothing."""


def manifest_recordings(url: str) -> Iterator[Recording | Reject]:
    """What a manifest lists, in its order.

    A row that is no entry is rejected as ``<name of the manifest>:<line>``, with the reasons of
    `to_recording` and ``bad-row`` (more cells than columns, or an endless cell).

    Raises:
        DasError: the manifest cannot be read to its end, or has no column of paths.
    """
    folder, _, name = url.rpartition("/")
    for number, entry in _entries(url, manifest_suffix(name)):
        try:
            if isinstance(entry, AudioError):
                raise entry
            yield to_recording(entry, folder)
        except AudioError as error:
            yield Reject(f"{name}:{number}", error.reason, error.detail)


def _entries(url: str, suffix: str | None) -> Entries:
    number = 0
    try:
        for number, entry in _parquet(url) if suffix == PARQUET_SUFFIX else _text(url, suffix):
            yield number, entry
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise DasError(
            f"manifest {url} breaks off after line {number} ({error}); make it again"
        ) from error


def _text(url: str, suffix: str | None) -> Entries:
    with _open_text(url) as file:
        if suffix in (".csv", ".tsv"):
            quoting = csv.QUOTE_MINIMAL if suffix == ".csv" else csv.QUOTE_NONE
            delimiter = "," if suffix == ".csv" else "\t"
            yield from _cells(url, csv.reader(file, delimiter=delimiter, quoting=quoting))
        elif suffix == ".json" and _begins_with_bracket(file):
            yield from _array(url, file)
        else:
            yield from _lines(file)


@contextmanager
def _open_text(url: str) -> Iterator[TextIO]:
    with open_file(url) as file:
        binary = gzip.GzipFile(fileobj=file) if url.lower().endswith(".gz") else file
        # Without translation of line ends, which are csv's to judge inside quotes.
        yield io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")


def _begins_with_bracket(file: TextIO) -> bool:
    start = file.read(4096).lstrip()
    file.seek(0)
    return start.startswith("[")


def _lines(file: TextIO) -> Entries:
    for number, line in enumerate(file, start=1):
        if line.strip():
            entry = to_json(line)
            yield number, AudioError("no-json", line.strip()[:200]) if entry is None else entry


def _array(url: str, file: TextIO) -> Entries:
    try:
        entries = json.load(file)
    except (ValueError, RecursionError) as error:
        raise DasError(f"manifest {url} is no JSON ({error}); mend it, or write JSONL") from error
    yield from enumerate(entries, start=1)


def _cells(url: str, reader: Any) -> Entries:
    header = next(reader, [])
    _require_audio_column(url, header)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, AudioError("bad-row", str(error))
            continue
        if cells is None:
            return
        if len(cells) > len(header):
            detail = f"{len(cells)} cells for {len(header)} columns: {', '.join(cells)[:200]}"
            yield reader.line_num, AudioError("bad-row", detail)
        elif cells:
            yield reader.line_num, dict(zip(header, cells, strict=False))


def _parquet(url: str) -> Entries:
    with open_parquet(url) as file:
        columns = plain_columns(file.schema_arrow)
        _require_audio_column(url, columns)
        groups = range(file.num_row_groups)
        rows = chain.from_iterable(plain_rows(file, group, columns) for group in groups)
        yield from enumerate(rows, start=1)


def _require_audio_column(url: str, columns: Sequence[str]) -> None:
    if not set(columns) & set(AUDIO_COLUMNS):
        found = ", ".join(map(repr, columns)) or "none"
        raise DasError(
            f"manifest {url} has the columns {found}; name the one with the paths "
            f"{AUDIO_COLUMNS[0]!r}"
        )
