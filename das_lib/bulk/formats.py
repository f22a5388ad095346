"""The forms that transcripts are written in, and which of them hold one recording a file."""

from collections.abc import Callable

from das_lib.bulk import json_forms, scoring, subtitles
from das_lib.bulk.transcript import Transcript
from das_lib.bulk.written import one_line

PER_RECORDING = ("txt", "srt", "vtt", "json")
"""Formats with a file for each recording."""

PER_BLOCK = ("jsonl", "ctm", "stm")
"""Formats whose lines name the recording; those of many recordings make one file."""

FORMATS = ("txt", "jsonl", "srt", "vtt", "json", "ctm", "stm")


def txt(transcript: Transcript) -> str:
    """The text, a line for each segment, as openai/whisper writes it."""
    lines = (one_line(segment.text) for segment in transcript.segments)
    return "".join(f"{line}\n" for line in lines if line)


_RENDERERS: dict[str, Callable[[Transcript], str]] = {
    "txt": txt,
    "jsonl": json_forms.jsonl,
    "srt": subtitles.srt,
    "vtt": subtitles.vtt,
    "json": json_forms.openai_json,
    "ctm": scoring.ctm,
    "stm": scoring.stm,
}


def render(transcript: Transcript, format: str) -> str:
    """A transcript in one of `FORMATS`: a whole file, or the lines of one recording.

    Raises:
        DasError: the format needs word times and the transcript has none.
    """
    return _RENDERERS[format](transcript)
