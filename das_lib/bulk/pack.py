"""Regions of speech -> windows of audio, filled one after the other.

A full window ends at a long pause, not just where it is full: Whisper hears a sentence that is cut
in two worse, for it knows nothing of the windows beside.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf

import numpy as np

from das_lib.bulk.vad import Region
from das_lib.speech.audio import SAMPLE_RATE, Audio

SHORTEST = SAMPLE_RATE // 10  # samples that Whisper needs
LONG = SAMPLE_RATE  # samples of a pause behind which another sentence begins, surely


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples [start, end) of the recording stand at ``at`` in the window's audio."""

    start: int
    end: int
    at: int


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Audio to decode at once: pieces of the recording, one right after the other."""

    pieces: tuple[Piece, ...]
    """In order of the recording; at least one."""
    audio: Audio
    """Shape [samples]; zeros after the last piece where that ends before 0.1 s."""
    speech: tuple[Region, ...] = ()
    """Where somebody speaks in it, in order; none where no VAD listened."""

    @property
    def duration_s(self) -> float:
        """Of ``audio``."""
        return len(self.audio) / SAMPLE_RATE

    def piece_of(self, seconds_in_window: float) -> int:
        """Index of the piece that is heard then; the first or last for times outside."""
        sample = round(seconds_in_window * SAMPLE_RATE)
        return max(0, bisect_right(self.pieces, sample, key=lambda piece: piece.at) - 1)

    def place(self, seconds_in_window: float) -> float:
        """The time in the recording, s; what is outside the pieces goes to their ends."""
        piece = self.pieces[self.piece_of(seconds_in_window)]
        sample = round(seconds_in_window * SAMPLE_RATE) - piece.at + piece.start
        return min(max(sample, piece.start), piece.end) / SAMPLE_RATE

    def part(self, start_s: float, end_s: float) -> "Window":
        """What lies between two times of the window, as a window."""
        first, last = (round(seconds * SAMPLE_RATE) for seconds in (start_s, end_s))
        pieces = []
        for piece in self.pieces:
            low = max(first, piece.at)
            high = min(last, piece.at + piece.end - piece.start)
            if low < high:
                shift = piece.start - piece.at
                pieces.append(Piece(low + shift, high + shift, low - first))
        return Window(tuple(pieces), self.audio[first:last], self.speech)

    def speech_s(self) -> list[tuple[float, float]]:
        """Where somebody speaks in ``audio``, s; all of it where no VAD listened."""
        if not self.speech:
            return [(0.0, self.duration_s)]
        return [
            ((start + shift) / SAMPLE_RATE, (end + shift) / SAMPLE_RATE)
            for region in self.speech
            for piece in self.pieces
            if (start := max(region.start, piece.start)) < (end := min(region.end, piece.end))
            for shift in (piece.at - piece.start,)
        ]

    def spoken(self, start_s: float, end_s: float) -> tuple[float, float]:
        """What of a stretch of the recording lies in that region of speech which has most of it.

        The stretch as it is, where it touches none.
        """

        def part(region: Region) -> tuple[float, float]:
            return max(start_s, region.start / SAMPLE_RATE), min(end_s, region.end / SAMPLE_RATE)

        parts = [(start, end) for start, end in map(part, self.speech) if start < end]
        return max(parts, key=lambda part: part[1] - part[0], default=(start_s, end_s))


def pad(audio: Audio) -> Audio:
    """The audio with zeros behind it, where it is shorter than what Whisper needs."""
    return np.pad(audio, (0, SHORTEST - len(audio))) if len(audio) < SHORTEST else audio


class Tape:
    """The part of the recording that is still needed; positions are the recording's."""

    end: int
    """Samples of the recording so far."""

    def __init__(self) -> None:
        self._chunks: deque[Audio] = deque()
        self._start = self.end = 0

    def append(self, chunk: Audio) -> None:
        """Add what comes next, shape [samples]."""
        self._chunks.append(chunk)
        self.end += len(chunk)

    def drop(self, before: int) -> None:
        """Forget what lies before a sample, as far as it is whole chunks."""
        while self._chunks and self._start + len(self._chunks[0]) <= before:
            self._start += len(self._chunks.popleft())

    def take(self, start: int, end: int) -> Audio:
        """A copy of samples [start, end), as far as the recording goes."""
        parts, at = [np.zeros(0, np.float32)], self._start
        for chunk in self._chunks:
            parts.append(chunk[max(0, start - at) : max(0, end - at)])
            at += len(chunk)
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class _Span:
    """Audio of the recording from sample ``start`` on."""

    start: int
    audio: Audio

    @property
    def end(self) -> int:
        return self.start + len(self.audio)


