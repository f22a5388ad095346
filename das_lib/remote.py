"""Files on storage beyond this machine, asked for in a way that can be asked again."""

import errno
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import fsspec
import fsspec.config

from das_lib.retry import retried

Ask = Callable[[Callable[[], bytes], str], bytes]
"""Reads from a file of that address, see `retried`."""


def filesystem(url: str) -> fsspec.AbstractFileSystem:
    """The filesystem of an address; s3 fails at the first failure, for `retried` to ask again.

    botocore and s3fs retry too, each by itself: the attempts would multiply, unseen and for longer
    than `das_lib.retry.MAX_SECONDS`. A request that is not answered fails after 15 s, a connection
    after 5 s; the environment may say otherwise, as fsspec has it:
    ``FSSPEC_S3_CONFIG_KWARGS='{"read_timeout": 60, "connect_timeout": 10}'``.
    """
    if not url.startswith("s3://"):
        return fsspec.url_to_fs(url)[0]
    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    once = {**given, "retries": {"total_max_attempts": 1}}
    # Listings must be fresh: other processes write here.
    fs = fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=once)
    fs.retries = 1  # type: ignore[attr-defined]
    return fs


def open_remote(url: str, **how: Any) -> BinaryIO:
    """A file to read, as it is opened by its `filesystem`; only opening it is retried.

    ``how`` is passed on to fsspec.

    Raises:
        Exception: see `retried`.
    """
    return retried(lambda: _open(url, how), url)


def _open(url: str, how: dict[str, Any]) -> BinaryIO:
    file = filesystem(url).open(url, "rb", **how)
    if getattr(file, "details", {}).get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    return cast(BinaryIO, file)


def s3_pages(url: str, delimiter: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Pages of ListObjectsV2 of all that is below an ``s3://`` address, each retried.

    With the delimiter ``/``, what is in folders is left out. Every page comes with the part of the
    keys that is the address.

    Raises:
        Exception: see `retried`.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    request = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter}
    fs: Any = retried(lambda: filesystem(url), url)
    while True:
        page = retried(lambda: fs.call_s3("list_objects_v2", **request), url)
        yield prefix, page
        if not page["IsTruncated"]:
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


class Window(io.RawIOBase):
    """Bytes ``start`` to ``start + length`` of a file, whose reads ``ask`` retries; closes it."""

    def __init__(self, file: BinaryIO, start: int, length: int, url: str, ask: Ask) -> None:
        self._file, self._start, self._length = file, start, length
        self._url, self._ask = url, ask
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position in the window, also behind its end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}: before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill the buffer, or as much of it as there is to the end of the window.

        Raises:
            Exception: what ``ask`` raises.
        """
        count = min(len(buffer), self._length - self._position)
        if count <= 0:
            return 0
        content = self._ask(lambda: self._read(count), self._url)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def readall(self) -> bytes:
        """What is left, in one read."""
        return self.read(max(0, self._length - self._position)) or b""

    def _read(self, count: int) -> bytes:
        self._file.seek(self._start + self._position)
        return self._file.read(count)

    def close(self) -> None:
        """Close the file, too."""
        if not self.closed:
            self._file.close()
        super().close()
