"""The bytes of a recording, wherever they are; storage that stumbles is asked again."""

import io
import os
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from das_lib.bulk.recording import Recording
from das_lib.remote import Window, filesystem, open_remote
from das_lib.retry import GaveUpError, causes, error_text, retried, s3_response
from das_lib.speech.audio import AudioError

WHOLE = 64 * 2**20  # bytes: up to this, a recording is read in one request and held in memory
BLOCK = 8 * 2**20  # bytes that a request for a part of a longer one reads
BLOCKS = 4  # of them that are held: an MP4 jumps between its index and its sound
BUFFER = 2**18  # bytes read at once from a member of a tar

_T = TypeVar("_T")


def open_recording(recording: Recording) -> BinaryIO:
    """The file of a recording, at its beginning, to read and to seek in.

    A member of a tar is a window over the tar. What lies on remote storage is held in memory up to
    `WHOLE` bytes and read block by block beyond, see `das_lib.retry`; so reading from the file may
    raise what opening it may.

    Raises:
        AudioError: ``missing-audio``, ``empty-audio`` (no bytes), ``truncated`` (the tar ends
            inside the member), ``denied``, ``storage`` (the storage failed again and again, or
            in a way that does not pass), or what `read_row` says of a row of a Parquet file.
    """
    url = recording.url
    if recording.byte_offset is not None and not recording.byte_length:
        raise AudioError("empty-audio", f"{url}: a member of 0 bytes")
    if recording.row is not None:
        from das_lib.bulk.archives import read_row

        row, column = recording.row, recording.column or ""
        return _held(_retried(lambda: read_row(url, row, column), url), url)
    if "://" not in url or url.startswith("file://"):
        return _open_local(recording, url.removeprefix("file://"))
    return _open_remote(recording)


def _open_local(recording: Recording, path: str) -> BinaryIO:
    status = _retried(lambda: os.stat(path), path)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise AudioError("missing-audio", f"{path}: is {what}")
    if not status.st_size:
        raise AudioError("empty-audio", f"{path}: 0 bytes")
    file = _retried(lambda: open(path, "rb"), path)  # noqa: SIM115 - the caller closes it
    if recording.byte_offset is None:
        return file
    return _member(file, recording, status.st_size)


def _open_remote(recording: Recording) -> BinaryIO:
    url, start = recording.url, recording.byte_offset or 0
    is_member = recording.byte_offset is not None
    size = recording.byte_length if is_member else recording.size
    fs = _retried(lambda: filesystem(url), url)
    if size is not None and size <= WHOLE:
        # The listing may be old: one byte more tells whether the object has grown beyond.
        end = start + (size if is_member else WHOLE + 1)
        content = _retried(lambda: _cat(fs, url, start, end), url)
        if is_member and len(content) < size:
            raise _short_tar(recording, start + len(content))
        if len(content) <= WHOLE:
            return _held(content, url)
    blocks: dict[str, Any] = {"maxblocks": BLOCKS}
    file = _explained(
        lambda: open_remote(url, block_size=BLOCK, cache_type="blockcache", cache_options=blocks),
        url,
    )
    length = cast(int, file.size)  # type: ignore[attr-defined]
    if is_member:
        return _member(file, recording, length)
    if length > WHOLE:
        return _window(file, 0, length, url)
    file.close()
    return _held(_retried(lambda: _cat(fs, url, 0, WHOLE + 1), url), url)


def _cat(fs: fsspec.AbstractFileSystem, url: str, start: int, end: int) -> bytes:
    try:
        return cast(bytes, fs.cat_file(url, start=start, end=end))
    except OSError as error:
        if s3_response(error).get("Error", {}).get("Code") in ("InvalidRange", "416"):
            return b""  # the object ends before
        raise


def _member(file: BinaryIO, recording: Recording, size: int) -> BinaryIO:
    """The member of an open tar of ``size`` bytes."""
    start, length = recording.byte_offset or 0, recording.byte_length or 0
    if start + length > size:
        file.close()
        raise _short_tar(recording, size)
    if length > WHOLE:
        return _window(file, start, length, recording.url)
    with _window(file, start, length, recording.url) as window:
        return _held(window.read(), recording.url)


def _window(file: BinaryIO, start: int, length: int, url: str) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(Window(file, start, length, url, _retried), BUFFER))


def _held(content: bytes, url: str) -> BinaryIO:
    if not content:
        raise AudioError("empty-audio", f"{url}: 0 bytes")
    return io.BytesIO(content)


def _short_tar(recording: Recording, size: int) -> AudioError:
    end = (recording.byte_offset or 0) + (recording.byte_length or 0)
    detail = f"{recording.url}: the member ends at byte {end}, the archive at {size}"
    return AudioError("truncated", detail)


def _retried(operation: Callable[[], _T], url: str) -> _T:
    """What the operation gives, see `retried`.

    Raises:
        AudioError: see `open_recording`.
    """
    return _explained(lambda: retried(operation, url), url)


def _explained(operation: Callable[[], _T], url: str) -> _T:
    """What the operation gives.

    Raises:
        AudioError: see `open_recording`.
    """
    try:
        return operation()
    except Exception as error:  # botocore's errors share no base with OSError
        raise _audio_error(error, url) from error


def _audio_error(error: BaseException, url: str) -> AudioError:
    """An error that will not pass, with its reason."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    chain = list(causes(error))
    missing = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
    denied = (PermissionError, NoCredentialsError, PartialCredentialsError)
    for cause in chain:
        if isinstance(cause, missing):
            link = " (a link to nothing)" if os.path.islink(url) else ""
            return AudioError("missing-audio", f"{url}: {error_text(cause)}{link}")
        if isinstance(cause, denied):
            return AudioError("denied", f"{url}: {error_text(cause)}")
        if isinstance(cause, GaveUpError):
            return AudioError("storage", f"{url}: {error_text(cause)}")
    if isinstance(error, AudioError):
        return AudioError(error.reason, error.detail)
    return AudioError("storage", f"{url}: {error_text(error)}")