@dataclass(frozen=True, slots=True)
class _Part:
    """A region, the pause before it, and what is kept of that unless a window begins here."""

    gap: int
    pause: tuple[_Span, ...]
    speech: _Span


class Packer:
    """Fills windows with the regions of one recording; see ``WindowSettings`` for the bounds."""

    longest: int
    """Samples that a window holds."""
    join: int
    """Samples that are kept of a pause."""

    def __init__(
        self, *, max_s: float, max_gap_s: float | None, join_gap_s: float, break_from_s: float
    ) -> None:
        self.longest = round(max_s * SAMPLE_RATE)
        self.join = round(join_gap_s * SAMPLE_RATE)
        self._break_from = round(break_from_s * SAMPLE_RATE)
        self._max_gap = inf if max_gap_s in (None, inf) else round(max_gap_s * SAMPLE_RATE)
        self._waiting: list[_Part] = []
        self._trail = _Span(0, np.zeros(0, np.float32))  # the pause behind the last region

    def add(self, region: Region, tape: Tape) -> Iterator[Window]:
        """Add the next region, of at most ``longest``; the windows that it ends, if it does.

        ``tape`` holds the region with ``join`` on each side, as far as the recording goes.
        """
        gap = region.start - self._trail.start
        if gap > self._max_gap:
            yield from self.flush()
        length = min(gap, self.join) + region.end - region.start
        # What is left behind a break may still be too long with the region.
        while self._waiting and _ends(self._waiting)[-1] + length > self.longest:
            yield self._joined(self._break(gap))
        self._waiting.append(self._part(region, gap, tape))

    def flush(self) -> Iterator[Window]:
        """The window that is being filled, if there is any."""
        if self._waiting:
            yield self._joined(len(self._waiting))

    def _part(self, region: Region, gap: int, tape: Tape) -> _Part:
        if gap <= self.join:
            start = region.start - gap
            pause = (_Span(start, tape.take(start, region.start)),)
        else:
            start = region.start - (self.join - self.join // 2)
            pause = (self._trail, _Span(start, tape.take(start, region.start)))
        self._trail = _Span(region.end, tape.take(region.end, region.end + self.join // 2))
        return _Part(gap, pause, _Span(region.start, tape.take(region.start, region.end)))

    def _break(self, gap: int) -> int:
        """How many regions to take, where what waits is full and ``gap`` follows it."""
        gaps = [*(part.gap for part in self._waiting[1:]), gap]
        late = [n for n, end in enumerate(_ends(self._waiting)) if end >= self._break_from]
        # Of long or equal pauses the last: the fuller windows are, the fewer.
        return 1 + max(late or [len(gaps) - 1], key=lambda n: (min(gaps[n], LONG), n))

    def _joined(self, count: int) -> Window:
        """A window of the first ``count`` regions, which wait no longer."""
        spans = _spans(self._waiting[:count])
        speech = [part.speech for part in self._waiting[:count]]
        del self._waiting[:count]
        pieces: list[Piece] = []
        at = 0
        for span in spans:
            if pieces and pieces[-1].end == span.start:
                pieces[-1] = replace(pieces[-1], end=span.end)
            elif len(span.audio):
                pieces.append(Piece(span.start, span.end, at))
            at += len(span.audio)
        audio = pad(np.concatenate([span.audio for span in spans]))
        return Window(tuple(pieces), audio, tuple(Region(s.start, s.end) for s in speech))


def _spans(parts: list[_Part]) -> list[_Span]:
    """What a window of these holds."""
    return [parts[0].speech, *(s for part in parts[1:] for s in (*part.pause, part.speech))]


def _ends(parts: list[_Part]) -> list[int]:
    """Where each region ends in a window of these, in samples."""
    rest = (sum(len(span.audio) for span in (*part.pause, part.speech)) for part in parts[1:])
    return list(accumulate(rest, initial=len(parts[0].speech.audio)))
