"""One folder API for local paths and ``s3://``; what appears under a name is whole.

What fails and may pass is asked for again, see `das_lib.retry`.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from das_lib.errors import StorageError
from das_lib.remote import Window, filesystem, open_remote, s3_pages
from das_lib.retry import error_text, retried

TEMPORARY_SUFFIX = ".tmp"
_T = TypeVar("_T")


class Folder:
    """A folder on any storage that fsspec knows; pickles as its address alone.

    Files are written under a temporary name and renamed (local), or put in one request (s3), so a
    reader never sees half a file, whatever is killed.
    """

    def __init__(self, url: str | Path) -> None:
        url = str(url)
        self.is_local = "://" not in url or url.startswith("file://")
        self.url = os.path.abspath(url.removeprefix("file://")) if self.is_local else url
        self.url = self.url.rstrip("/")

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Folder({self.url!r})"

    def __reduce__(self) -> tuple[type["Folder"], tuple[str]]:
        return Folder, (self.url,)

    @cached_property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The filesystem that holds the folder, for others' use: it retries in its own way."""
        # Listings must be fresh: other processes write here.
        return fsspec.url_to_fs(
            self.url, **({} if self.is_local else {"use_listings_cache": False})
        )[0]

    def path(self, name: str) -> str:
        """Address of a file in the folder, with the scheme that readers need."""
        return f"{self.url}/{name}"

    def exists(self, name: str) -> bool:
        """Whether the file is there, whole."""
        return _asked(lambda: filesystem(self.url).exists(self.path(name)), self.url, "read")

    def names(self, suffix: str = "") -> list[str]:
        """Sorted names of the whole files directly in the folder."""
        with explained(self.url, "read"):
            try:
                names = self._names()
            except FileNotFoundError:
                return []
        return sorted(n for n in names if n.endswith(suffix) and not n.endswith(TEMPORARY_SUFFIX))

    def _names(self) -> list[str]:
        if self.url.startswith("s3://"):
            pages = s3_pages(self.url, "/")
            keys = (
                (prefix, entry["Key"]) for prefix, p in pages for entry in p.get("Contents", ())
            )
            return [key.removeprefix(prefix) for prefix, key in keys if key != prefix]
        entries = retried(lambda: filesystem(self.url).ls(self.url, detail=False), self.url)
        return [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries]

    def open(self, name: str, **how: Any) -> BinaryIO:
        """A file to read and to seek in; beyond this machine, every read is retried.

        ``how`` is passed on to fsspec where the file is remote.

        Raises:
            StorageError: it is missing or cannot be read; reading from it raises that, too.
        """
        path = self.path(name)
        with explained(path, "read"):
            if self.is_local:
                return open(path, "rb")
            file = open_remote(path, **how)
            size = cast(int, file.size)  # type: ignore[attr-defined]
            return cast(BinaryIO, Window(file, 0, size, path, _read))

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            StorageError: it is missing or cannot be read.
        """
        path = self.path(name)
        return _asked(lambda: cast(bytes, filesystem(self.url).cat_file(path)), path, "read")

    def read_json(self, name: str) -> Any:
        """Content of a JSON file."""
        return json.loads(self.read(name))

    def write(self, name: str, content: bytes) -> None:
        """Put a whole file under its name, replacing an older one.

        Raises:
            StorageError: no room, no right, or the storage cannot be reached.
        """
        path = self.path(name)
        write = self._write_local if self.is_local else filesystem(self.url).pipe_file
        _asked(lambda: write(path, content), path, "write")

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write bit by bit; it has its name when the block ends without error.

        Raises:
            StorageError: as `write`.
        """
        path = self.path(name)
        with explained(path, "write"):
            if self.is_local:
                with _renamed(path) as file:
                    yield file
                return
            with tempfile.NamedTemporaryFile() as file:
                yield cast(BinaryIO, file)
                file.flush()
                retried(lambda: filesystem(self.url).put_file(file.name, path), path)

    def _write_local(self, path: str, content: bytes) -> None:
        with _renamed(path) as file:
            file.write(content)

    def write_json(self, name: str, value: Any) -> None:
        """Put a JSON file, indented for people."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StorageError: the storage refuses.
        """
        path = self.path(name)
        with explained(path, "remove"), suppress(FileNotFoundError):
            retried(lambda: filesystem(self.url).rm_file(path), path)

    def upload(self, source: Path) -> None:
        """Copy the files of a local folder into this one; its marker is the caller's to write."""
        for file in sorted(source.rglob("*")):
            if file.is_file():
                self.write(file.relative_to(source).as_posix(), file.read_bytes())

    def to_local(self, cache: Path) -> Path:
        """The folder as a local path: itself, or a copy of its files under ``cache``."""
        if self.is_local:
            return Path(self.url)
        cache.mkdir(parents=True, exist_ok=True)
        for name in self.names():
            (cache / name).write_bytes(self.read(name))
        return cache

    def clean(self) -> None:
        """Remove what killed writers left under temporary names."""
        if self.is_local and os.path.isdir(self.url):
            for leftover in Path(self.url).glob(f"*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)

    def require_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            StorageError: the folder cannot be written.
        """
        name = f".probe-{os.getpid()}"
        self.write(name, b"das")
        self.remove(name)


def read_file(url: str) -> bytes:
    """A file's content, local or s3.

    Raises:
        StorageError: it is missing or cannot be read.
    """
    parent, _, name = url.rpartition("/")
    return Folder(parent or ".").read(name)


def file_hash(url: str) -> str:
    """Hash of a file's content; see `read_file`."""
    return hashlib.sha256(read_file(url)).hexdigest()[:16]


@contextmanager
def _renamed(path: str) -> Iterator[BinaryIO]:
    """A local file under a temporary name, which it loses when the block ends without error."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}{TEMPORARY_SUFFIX}"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A local folder to write in, which gets the name ``out`` when the block ends without error.

    An older folder of that name is replaced.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(operation: Callable[[], bytes], url: str) -> bytes:
    return _asked(operation, url, "read")


def _asked(operation: Callable[[], _T], url: str, verb: str) -> _T:
    """What the operation gives, retried.

    Raises:
        StorageError: it does not succeed.
    """
    with explained(url, verb):
        return retried(operation, url)


class explained:  # noqa: N801 - reads as a verb: with explained(path, "write")
    """Turn a storage failure into a `StorageError` that says what to do."""

    def __init__(self, path: str, verb: str) -> None:
        self.path, self.verb = path, verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, StorageError) or not isinstance(error, Exception):
            return
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            parent = os.path.dirname(self.path)
            free = shutil.disk_usage(parent).free if os.path.isdir(parent) else 0
            raise StorageError(
                f"cannot write {self.path}: the disk is full ({free / 2**20:.0f} MiB free); free "
                "room or set output to another disk, then run the same command: it resumes"
            ) from error
        remedy = (
            "check the path and its rights"
            if "://" not in self.path
            else "check the bucket, the credentials (AWS_*) and AWS_ENDPOINT_URL"
        )
        raise StorageError(
            f"cannot {self.verb} {self.path}: {error_text(error)}; {remedy}"
        ) from error
