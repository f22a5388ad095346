"""A recording of any form -> blocks of 16 kHz mono; memory does not grow with its length."""

import errno
import io
import math
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import BinaryIO, cast

import av.error
import numpy as np
import soxr

from das_lib.bulk.decoders import LIBRARY_ERRORS, FFmpeg, Sndfile, first_line
from das_lib.speech.audio import SAMPLE_RATE, Audio, AudioError

MIN_RATE, MAX_RATE = 1_000, 1_000_000  # Hz; others are from damaged headers
MAX_BOXES = 1_000  # of an MP4, at its top
MP4_BEGINS = (b"ftyp", b"free", b"mdat", b"moov", b"skip", b"wide")


def decode(
    file: BinaryIO,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channel: int | None = None,
    block_s: float = 30.0,
) -> Iterator[Audio]:
    """Blocks of ``block_s``, the last one shorter, of the part from ``start_s`` on.

    ``duration_s`` None is: to the end; a part may reach beyond it. ``channel`` counts from 0; None
    is the mean of all. The file stays open. Whatever its bytes are, no other error comes than:

    Raises:
        AudioError: before the first block, or after blocks that are good: ``empty-audio`` (no
            samples), ``not-audio`` (neither libsndfile nor FFmpeg knows it), ``no-audio-stream``
            (a video without sound), ``encrypted``, ``channel-missing``, ``out-of-range`` (nothing
            is left of the part), ``truncated`` (it cannot be decoded to the end, or ends
            before its header says), ``not-finite`` (samples), or ``storage`` and what else reading
            the file raises.
    """
    watched = _Watched(file)
    try:
        with (
            closing(_reader(watched)) as reader,
            closing(_part(reader, start_s, duration_s, channel)) as part,
        ):
            size = max(1, round(block_s * SAMPLE_RATE))
            yield from _blocks(_finite(_resampled(part)), size)
    except LIBRARY_ERRORS as error:  # an AudioError is a ValueError
        raise _explained(watched.error or error) from error
    if watched.error:
        raise _explained(watched.error)


def duration(file: BinaryIO) -> float | None:
    """Seconds that the header of a file promises; None: it does not say, or is none.

    Raises:
        AudioError: the file cannot be read; see `open_recording`.
    """
    watched = _Watched(file)
    length_s = None
    with suppress(*LIBRARY_ERRORS), closing(_reader(watched)) as reader:
        length_s = reader.length_s
    if watched.error:
        raise _explained(watched.error)
    return length_s


