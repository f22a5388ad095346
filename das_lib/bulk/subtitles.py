"""Subtitles: SubRip (srt) and WebVTT."""

import re
from collections.abc import Iterator

from das_lib.bulk.transcript import Transcript
from das_lib.bulk.written import one_line

SHORTEST_CUE_MS = 20

_ARROW = re.compile("-{2,}>")


def srt(transcript: Transcript) -> str:
    """A SubRip file, a cue for each segment; empty where nobody speaks."""
    return "".join(
        # SubRip has no escapes; openai/whisper shortens arrows too.
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_ARROW.sub('->', text)}\n\n"
        for number, (start, end, text) in enumerate(_cues(transcript), 1)
    )


def vtt(transcript: Transcript) -> str:
    """A WebVTT file, a cue for each segment."""
    cues = (
        f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n{_escaped(text)}\n"
        for start, end, text in _cues(transcript)
    )
    return "WEBVTT\n" + "".join(cues)


def _cues(transcript: Transcript) -> Iterator[tuple[int, int, str]]:
    """Start and end in ms, and one line of text; each cue can be seen and ends before the next."""
    last = 0
    for segment in transcript.segments:
        if text := one_line(segment.text):
            start = max(last, round(1000 * segment.start_s))
            last = max(start + SHORTEST_CUE_MS, round(1000 * segment.end_s))
            yield start, last, text


def _clock(ms: int, mark: str) -> str:
    minutes, ms = divmod(ms, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}{mark}{ms % 1000:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
