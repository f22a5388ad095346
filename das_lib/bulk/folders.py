"""The files below a local folder or an ``s3://`` prefix, one at a time."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from das_lib.bulk.kinds import is_left_out
from das_lib.errors import Reject
from das_lib.remote import filesystem, s3_pages
from das_lib.retry import retried
from das_lib.storage import Folder, explained

READAHEAD = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class File:
    """A name in a folder; ``size`` in bytes, or None: no regular file."""

    name: str
    """The path below the root, with ``/``."""
    url: str
    size: int | None


def walk(root: Folder) -> Iterator[File | Reject]:
    """All that is below ``root`` and not left out, in the order of the bytes of the paths.

    The order is the same on every storage. Links to folders are not followed. A folder that cannot
    be read becomes a `Reject` with ``unreadable-folder``. Memory holds one folder's names (local),
    or a page of 1,000 (s3).

    Raises:
        StorageError: the root cannot be read; s3 was asked several times, see `das_lib.retry`.
    """
    return _walk_local(os.fsencode(root.url)) if root.is_local else _walk_s3(root)


def file_size(file: Folder) -> int | None:
    """Bytes of what may be a single file; None: it is none, or is not there.

    Raises:
        StorageError: s3 cannot be reached or refuses.
    """
    if file.is_local:
        return _size(os.fsencode(file.url))
    with explained(file.url, "read"):
        try:
            info = retried(lambda: filesystem(file.url).info(file.url), file.url)
        except FileNotFoundError:
            return None
    return info["size"] if info["type"] == "file" else None


def open_file(url: str, readahead: int = READAHEAD) -> BinaryIO:
    """A file to read and to seek in, local or s3.

    ``readahead`` are the bytes that s3 is asked for beyond those that are read; 0: none.

    Raises:
        StorageError: it is missing or cannot be read; reading from it raises that, too.
    """
    folder, _, name = url.rpartition("/")
    how = {"block_size": readahead} if readahead else {"cache_type": "none"}
    return Folder(folder).open(name, **how)


def _walk_local(root: bytes) -> Iterator[File | Reject]:
    with explained(os.fsdecode(root), "read"):
        stack = [(b"", _names(root))]
    while stack:
        folder, names = stack[-1]
        if not names:
            stack.pop()
            continue
        path = folder + names.pop()
        name = path.decode("utf-8", "surrogateescape")
        if not path.endswith(b"/"):
            yield File(name, f"{os.fsdecode(root)}/{name}", _size(root + b"/" + path))
            continue
        try:
            stack.append((path, _names(root + b"/" + path)))
        except OSError as error:
            yield Reject(name, "unreadable-folder", error.strerror or str(error))


def _names(folder: bytes) -> list[bytes]:
    """Names in a folder, last first; a folder's has a slash, so that its content sorts as on s3."""
    with os.scandir(folder) as entries:
        found = [e.name + b"/" if e.is_dir(follow_symlinks=False) else e.name for e in entries]
    kept = (n for n in found if not is_left_out(os.fsdecode(n.rstrip(b"/"))))
    return sorted(kept, reverse=True)


def _size(path: bytes) -> int | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _walk_s3(root: Folder) -> Iterator[File]:
    bucket = root.url.removeprefix("s3://").partition("/")[0]
    pages = s3_pages(root.url)
    while True:
        with explained(root.url, "read"):
            prefix, page = next(pages, ("", None))
        if page is None:
            return
        for entry in page.get("Contents", ()):
            name = entry["Key"].removeprefix(prefix)
            if not name.endswith("/") and name and not is_left_out(name):
                yield File(name, f"s3://{bucket}/{entry['Key']}", entry["Size"])
