"""A recording of any length -> windows of speech of at most 30 s, each decoded by itself."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from math import inf

import numpy as np

from das_lib.bulk.pack import Packer, Piece, Tape, Window, pad
from das_lib.bulk.vad import Region, Regions, Vad
from das_lib.errors import DasError
from das_lib.speech.audio import MAX_SECONDS, SAMPLE_RATE, Audio

CHUNK = 64 * 512  # samples that the VAD hears at a time, 2 s


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """How recordings are cut; pauses are between regions, which include their padding.

    Raises:
        DasError: a value is out of its bounds.
    """

    max_s: float = 30.0
    """Longest window, and longest recording that is heard whole; 1 to 30."""
    max_gap_s: float | None = None
    """A longer pause ends the window, full or not; None: no pause does."""
    join_gap_s: float = 0.6
    """How much of a longer pause is kept within a window, half of it on each side."""
    break_from_s: float = 20.0
    """A full window ends at its last pause of a second, or its longest, from here on; 0 to 30.
    Where none is left, it ends before the region that does not fit."""
    threshold: float = 0.5
    """Probability at which speech begins, between 0 and 1."""
    min_speech_s: float = 0.1
    """Shorter speech is dropped."""
    min_silence_s: float = 0.3
    """Shorter silence does not end speech."""
    pad_s: float = 0.2
    """Audio that is kept on each side of speech."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise DasError(
                f"threshold={self.threshold:g} is out of bounds; give more than 0, less than 1"
            )
        bounds = {
            "max_s": (1, MAX_SECONDS),
            "max_gap_s": (0, inf),
            "break_from_s": (0, MAX_SECONDS),
        }
        for name in (field.name for field in fields(self) if field.name.endswith("_s")):
            value = getattr(self, name)
            low, high = bounds.get(name, (0, self.max_s))
            if value is not None and not low <= value <= high:
                raise DasError(f"{name}={value:g} is out of bounds; give {low:g} to {high:g} s")


class Windows:
    """The windows of one recording, in order; to be iterated once.

    A recording of at most ``max_s`` is one window, untouched, if anybody speaks in it. In longer
    ones, regions of speech are packed in order into windows of at most ``max_s``, which end at
    pauses; every sample of a region is in exactly one window, and long silence costs no decoding.
    Without a VAD the windows are ``max_s`` of audio, one after the other.

    Memory holds about two windows of audio, and a third while one is put together, besides what
    was handed out; neither the length of the recording nor its pauses matter.
    """

    num_samples: int
    """Length of the recording, as far as it has been iterated."""
    speech_samples: int
    """Audio of the recording in the windows so far."""

    def __init__(self, blocks: Iterable[Audio], vad: Vad | None, settings: WindowSettings) -> None:
        """``blocks`` are the recording: 16 kHz mono, finite samples, shape [samples] each."""
        self.num_samples = self.speech_samples = 0
        if vad is None:
            self._windows = self._fixed(blocks, settings)
        else:
            self._windows = self._voiced(blocks, vad, settings)

    def __iter__(self) -> Iterator[Window]:
        for window in self._windows:
            self.speech_samples += sum(piece.end - piece.start for piece in window.pieces)
            yield window

    def _fixed(self, blocks: Iterable[Audio], settings: WindowSettings) -> Iterator[Window]:
        for chunk in _rechunk(blocks, round(settings.max_s * SAMPLE_RATE)):
            start = self.num_samples
            self.num_samples += len(chunk)
            yield Window((Piece(start, self.num_samples, 0),), pad(chunk))

    def _voiced(
        self, blocks: Iterable[Audio], vad: Vad, settings: WindowSettings
    ) -> Iterator[Window]:
        tape, stream = Tape(), vad.stream()
        packer = Packer(
            max_s=settings.max_s,
            max_gap_s=settings.max_gap_s,
            join_gap_s=settings.join_gap_s,
            break_from_s=settings.break_from_s,
        )
        regions = Regions(
            threshold=settings.threshold,
            min_speech_s=settings.min_speech_s,
            min_silence_s=settings.min_silence_s,
            pad_s=settings.pad_s,
            max_s=settings.max_s,
        )
        found: deque[Region] = deque()
        for chunk in _rechunk(blocks, CHUNK):
            tape.append(chunk)
            self.num_samples = tape.end
            found.extend(regions.feed(stream.feed(chunk)))
            if tape.end <= packer.longest:
                continue
            # A region goes with the pause after it, which may not have been heard yet.
            while found and found[0].end + packer.join <= tape.end:
                yield from packer.add(found.popleft(), tape)
            tape.drop((found[0].start if found else regions.settled) - packer.join)
        found.extend(regions.feed(stream.finish()))
        found.extend(regions.finish(tape.end))
        if found and tape.end <= packer.longest:
            whole = (Piece(0, tape.end, 0),)
            yield Window(whole, pad(tape.take(0, tape.end)), tuple(found))
            return
        for region in found:
            yield from packer.add(region, tape)
        yield from packer.flush()


def _rechunk(blocks: Iterable[Audio], size: int) -> Iterator[Audio]:
    """The same audio in blocks of ``size`` samples; the last may be shorter, none is empty."""
    parts: list[Audio] = []
    length = 0
    for block in blocks:
        while length + len(block) >= size:
            parts.append(block[: size - length])
            block = block[size - length :]
            yield np.concatenate(parts)
            parts, length = [], 0
        if len(block):
            parts.append(block)
            length += len(block)
    if length:
        yield np.concatenate(parts)
