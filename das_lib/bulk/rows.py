"""Transcripts as rows of BULK_TRANSCRIPTS (``schemas/bulk.py``), and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from das_lib.bulk.hear import Heard
from das_lib.bulk.transcript import Segment, Transcript, Word


def to_row(heard: Heard, *, model: str, adapters: Sequence[str], seconds: float) -> dict[str, Any]:
    """A row of BULK_TRANSCRIPTS.

    Args:
        heard: The transcript, and how it came about.
        model: The model that transcribed.
        adapters: Those that took part, as ``name@hash``.
        seconds: From reading the recording to its last answer.
    """
    transcript = heard.transcript
    return {
        "id": transcript.id,
        "text": transcript.text,
        "language": transcript.language,
        "duration_s": transcript.duration_s,
        "speech_s": transcript.speech_s,
        "segments": [asdict(segment) for segment in transcript.segments],
        "model": model,
        "adapters": list(adapters),
        "guards": sorted(heard.counts.elements()),
        "windows": heard.windows,
        "batches": heard.batches,
        "seconds": seconds,
    }


def from_row(row: Mapping[str, Any]) -> Transcript:
    """The transcript in a row; probabilities come back as float32 keeps them."""
    return Transcript(
        id=row["id"],
        language=row["language"],
        duration_s=row["duration_s"],
        speech_s=row["speech_s"],
        segments=tuple(
            Segment(**{**segment, "words": tuple(Word(**word) for word in segment["words"])})
            for segment in row["segments"]
        ),
    )