class _Watched:
    """A file to read that keeps what went wrong: libsndfile's callbacks cannot pass errors on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: Exception | None = None

    def read(self, size: int = -1, /) -> bytes:
        try:
            return b"" if self.error else self._file.read(size)
        except Exception as error:
            self.error = error
            return b""

    def readinto(self, buffer: memoryview, /) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return self._file.seek(offset, whence)
        except Exception as error:
            # A damaged header sends us before the beginning, or beyond all numbers.
            is_nowhere = isinstance(error, ValueError | OverflowError) and not self._file.closed
            if not is_nowhere and getattr(error, "errno", None) != errno.EINVAL:
                self.error = error
            return -1

    def tell(self) -> int:
        # libsndfile asks once more when it is closed, and then the file may be closed already.
        return -1 if self._file.closed else self._file.tell()


def _reader(file: _Watched) -> Sndfile | FFmpeg:
    """The file in the library that reads it best; see `das_lib.bulk.decoders`."""
    size = file.seek(0, io.SEEK_END)
    if not size:
        raise AudioError("empty-audio", "0 bytes")
    stream = cast(BinaryIO, file)
    length_s, why = None, ""
    try:
        sound = Sndfile(stream)
    except LIBRARY_ERRORS as error:
        why = f"libsndfile: {first_line(error)}; "
    else:
        if sound.format not in ("MP3", "OGG"):
            return sound
        length_s = sound.length_s
        sound.close()
    try:
        return FFmpeg(stream, length_s)
    except AudioError:
        raise
    except LIBRARY_ERRORS as error:
        if _is_cut_mp4(file, size):
            raise AudioError("truncated", "an MP4 that ends before its index (moov)") from error
        raise AudioError("not-audio", f"{why}FFmpeg: {first_line(error)}") from error


def _is_cut_mp4(file: _Watched, size: int) -> bool:
    """Whether the boxes of an MP4 reach beyond its end."""
    place = 0
    for number in range(MAX_BOXES):
        file.seek(place)
        head = file.read(16)
        if number == 0 and head[4:8] not in MP4_BEGINS:
            return False
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        place += length
        if length < 8 or place >= size:
            break
    return place > size


def _part(
    reader: Sndfile | FFmpeg, start_s: float, duration_s: float | None, channel: int | None
) -> Generator[tuple[int, Audio], None, None]:
    """Rate and samples of the part."""
    asked = f"start_s={start_s:g}"
    if duration_s is not None:
        asked += f", duration_s={duration_s:g}"
    end_s = math.inf if duration_s is None else start_s + duration_s
    if not 0 <= start_s < min(end_s, math.inf):
        raise AudioError("out-of-range", f"{asked}: no part of a recording")
    is_empty = True
    for rate, place, samples in reader.pieces(start_s, channel):
        if not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError("not-audio", f"{rate} Hz; {MIN_RATE} to {MAX_RATE} can be heard")
        first = max(0, round(start_s * rate) - place)
        stop = len(samples) if end_s == math.inf else max(0, round(end_s * rate) - place)
        if first < min(stop, len(samples)):
            is_empty = False
            yield rate, samples[first:stop]
        if end_s != math.inf and stop <= len(samples):
            break
    if is_empty and not reader.heard_s:
        raise AudioError("empty-audio", "no samples")
    if is_empty:
        raise AudioError("out-of-range", f"{asked}: the recording ends at {reader.heard_s:.3f} s")


def _resampled(pieces: Iterator[tuple[int, Audio]]) -> Iterator[Audio]:
    """The same at 16 kHz, as `das_lib.speech.audio.resample` would do it in one piece."""
    rate, stream, failure = SAMPLE_RATE, None, None
    nothing = np.zeros(0, np.float32)
    try:
        for piece_rate, samples in pieces:
            if piece_rate != rate:
                if stream:
                    yield stream.resample_chunk(nothing, last=True)
                rate, stream = piece_rate, None
                if rate != SAMPLE_RATE:
                    stream = soxr.ResampleStream(
                        rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ"
                    )
            yield stream.resample_chunk(samples) if stream else samples
    except AudioError as error:  # what was good before comes first
        failure = error
    if stream:
        yield stream.resample_chunk(nothing, last=True)
    if failure:
        raise failure


def _finite(pieces: Iterator[Audio]) -> Iterator[Audio]:
    done = 0
    for piece in pieces:
        if not np.isfinite(piece).all():
            place_s = done / SAMPLE_RATE
            raise AudioError("not-finite", f"samples after {place_s:.1f} s are NaN or too large")
        done += len(piece)
        yield piece


def _blocks(pieces: Iterator[Audio], size: int) -> Iterator[Audio]:
    """The same in blocks of ``size`` samples; the last one is shorter."""
    held: list[Audio] = []
    count, is_empty, failure = 0, True, None
    try:
        for piece in pieces:
            held.append(piece)
            count += len(piece)
            while count >= size:
                is_empty = False
                joined = np.concatenate(held)
                yield joined[:size]
                held, count = [joined[size:]], count - size
    except AudioError as error:
        failure = error
    if count:
        yield np.concatenate(held)
    if failure:
        raise failure
    if is_empty and not count:
        raise AudioError("empty-audio", "less than a sample at 16 kHz")


def _explained(error: Exception) -> AudioError:
    if isinstance(error, AudioError):
        return AudioError(error.reason, error.detail)
    if isinstance(error, OSError) and not isinstance(error, av.error.FFmpegError):
        return AudioError("storage", f"{error.strerror or error}")
    return AudioError("not-audio", first_line(error))
