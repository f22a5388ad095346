"""Recordings inside other files: members of a tar (WebDataset), rows of a Parquet file.

Both are listed without reading the sound. Rows have the form of Hugging Face datasets: a column of
bytes, or of structs with ``bytes`` and ``path``.
"""

import bisect
import itertools
import posixpath
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from das_lib.bulk.entries import take, to_extra, to_json
from das_lib.bulk.folders import open_file
from das_lib.bulk.kinds import is_audio, is_left_out, resolve
from das_lib.bulk.parquets import (
    READ_BYTES,
    bytes_columns,
    leaf,
    open_parquet,
    path_column,
    plain_columns,
    plain_rows,
)
from das_lib.bulk.recording import Recording
from das_lib.errors import DasError, Reject
from das_lib.speech.audio import AudioError

KEY_COLUMNS = ("id", "utt_id", "key")
CACHE_BYTES = 2**26  # of the rows that `read_row` keeps
NULLS_PER_BATCH = 16  # rows whose bytes are read to find which of them are null
MAX_TEXT_BYTES = 2**20  # a longer text in a tar is not read
MAX_SAMPLE = 1000  # members of one key that are looked at together

_BROKEN_PARQUET = (OSError, DasError, pa.ArrowException)
_BROKEN_TAR = (OSError, ValueError, ArithmeticError, tarfile.TarError)  # a DasError is a ValueError


def tar_recordings(url: str, name: str, prefix: str) -> Iterator[Recording | Reject | None]:
    """The members of a tar that are audio, called ``prefix`` and their name; None for others.

    A ``.json`` or ``.txt`` beside a member, of the same name or the same WebDataset key, goes into
    its ``extra``: the JSON object's values, or ``{"text": ...}``. Hidden members are left out. A
    tar that breaks off gives the members before, then a `Reject` called ``name``, the tar's path
    below the root, with ``bad-archive``.
    """
    broken = None
    sample: list[_Member] = []
    try:
        for member in _members(url):
            if sample and (member.key != sample[0].key or len(sample) == MAX_SAMPLE):
                yield from _sample(sample, url, prefix)
                sample = []
            sample.append(member)
    except _BROKEN_TAR as error:
        broken = Reject(name, "bad-archive", str(error))
    yield from _sample(sample, url, prefix)
    if broken:
        yield broken


def parquet_recordings(url: str, name: str) -> Iterator[Recording | Reject | None]:
    """The rows of a Parquet file whose column of bytes is ``audio`` or the only one.

    A row is called by its ``id``, ``utt_id`` or ``key``, else ``name#row``, ``name`` being the
    file's path below the root. Where the bytes are null and the struct has a ``path``, that is the
    recording, else the row is rejected with ``no-audio``. The file is rejected with ``bad-archive``
    from where it breaks off, or if several columns hold bytes. A file without bytes is one None.
    The bytes are read only of row groups in which some are null and others not.
    """
    try:
        with open_parquet(url) as file:
            columns = bytes_columns(file.schema_arrow)
            if len(columns) > 1:
                listed = ", ".join(columns)
                yield Reject(name, "bad-archive", f"bytes in {listed}; call the right one 'audio'")
            elif columns:
                yield from _rows(file, url, name, columns[0])
            else:
                yield None
    except _BROKEN_PARQUET as error:
        yield Reject(name, "bad-archive", str(error))


def read_row(url: str, row: int, column: str) -> bytes:
    """The bytes of a row that `parquet_recordings` found.

    Rows in rising order are read once: for each thread, the file stays open and the rows that were
    read with the last one are kept, about 64 MiB beside a page of the file.

    Raises:
        AudioError: ``no-audio`` (null), or ``bad-archive`` (the file cannot be read, or has no such
            row or column).
    """
    try:
        reader = getattr(_last, "reader", None)
        if reader is None or (reader.url, reader.column) != (url, column):
            _last.reader = None  # frees its rows before the next ones come
            reader = _last.reader = _RowReader(url, column)
        content = reader.read(row)
    except (*_BROKEN_PARQUET, LookupError, StopIteration) as error:
        _last.reader = None
        raise AudioError("bad-archive", f"row {row} of {column} in {url}: {error}") from error
    if content is None:
        raise AudioError("no-audio", f"row {row} of {column} in {url} is null")
    return content


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    key: str
    offset: int
    size: int
    problem: tuple[str, str] | None
    text: bytes | None


