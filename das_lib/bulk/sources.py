"""What a corpus consists of: the recordings of a folder, an archive, a manifest, or one file."""

from collections.abc import Iterator

from das_lib.bulk.archives import parquet_recordings, tar_recordings
from das_lib.bulk.folders import File, file_size, walk
from das_lib.bulk.kinds import (
    AUDIO_SUFFIXES,
    PARQUET_SUFFIX,
    TAR_SUFFIX,
    TEXT_MANIFEST_SUFFIXES,
    is_audio,
    is_name,
    is_tar,
    manifest_suffix,
    printable,
)
from das_lib.bulk.manifests import manifest_recordings
from das_lib.bulk.parquets import holds_bytes
from das_lib.bulk.recording import Recording
from das_lib.bulk.seen import SeenIds
from das_lib.errors import DasError, Reject
from das_lib.storage import Folder

Found = Iterator[Recording | Reject | None]
"""None stands for a file that is no audio."""


def list_recordings(source: str) -> "Listing":
    """All recordings of a source, as a stream, in an order that stays the same.

    A source is, local or on ``s3://``:

        a folder        every audio file below it, and what the tars and Parquet files there hold;
                        hidden files and folders and ``*.tmp`` are left out
        an archive      a tar (WebDataset) or a Parquet file with a column of bytes
        a manifest      JSONL, JSON, CSV, TSV (each also ``.gz``) or Parquet without bytes; see
                        `das_lib.bulk.entries`
        an audio file

    A recording is called by its path below the source, ``archive/member``, ``archive#row``, or by
    what the manifest says. The first of an id stays; the others are rejected with
    ``duplicate-id``. Ids are unique over recordings and rejects.

    Nothing is read before the first is asked for; then it

    Raises:
        DasError: the source is missing, cannot be read, is of no known kind or holds nothing.
    """
    return Listing(source)


class Listing(Iterator[Recording | Reject]):
    """See `list_recordings`.

    ``skipped`` counts, so far, the files that are no audio, those in tars included.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.skipped = 0
        self._seen = SeenIds()
        self._found = _find(source)

    def __next__(self) -> Recording | Reject:
        for item in self._found:
            if item is not None:
                return self._with_own_id(item)
            self.skipped += 1
        if not len(self._seen):
            raise DasError(
                f"no audio below {self.source} ({self.skipped} other files); name a folder or a "
                f"manifest of recordings that end in {_endings(*AUDIO_SUFFIXES)}, or of "
                f"{TAR_SUFFIX} or {PARQUET_SUFFIX} files that hold them"
            )
        raise StopIteration

    def _with_own_id(self, item: Recording | Reject) -> Recording | Reject:
        if isinstance(item, Recording):
            if not is_name(item.id + item.url):
                item = Reject(item.id, "bad-name", f"{item.url!r} is no UTF-8; rename it")
            elif self._seen.add(item.id):
                return item
            else:
                item = Reject(item.id, "duplicate-id", item.url)
        id = self._seen.unique(printable(item.id))
        return Reject(id, item.reason, printable(item.detail))


def _find(source: str) -> Found:
    if "://" in source and not source.startswith(("s3://", "file://")):
        raise DasError(f"source {source} is no local path and no s3:// address; copy it to one")
    if not source:
        raise DasError("source is empty; name a folder, a manifest or an audio file")
    root = Folder(source)
    size = file_size(root)
    if size is None:
        yield from _folder(root)
        return
    name = root.url.rpartition("/")[2]
    is_parquet = name.lower().endswith(PARQUET_SUFFIX)
    if manifest_suffix(name) and not (is_parquet and holds_bytes(root.url)):
        yield from manifest_recordings(root.url)
    elif is_audio(name) or is_parquet or is_tar(name):
        yield from _file(File(name, root.url, size), prefix="")
    else:
        raise DasError(
            f"source {source} is of no known kind; name a folder, a manifest "
            f"({_endings(*TEXT_MANIFEST_SUFFIXES, PARQUET_SUFFIX)}), an archive "
            f"({_endings(TAR_SUFFIX, PARQUET_SUFFIX)}) or audio ({_endings(*AUDIO_SUFFIXES)})"
        )


def _folder(root: Folder) -> Found:
    for item in walk(root):
        if isinstance(item, Reject):
            yield item
        else:
            yield from _file(item, prefix=f"{item.name}/")


def _file(file: File, prefix: str) -> Found:
    """What a file holds; ``prefix`` goes before the names of a tar's members."""
    name = file.name.lower()
    if not (is_audio(name) or is_tar(name) or name.endswith(PARQUET_SUFFIX)):
        yield None
    elif file.size is None:
        yield Reject(file.name, "not-a-file", "a link to nothing or to a folder, or a device")
    elif is_audio(name):
        yield Recording(id=file.name, url=file.url, size=file.size)
    elif name.endswith(PARQUET_SUFFIX):
        yield from parquet_recordings(file.url, file.name)
    elif name.endswith(TAR_SUFFIX):
        yield from tar_recordings(file.url, file.name, prefix)
    else:
        yield Reject(
            file.name, "compressed-archive", "unpack it to .tar: members are found by seek"
        )


def _endings(*suffixes: str) -> str:
    return ", ".join(suffixes)