def _members(url: str) -> Iterator[_Member]:
    """The files of a tar that are whole and not hidden.

    Raises:
        tarfile.TarError: the tar is none or breaks off; so do the others of `_BROKEN_TAR`.
    """
    with open_file(url) as file:
        length = file.seek(0, 2)
        file.seek(0)
        end = 0
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while (info := tar.next()) is not None:
                # Else it keeps all that it has seen.
                tar.members.clear()  # type: ignore[attr-defined]
                name = info.name.removeprefix("./")
                if info.offset_data < end or info.size < 0:  # a forged header would never end
                    raise tarfile.ReadError(f"{name} begins inside another member")
                end = info.offset_data
                if info.isreg() and info.offset_data + info.size > length:
                    raise tarfile.ReadError(f"it ends inside {name}")
                if info.isdir() or is_left_out(name):
                    continue
                problem = None
                if not info.isreg() or info.issparse():
                    problem = ("not-a-file", "a link, a device or sparse; pack plain files")
                text = None
                if name.endswith((".json", ".txt")) and not problem and info.size <= MAX_TEXT_BYTES:
                    file.seek(info.offset_data)
                    text = file.read(info.size)
                folder, slash, base = name.rpartition("/")
                key = folder + slash + base.partition(".")[0]  # as WebDataset has it
                yield _Member(name, key, info.offset_data, info.size, problem, text)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes it for the end
                raise tarfile.ReadError(f"no header at byte {tar.offset}")


def _sample(members: list[_Member], url: str, prefix: str) -> Iterator[Recording | Reject | None]:
    """Recordings among members of one key, with the texts beside them."""
    texts: dict[str, dict[str, object]] = {}
    for member in members:
        if member.text is not None:
            stem, suffix = posixpath.splitext(member.name)
            content = member.text.decode("utf-8", "replace")
            value = {"text": content.strip()} if suffix == ".txt" else to_json(content)
            if isinstance(value, dict):
                texts.setdefault(stem, {}).update(value)
    for member in members:
        id = f"{prefix}{member.name}"
        if not is_audio(member.name):
            yield None
        elif member.problem:
            yield Reject(id, *member.problem)
        else:
            stem = posixpath.splitext(member.name)[0]
            yield Recording(
                id=id,
                url=url,
                byte_offset=member.offset,
                byte_length=member.size,
                size=member.size,
                extra=to_extra(texts.get(stem) or texts.get(member.key) or {}),
            )


def _rows(file: pq.ParquetFile, url: str, name: str, column: str) -> Iterator[Recording | Reject]:
    folder = url.rpartition("/")[0]
    columns = plain_columns(file.schema_arrow)
    path = path_column(file.schema_arrow, column)
    row = 0
    for group in range(file.num_row_groups):
        rows = plain_rows(file, group, [*columns, *([path] if path else [])])
        for values, is_there in zip(rows, _present(file, group, column), strict=True):
            other = values.pop(path) if path else None
            key = take(values, KEY_COLUMNS)
            id = f"{name}#{row}" if key is None else str(key)
            extra = to_extra(values)
            if is_there:
                yield Recording(id=id, url=url, row=row, column=column, extra=extra)
            elif other:
                yield Recording(id=id, url=resolve(folder, other), extra=extra)
            else:
                yield Reject(id, "no-audio", f"row {row} of {url} has neither bytes nor a path")
            row += 1


def _present(file: pq.ParquetFile, group: int, column: str) -> Iterator[bool]:
    """For each row of a group whether its bytes are there, from the footer where it can tell."""
    count, nulls = file.metadata.row_group(group).num_rows, 0
    statistics = _chunk(file, group, column).statistics
    if statistics is not None and statistics.has_null_count:
        nulls = statistics.null_count
    if nulls in (0, count):
        return itertools.repeat(nulls == 0, count)
    batches = file.iter_batches(NULLS_PER_BATCH, row_groups=[group], columns=[column])
    return (valid for batch in batches for valid in leaf(batch, column).is_valid().to_pylist())


def _chunk(file: pq.ParquetFile, group: int, column: str) -> pq.ColumnChunkMetaData:
    places = {file.schema.column(place).path: place for place in range(len(file.schema.names))}
    return file.metadata.row_group(group).column(places[column])


class _RowReader:
    """Reads a column in batches; a row that lies ahead in the same row group costs no seek."""

    def __init__(self, url: str, column: str) -> None:
        self.url, self.column = url, column
        self._file = pq.ParquetFile(open_file(url, readahead=0), buffer_size=READ_BYTES)
        metadata = self._file.metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = list(itertools.accumulate(counts, initial=0))
        self._group, self._first = -1, 0
        self._batch = pa.array([], pa.binary())
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def read(self, row: int) -> bytes | None:
        """The bytes of a row, counted over the whole file; None: they are null.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"the file has {self._starts[-1]} rows")
        group = bisect.bisect_right(self._starts, row) - 1
        if group != self._group or row < self._first:
            self._begin(group)
        while row >= self._first + len(self._batch):
            self._first += len(self._batch)
            self._batch = leaf(next(self._batches), self.column)
        return self._batch[row - self._first].as_py()

    def _begin(self, group: int) -> None:
        chunk = _chunk(self._file, group, self.column)
        mean = max(1, chunk.total_uncompressed_size // max(1, chunk.num_values))
        size = max(1, CACHE_BYTES // mean)
        self._batches = self._file.iter_batches(
            size, row_groups=[group], columns=[self.column], use_threads=False
        )
        self._group, self._first = group, self._starts[group]
        self._batch = pa.array([], pa.binary())


_last = threading.local()
